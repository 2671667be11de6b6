"""Batches of images with and without labels: ``DataLoader.UnLabelTrain``.

An epoch is one pass over the labelled list. To every batch of it a batch of the unlabelled list is added;
passes over the unlabelled list follow each other without a break, also across epochs. The content of step k
of epoch e depends only on the seed, e and k, so a run can be resumed at any step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ppcls.data.batch import Batch, Pixels
from ppcls.data.loader import BatchOp, Loader
from ppcls.data.sampler import Draws, EpochSampler, Sampler, Share, repeats
from ppcls.errors import DataError


class Endless(Sampler):
    """The passes of a sampler one after the other, cut into as many batches per epoch as another list has.

    Epochs are counted from 1; the first pass begins with the first epoch.

    Args:
        sampler: gives the order of a pass and the batch size.
        steps: batches per epoch.
    """

    def __init__(self, sampler: EpochSampler, steps: int) -> None:
        self.sampler = sampler
        self.steps = steps
        self.batch_size = sampler.batch_size

    def count(self, share: Share) -> int:
        """Return the number of batches per epoch."""
        return self.steps

    def batches(self, share: Share, epoch: int) -> list[Draws]:
        """Return the samples of each batch of this process, all of full size."""
        together = self.batch_size * share.world_size
        order = self._stretch(share, (epoch - 1) * self.steps * together, self.steps * together)
        draws = Draws(order, repeats(order))
        first = self.batch_size * share.rank
        return [draws.part(start, start + self.batch_size) for start in range(first, len(order), together)]

    def _stretch(self, share: Share, start: int, length: int) -> np.ndarray:
        """Return `length` samples from position `start` of the endless order, int64."""
        first, skip = divmod(start, share.length)
        passes = range(first, (start + length - 1) // share.length + 1)
        return np.concatenate([self.sampler.order(share, number) for number in passes])[skip : skip + length]


class WithoutLabels:
    """Applies a batch transform to images without labels: it gets class 0, and its labels are dropped."""

    def __init__(self, op: BatchOp) -> None:
        self.op = op

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the transformed images and the unchanged labels."""
        return self.op(image, np.zeros_like(label), rng)[0], label


class JoinedLoader:
    """Batches of images with and without labels; the training loop uses it like a :class:`Loader`.

    A batch of a labelled and b unlabelled images consists of gcd(a, b) equal sections, each with its labelled
    images first. So the batches of W processes together have the same order as the batch of one process.

    Args:
        labelled: its length is the length of an epoch.
        unlabelled: gives the same number of batches.
    """

    def __init__(self, labelled: Loader, unlabelled: Loader) -> None:
        self.labelled = labelled
        self.unlabelled = unlabelled
        self.dataset = labelled.dataset
        self.division = labelled.division

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.labelled)

    def path(self, index: int) -> str:
        """Return the file of an entry of ``Batch.index``; unlabelled images come after the labelled ones."""
        own = len(self.labelled.dataset)
        return self.labelled.path(index) if index < own else self.unlabelled.path(index - own)

    def first_image(self) -> np.ndarray:
        """Return the first labelled image, [C, H, W].

        Raises:
            DataError: if it or the first unlabelled image cannot be read, or their shapes differ.
        """
        image = self.labelled.first_image()
        other = self.unlabelled.first_image()
        _check_alike(image, other)
        return image

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch in order, see :meth:`Loader.epoch`; epochs count from 1."""
        both = zip(
            *(loader.epoch(epoch, start_batch) for loader in (self.labelled, self.unlabelled)), strict=True
        )
        for batch, more in both:
            yield join_batches(batch, more, len(self.labelled.dataset))

    @contextmanager
    def only_first_batch(self) -> Iterator[None]:
        """Let epochs end after their first batch, see :meth:`Loader.only_first_batch`."""
        with self.labelled.only_first_batch(), self.unlabelled.only_first_batch():
            yield

    def close(self) -> None:
        """End the threads."""
        self.labelled.close()
        self.unlabelled.close()


def join_batches(labelled: Batch, unlabelled: Batch, offset: int) -> Batch:
    """Join two batches, see :class:`JoinedLoader`.

    Args:
        labelled: images whose labels are used.
        unlabelled: images whose labels are dropped.
        offset: added to the indices of `unlabelled`.

    Raises:
        DataError: if the images differ in shape or type.
    """
    both = labelled.pixels, unlabelled.pixels
    image: np.ndarray | Pixels
    if both[0] is not None and both[1] is not None and both[0].fits(both[1]):
        image = Pixels(_interleave(both[0].levels, both[1].levels), both[0].normalize)
    else:
        _check_alike(labelled.image[0], unlabelled.image[0])
        image = _interleave(labelled.image, unlabelled.image)
    index = _interleave(labelled.index, unlabelled.index + offset)
    rows = np.flatnonzero(labelled_rows(len(labelled.index), len(unlabelled.index)))
    return Batch(image, labelled.label, index, rows)


def _interleave(labelled: np.ndarray, unlabelled: np.ndarray) -> np.ndarray:
    """Return the rows of both arrays, [a + b, ...], in the order of a joined batch."""
    stretches = math.gcd(len(labelled), len(unlabelled))
    parts = [rows.reshape(stretches, -1, *rows.shape[1:]) for rows in (labelled, unlabelled)]
    return np.concatenate(parts, axis=1).reshape(-1, *labelled.shape[1:])


def labelled_rows(labelled: int, unlabelled: int) -> np.ndarray:
    """Return which rows of a joined batch have labels, bool [labelled + unlabelled]."""
    stretches = math.gcd(labelled, unlabelled)
    length = (labelled + unlabelled) // stretches
    return np.arange(labelled + unlabelled) % length < labelled // stretches


def _check_alike(labelled: np.ndarray, unlabelled: np.ndarray) -> None:
    if labelled.shape != unlabelled.shape or labelled.dtype != unlabelled.dtype:
        raise DataError(
            f"DataLoader.UnLabelTrain.dataset gives images {unlabelled.shape} {unlabelled.dtype}, "
            f"DataLoader.Train.dataset {labelled.shape} {labelled.dtype}; their transform_ops must end alike"
        )
