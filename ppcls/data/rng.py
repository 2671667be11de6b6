"""Random generators that depend only on their purpose, such as "sample 7 in epoch 3".

The generator of a sample is the same in every thread and process, and in a resumed run; so its augmentation
can be repeated later from (seed, epoch, index).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

# The key of a counter-based generator (Philox, Salmon et al. 2011) has 128 bits: 64 for the seed and
# 64 for these fields. Different keys give independent streams, and a generator costs 4 microseconds.
_KINDS = {"sample": 0, "batch": 1, "order": 2, "size": 3, "stream": 4}
_START = np.zeros(4, np.uint64)
_INDEX_BITS = 40
_EPOCH_BITS = 20


def sample_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    """Return the generator of one sample's augmentation in one epoch.

    Args:
        seed: seed of the run.
        epoch: number of the epoch.
        index: position of the sample in its dataset.
        repeat: how often the sample was drawn before in this epoch.
    """
    return _generator("sample", seed, epoch, index, repeat)


class SampleNumbers:
    """The random numbers of one sample's augmentation in one epoch, always the same from the beginning.

    Args:
        seed: see :func:`sample_rng`.
        epoch: the same.
        index: the same.
        repeat: the same.
    """

    __slots__ = ("_what",)

    def __init__(self, seed: int, epoch: int, index: int, repeat: int = 0) -> None:
        self._what = (seed, epoch, index, repeat)

    def generator(self) -> np.random.Generator:
        """Return :func:`sample_rng` of this sample."""
        return sample_rng(*self._what)

    def borrow(self) -> np.random.Generator:
        """Return the same numbers at a quarter of the cost, until this thread borrows for the next sample."""
        seed, epoch, index, repeat = self._what
        if repeat:
            return self.generator()
        key = _SHARED.state["state"]["key"]
        key[:] = _key("sample", seed, epoch, index)
        _SHARED.philox.state = _SHARED.state
        return _SHARED.generator


def batch_rng(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Return the generator of the batch transforms of batch `number`, counted over all processes."""
    return _generator("batch", seed, epoch, number)


def order_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator that shuffles an epoch; it is the same in every process."""
    return _generator("order", seed, epoch, 0)


def size_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of the image sizes of an epoch's batches; it is the same in every process."""
    return _generator("size", seed, epoch, 0)


def stream_rng(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator that orders the shards of an epoch; it is the same in every process."""
    return _generator("stream", seed, epoch, 0)


def _generator(kind: str, seed: int, epoch: int, index: int, repeat: int = 0) -> np.random.Generator:
    # The counter has 256 bits; no generator gets far enough to reach the highest 64 by counting.
    key: Any = _Key(_key(kind, seed, epoch, index))  # NumPy's types know its own class of this kind alone
    # An array takes less time than a number, and here most are equal.
    philox = np.random.Philox(key, counter=repeat << 192 if repeat else _START)
    return np.random.Generator(philox)


def _key(kind: str, seed: int, epoch: int, index: int) -> list[int]:
    """Return the key of a generator in two parts of 64 bits, the lower one first."""
    if not (0 <= epoch < 1 << _EPOCH_BITS and 0 <= index < 1 << _INDEX_BITS):
        raise ValueError(f"no generator for epoch {epoch}, index {index}")
    return [_KINDS[kind] << (_EPOCH_BITS + _INDEX_BITS) | epoch << _INDEX_BITS | index, seed % (1 << 64)]


class _Shared(threading.local):
    """A generator of each thread that begins again and again with another key."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(_Key([0, 0]), counter=_START)  # type: ignore[arg-type]
        self.generator = np.random.Generator(self.philox)
        self.state = self.philox.state


class _Key(ISeedSequence):
    """Gives Philox its key. When it gets a key directly, it also collects entropy, which takes longer.

    Args:
        words: the key in two parts of 64 bits, the lower one first.
    """

    def __init__(self, words: list[int]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """Return the key; Philox asks for two words of 64 bits."""
        return np.array(self._words, np.uint64)


_SHARED = _Shared()
