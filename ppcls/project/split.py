"""Split images of classes into a training part and a validation part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Which samples belong to which part.

    Attributes:
        train: indices of training, ascending, int64.
        val: indices of validation, ascending, int64.
        lacking: classes that have images, but none to spare for validation.
    """

    train: np.ndarray
    val: np.ndarray
    lacking: tuple[int, ...]


def stratified_split(
    labels: np.ndarray, share: float, seed: int, equal: Sequence[Sequence[int]] = ()
) -> Split:
    """Draw the same share of every class for validation.

    Every class with two images or more keeps at least one in either part. Images that are equal stay in one
    part, because an evaluation on images that were trained on gives a better score than the network deserves.
    The result depends only on the arguments.

    Args:
        labels: class of each sample, int [N].
        share: share of validation, above 0 and below 1.
        seed: another seed gives another split.
        equal: groups of samples that are the same image.
    """
    together = np.arange(len(labels))
    alike = {}
    for group in equal:
        together[list(group)] = min(group)
        alike[min(group)] = list(group)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    training = Counter(labels.tolist())  # images of each class that stay in training
    lacking = []
    for number in np.unique(labels).tolist():
        members = np.flatnonzero(labels == number)
        # Of equal images, the class of the first one decides for all of them.
        groups = Counter(together[members].tolist())
        free = [key for key in groups if labels[key] == number]
        if len(groups) < 2 or not free:
            lacking += [] if chosen[members].any() else [number]
            continue
        wanted = min(max(round(len(members) * share), 1), len(members) - 1)
        taken = 0
        for place in rng.permutation(len(free)).tolist():
            group = free[place]
            if taken >= wanted:
                break
            if taken and taken + groups[group] > wanted:
                continue
            moved = alike.get(group, [group])
            counts = Counter(labels[moved].tolist())  # equal images may be of several classes
            if any(training[label] <= count for label, count in counts.items()):
                continue
            training -= counts
            chosen[moved] = True
            taken += groups[group]
        if not chosen[members].any():
            lacking.append(number)
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), tuple(lacking))
