"""Which samples make up which batch, in every epoch and process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ppcls.data.rng import order_rng
from ppcls.errors import ConfigError
from ppcls.registry import SAMPLERS


@dataclass(frozen=True)
class Share:
    """What a sampler draws from, and the part of it that belongs to one process.

    Attributes:
        length: samples in the dataset.
        seed: seed of the run.
        rank: index of the process.
        world_size: number of processes.
        training: every process needs equally many batches of equal sizes, because they exchange
            gradients. Otherwise every sample belongs to exactly one process.
    """

    length: int
    seed: int
    rank: int = 0
    world_size: int = 1
    training: bool = True


class Sampler(Protocol):
    """What the loader needs of a sampler; options of the YAML are its constructor's parameters."""

    batch_size: int
    drop_last: bool

    def count(self, share: Share) -> int:
        """Return the number of batches an epoch."""

    def batches(self, share: Share, epoch: int) -> list[np.ndarray]:
        """Return the sample indices of each batch, int64."""


@SAMPLERS.register()
class DistributedBatchSampler:
    """Split an epoch over processes and into batches; one process is the plain case.

    The order of an epoch depends on the seed and the epoch alone. In training, batch k of all W processes
    together holds the samples k*W*B to (k+1)*W*B of that order, process r the r-th part: W processes with
    B samples each see what one process with W*B sees. Only if the last, smaller batch cannot be divided by
    W, the first samples of the order are repeated to fill it up, at most W - 1. In evaluation nothing is
    repeated: the processes get consecutive parts whose sizes differ by at most one.

    Args:
        batch_size: samples of one process in a batch.
        drop_last: leave out a last batch that is not full (training only).
        shuffle: a new order in each epoch.

    Raises:
        ConfigError: for a batch size below 1.
    """

    def __init__(self, batch_size: int, drop_last: bool = False, shuffle: bool = False) -> None:
        if batch_size < 1:
            raise ConfigError(f"DistributedBatchSampler: batch_size must be at least 1, got {batch_size}")
        self.batch_size, self.drop_last, self.shuffle = batch_size, drop_last, shuffle

    def count(self, share: Share) -> int:
        """Return the number of batches an epoch."""
        if not share.training:
            mine = share.length // share.world_size + (share.rank < share.length % share.world_size)
            return -(-mine // self.batch_size)
        together = self.batch_size * share.world_size
        return share.length // together if self.drop_last else -(-share.length // together)

    def batches(self, share: Share, epoch: int) -> list[np.ndarray]:
        """Return the sample indices of each batch of this process, int64."""
        order = np.arange(share.length)
        if self.shuffle:
            order_rng(share.seed, epoch).shuffle(order)
        if not share.training:
            mine = np.array_split(order, share.world_size)[share.rank]
            return [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)]
        together = self.batch_size * share.world_size
        return [
            self._part(order[start : start + together], order, share)
            for start in range(0, self.count(share) * together, together)
        ]

    @staticmethod
    def _part(batch: np.ndarray, order: np.ndarray, share: Share) -> np.ndarray:
        lacking = -len(batch) % share.world_size
        if lacking:
            batch = np.concatenate([batch, order[np.arange(lacking) % len(order)]])
        return batch.reshape(share.world_size, -1)[share.rank]
