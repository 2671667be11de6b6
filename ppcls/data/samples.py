"""How the threads of a loader get their samples: first what a sample starts from, then its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ppcls.data.dataset import REMEDY, Dataset, OpenSample
from ppcls.data.images import Naming
from ppcls.data.rng import SampleNumbers


@dataclass(slots=True)
class Draw:
    """A sample of one epoch.

    Attributes:
        index: place in the dataset.
        epoch: number of the epoch.
        seed: seed of the run.
        repeat: how often this sample already occurred in the epoch.
        size: width and height of the image; None: as the transforms have them.
    """

    index: int
    epoch: int
    seed: int
    repeat: int = 0
    size: tuple[int, int] | None = None


@dataclass(slots=True)
class Opened:
    """What the image of a sample is made from.

    Attributes:
        draw: the sample.
        label: its class.
        finish: returns the image; None: a process does this.
        naming: adds the name of the sample to errors.
        size: bytes of what was read, as far as this is known.
    """

    draw: Draw
    label: int
    finish: Callable[[np.ndarray | None], np.ndarray] | None = None
    naming: Naming | None = None
    size: int = 0


class Samples(Protocol):
    """Prepares samples in two steps. Each may be done for several samples at a time, which is faster."""

    def open(self, draw: Draw) -> Opened:
        """Read a sample.

        Raises:
            ImageError: naming the file, if it cannot be read.
            DataError: naming the file, for any other error.
        """

    def image(self, opened: Opened, out: np.ndarray | None = None) -> np.ndarray:
        """Return the image of a sample.

        Args:
            opened: the result of :meth:`open`.
            out: an array that may be used for the result; it does not change the values.

        Returns:
            uint8 [C, H, W] before the normalisation at the end of the transforms; or, if they end in another
            way or are to be finished, float [C, H, W].

        Raises:
            ImageError: naming the file, if it cannot be decoded.
            DataError: naming the file, for any other error.
        """


class LocalSamples:
    """The samples of a dataset, prepared by the calling thread.

    Args:
        dataset: the dataset.
        finished: apply all transforms; otherwise normalisation at the end is left to the batch.
        open_sample: opens a sample; by default, the dataset does.
    """

    def __init__(self, dataset: Dataset, finished: bool, open_sample: OpenSample | None = None) -> None:
        self.dataset = dataset
        self.finished = finished
        self._open_sample = open_sample or dataset.open_sample

    def open(self, draw: Draw) -> Opened:
        """See :meth:`Samples.open`."""
        naming = self._naming(draw)
        with naming:
            content, label = self._open_sample(draw.index, draw.epoch, draw.seed)
            chain = self.dataset.chain(draw.size)
            begun = chain.begin(content, SampleNumbers(draw.seed, draw.epoch, draw.index, draw.repeat))
            finish = partial(chain.finish if self.finished else chain.pixels, begun)
            size = len(content) if isinstance(content, bytes) else getattr(content, "nbytes", 0)
            return Opened(draw, label, finish, naming, size)

    def label(self, draw: Draw) -> int:
        """Return the class of a sample.

        Raises:
            DataError: naming the file.
        """
        with self._naming(draw):
            return self.dataset.label(draw.index)

    def image(self, opened: Opened, out: np.ndarray | None = None) -> np.ndarray:
        """See :meth:`Samples.image`."""
        if opened.naming is None or opened.finish is None:
            raise RuntimeError("a sample that a process was to prepare")
        with opened.naming:
            return opened.finish(out)

    def _naming(self, draw: Draw) -> Naming:
        remedy = REMEDY if self.dataset.on_error == "raise" else ""
        return Naming(lambda: f"{self.dataset.path(draw.index)} (sample {draw.index})", remedy)
