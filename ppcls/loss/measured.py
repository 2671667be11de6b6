"""What losses measure of the outputs of frozen networks, on the training images, before the first step.

A loss describes what it needs as a :class:`Measurement`; whoever trains runs the networks and fills it
(:mod:`ppcls.engine.start.measure`). The loss keeps the result as a buffer, so it is part of checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_AT_ONCE = 1 << 22  # numbers that are converted to float64 at a time


class Moments:
    """Count, mean and summed products of deviations of vectors, in float64.

    Parts are joined without loss of precision (Chan et al., "Updating formulae and a pairwise algorithm for
    computing sample variances", 1979), so neither all vectors nor their mean have to be known at once.

    Args:
        products: sum the products of all pairs of entries, [D, D], instead of only the squares, [D].

    Attributes:
        count: number of vectors.
        mean: their mean, [D].
        sums: summed products of their deviations from the mean, [D, D], or summed squares, [D].
    """

    def __init__(self, *, products: bool) -> None:
        self.products = products
        self.count = 0
        self.mean = np.zeros(0)
        self.sums = np.zeros(0)

    def add(self, rows: np.ndarray) -> None:
        """Add vectors, [N, D]."""
        step = max(_AT_ONCE // rows.shape[1], 1)
        for start in range(0, len(rows), step):
            self.join(self._of(rows[start : start + step].astype(np.float64)))

    def _of(self, rows: np.ndarray) -> Moments:
        part = Moments(products=self.products)
        part.count = len(rows)
        part.mean = rows.mean(0)
        rows = rows - part.mean
        part.sums = rows.T @ rows if self.products else (rows * rows).sum(0)
        return part

    def join(self, other: Moments) -> None:
        """Add the vectors of another object."""
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.sums = other.count, other.mean.copy(), other.sums.copy()
            return
        apart = other.mean - self.mean
        total = self.count + other.count
        between = np.outer(apart, apart) if self.products else apart * apart
        self.sums += other.sums + between * (self.count * other.count / total)
        self.mean += apart * (other.count / total)
        self.count = total


@dataclass
class Measurement:
    """What a loss wants to know about the outputs of a frozen network.

    Attributes:
        what: what is measured, in the plural, for the log, such as ``distances of 100 classes``.
        loss: registered name of the loss, for messages.
        network: name of the network.
        rows: returns the vectors [N, D] to add of the network's output for a batch.
        moments: is filled.
        finish: takes over the result once it is complete.
        most: number of images, spread evenly over the training list, that are enough; None: all of them.
        needs_all_logits: whether it needs the logits of all classes.
    """

    what: str
    loss: str
    network: str
    rows: Callable[[Any], np.ndarray]
    moments: Moments
    finish: Callable[[Moments], None]
    most: int | None = None
    needs_all_logits: bool = False
