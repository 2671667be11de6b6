"""Which samples make up which batch, in every epoch and process.

A sampler defines the order of the samples in an epoch, which depends only on the seed and the epoch. How the
order is cut into batches and divided among processes is the same for all samplers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ppcls.contracts import Component
from ppcls.data.rng import order_rng
from ppcls.errors import ConfigError
from ppcls.registry import SAMPLERS


@dataclass(frozen=True)
class Share:
    """The samples to draw from, and the part of them that belongs to one process.

    Attributes:
        length: samples in the dataset.
        seed: seed of the run.
        rank: index of the process.
        world_size: number of processes.
        training: every process needs equally many batches of equal sizes, because they exchange
            gradients. Otherwise every sample belongs to exactly one process.
        labels: class of each sample, int64, for samplers with `needs_labels`.
    """

    length: int
    seed: int
    rank: int = 0
    world_size: int = 1
    training: bool = True
    labels: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Draws:
    """Samples in the order they are drawn.

    Attributes:
        index: position of each sample in the dataset, int64 [N].
        repeat: how often the sample was already drawn in this epoch, int64 [N]; each time it is augmented
            differently.
        size: width and height of the images of a batch; None: as the transforms say.
    """

    index: np.ndarray
    repeat: np.ndarray
    size: tuple[int, int] | None = None

    def part(self, start: int, stop: int) -> Draws:
        """Return the draws from `start` to before `stop`."""
        return Draws(self.index[start:stop], self.repeat[start:stop])


class Sampler(Component):
    """Base class of samplers: what the loader needs of one. `EpochSampler` does most of it.

    Attributes:
        batch_size: samples of one process in a batch.
        drop_last: whether a last batch that is not full is left out.
        training_only: whether evaluation would not count every sample once.
        needs_labels: whether it reads ``share.labels``.
        multi_scale: whether batches have images of several sizes, so that the dataset must be able to give
            them.
        in_order: whether an epoch goes through the samples in their order, at least nearly, so that they can
            be read as a stream.
        shuffle: whether the order is random.
    """

    batch_size: int
    drop_last: bool = False
    training_only: bool = False
    needs_labels: bool = False
    multi_scale: bool = False
    in_order: bool = False
    shuffle: bool = False

    @abstractmethod
    def count(self, share: Share) -> int:
        """Return the number of batches of this process in an epoch."""

    @abstractmethod
    def batches(self, share: Share, epoch: int) -> list[Draws]:
        """Return the samples of each batch of this process; a function of `share` and `epoch` alone."""

    def check(self, share: Share) -> None:
        """Raise ConfigError if the options do not fit the dataset."""


class EpochSampler(Sampler, ABC):
    """An order of the samples, cut into batches and shared among processes.

    In training, batch k of all W processes together holds the samples k*W*B to (k+1)*W*B of the order,
    process r the r-th part: W processes with B samples each see the same as one process with W*B samples. If
    the last, smaller batch cannot be divided by W, up to W - 1 of the first samples are repeated to fill it.
    In evaluation nothing is repeated: the processes get consecutive parts whose sizes differ by at most one.

    Args:
        batch_size: samples of one process in a batch.
        drop_last: leave out a last batch that is not full (training only).

    Attributes:
        repeating: whether an epoch can have a sample more than once.

    Raises:
        ConfigError: for a batch size below 1.
    """

    repeating: bool = False

    def __init__(self, batch_size: int, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise ConfigError(f"{type(self).__name__}: batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self.drop_last = drop_last

    @abstractmethod
    def order(self, share: Share, epoch: int) -> np.ndarray:
        """Return the samples of an epoch of all processes together, int64 [share.length]."""

    def count(self, share: Share) -> int:
        """Return the number of batches per epoch."""
        if not share.training:
            mine = share.length // share.world_size + (share.rank < share.length % share.world_size)
            return -(-mine // self.batch_size)
        together = self.batch_size * share.world_size
        return share.length // together if self.drop_last else -(-share.length // together)

    def batches(self, share: Share, epoch: int) -> list[Draws]:
        """Return the samples of each batch of this process."""
        order = self.order(share, epoch)
        if len(order) != share.length:
            name = type(self).__name__
            raise ValueError(f"{name}.order gave {len(order)} samples, expected {share.length}")
        draws = Draws(order, repeats(order) if self.repeating else np.zeros_like(order))
        if not share.training:
            ends = np.cumsum([0, *map(len, np.array_split(order, share.world_size))])
            mine = draws.part(*ends[share.rank : share.rank + 2])
            starts = range(0, len(mine.index), self.batch_size)
            return [mine.part(start, start + self.batch_size) for start in starts]
        together = self.batch_size * share.world_size
        starts = range(0, self.count(share) * together, together)
        return [self._part(draws.part(start, start + together), draws, share) for start in starts]

    @staticmethod
    def _part(batch: Draws, order: Draws, share: Share) -> Draws:
        fill = np.arange(-len(batch.index) % share.world_size) % len(order.index)
        parts = (
            # A copy, because a view would keep the samples of all processes in memory.
            np.concatenate([own, everything[fill]]).reshape(share.world_size, -1)[share.rank].copy()
            for own, everything in ((batch.index, order.index), (batch.repeat, order.repeat))
        )
        return Draws(*parts)


def repeats(order: np.ndarray) -> np.ndarray:
    """Return for each position of `order` how often its value occurs before it, int64 [N]."""
    by_value = np.argsort(order, kind="stable")
    counts = np.unique(order, return_counts=True)[1]
    found = np.empty_like(order)
    found[by_value] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found


@SAMPLERS.register(aliases=("BatchSampler",))
class DistributedBatchSampler(EpochSampler):
    """Every sample once per epoch; for one process or several. How batches are formed: :class:`EpochSampler`.

    Args:
        batch_size: samples of one process in a batch.
        drop_last: leave out a last batch that is not full (training only).
        shuffle: a new order in each epoch.
    """

    def __init__(self, batch_size: int, drop_last: bool = False, shuffle: bool = False) -> None:
        super().__init__(batch_size, drop_last)
        self.shuffle = shuffle
        self.in_order = not shuffle

    def order(self, share: Share, epoch: int) -> np.ndarray:
        """Return all samples, int64 [share.length]."""
        order = np.arange(share.length)
        if self.shuffle:
            order_rng(share.seed, epoch).shuffle(order)
        return order


@SAMPLERS.register()
class ShuffleBufferSampler(EpochSampler):
    """Every sample once per epoch, in an order that is random among neighbours, for reading in a stream.

    A sample moves by less than `buffer` places, so a stream needs to hold no more samples than that.

    Args:
        batch_size: samples of one process in a batch.
        drop_last: leave out a last batch that is not full.
        buffer: number of neighbours that are shuffled.

    Raises:
        ConfigError: for a `buffer` below 1.
    """

    training_only = True
    in_order = True
    shuffle = True

    def __init__(self, batch_size: int, drop_last: bool = False, buffer: int = 2000) -> None:
        super().__init__(batch_size, drop_last)
        if buffer < 1:
            raise ConfigError(f"must be at least 1, got {buffer}", path="ShuffleBufferSampler.buffer")
        self.buffer = buffer

    def order(self, share: Share, epoch: int) -> np.ndarray:
        """Return all samples, int64 [share.length]."""
        late = order_rng(share.seed, epoch).random(share.length) * self.buffer
        return np.argsort(np.arange(share.length) + late, kind="stable")


@SAMPLERS.register(aliases=("RepeatedAugSampler",))
class RASampler(EpochSampler):
    """Repeated augmentation (Hoffer et al., arXiv 1901.09335; as DeiT trains, arXiv 2012.12877).

    An epoch has the usual length, but only a random part of the samples, ``1 / num_repeats`` of them. Each of
    these occurs `num_repeats` times in a row, each time with another augmentation.

    Args:
        batch_size: samples of one process in a batch.
        drop_last: leave out a last batch that is not full.
        shuffle: must be true, because otherwise most samples would never be seen.
        num_repeats: how often a sample occurs.

    Raises:
        ConfigError: for `num_repeats` below 1 or `shuffle` false.
    """

    training_only = True
    repeating = True

    def __init__(
        self, batch_size: int, drop_last: bool = False, shuffle: bool = True, num_repeats: int = 3
    ) -> None:
        super().__init__(batch_size, drop_last)
        if num_repeats < 1:
            raise ConfigError(f"must be at least 1, got {num_repeats}", path="RASampler.num_repeats")
        if not shuffle:
            raise ConfigError("must be True, or most samples would never be seen", path="RASampler.shuffle")
        self.num_repeats = num_repeats

    def order(self, share: Share, epoch: int) -> np.ndarray:
        """Return each of the first samples of a random order `num_repeats` times, int64 [share.length]."""
        chosen = order_rng(share.seed, epoch).permutation(share.length)
        return np.repeat(chosen[: -(-share.length // self.num_repeats)], self.num_repeats)[: share.length]


@SAMPLERS.register()
class ClassAwareSampler(EpochSampler):
    """Every class equally often, for unbalanced sets (Shen et al., arXiv 1512.05830).

    An epoch has the usual length. Each class gets its share of it, rounded up or down. The samples of a class
    are used in random order, repeatedly if they are few; each repetition is augmented differently.

    Args:
        batch_size: samples of one process in a batch.
        drop_last: leave out a last batch that is not full.
        class_weights: one number per class, from class 0; a class with 2 is drawn twice as often as one with
            1, however many samples they have. Null means 1 for every class that has samples.

    Raises:
        ConfigError: for weights that are negative or not finite, or if all are 0.
    """

    training_only = True
    needs_labels = True
    repeating = True

    def __init__(
        self, batch_size: int, drop_last: bool = False, class_weights: list[float] | None = None
    ) -> None:
        super().__init__(batch_size, drop_last)
        weights = class_weights
        if weights is not None and not (any(weights) and all(0 <= weight < math.inf for weight in weights)):
            text = f"got {weights}, expected finite numbers of at least 0, one of them above 0"
            raise ConfigError(text, path="ClassAwareSampler.class_weights")
        self.class_weights = class_weights

    def check(self, share: Share) -> None:
        """Raise ConfigError if there are labels without a weight, or weights for classes without samples."""
        if self.class_weights is None:
            return
        there = set(np.unique(_labels(share)).tolist())
        where = "ClassAwareSampler.class_weights"
        given = len(self.class_weights)
        if max(there) >= given:
            raise ConfigError(f"{given} numbers, but the dataset has class {max(there)}", path=where)
        empty = [c for c, weight in enumerate(self.class_weights) if weight > 0 and c not in there]
        if empty:
            raise ConfigError(f"class {_listed(empty)} has no samples; its weight must be 0", path=where)

    def order(self, share: Share, epoch: int) -> np.ndarray:
        """Return the samples of an epoch, int64 [share.length]."""
        rng = order_rng(share.seed, epoch)
        labels = _labels(share)
        classes = np.unique(labels)
        given = self.class_weights
        weights = np.ones(len(classes)) if given is None else np.asarray(given, np.float64)[classes]
        classes = classes[weights > 0]
        weights = weights[weights > 0]
        # Systematic sampling: equally spaced draws; a class gets those that fall into its interval.
        ends = np.cumsum(weights) / weights.sum() * share.length
        drawn = np.ceil(ends - rng.random()).astype(np.int64).clip(max=share.length)
        drawn[-1] = share.length  # not affected by rounding
        counts = np.diff(drawn, prepend=0)
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
        order = np.concatenate([_cycle(members[c], n, rng) for c, n in zip(classes, counts, strict=True)])
        rng.shuffle(order)
        return order


def _labels(share: Share) -> np.ndarray:
    if share.labels is None:
        raise ValueError("this sampler needs Share.labels")
    return share.labels


def _cycle(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` of the members, int64; how often two members occur differs by at most one."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([members[:0], *rounds])[:count]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, list(numbers)[:5]))
