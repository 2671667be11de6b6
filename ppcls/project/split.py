"""Split images of classes into a training part and a validation part."""

from __future__ import annotations

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
    for group in equal:
        together[list(group)] = min(group)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    lacking = []
    for number in np.unique(labels).tolist():
        members = np.flatnonzero(labels == number)
        # Of equal images, the class of the first one decides for all of them.
        groups: dict[int, list[int]] = {}
        for index in members.tolist():
            groups.setdefault(int(together[index]), []).append(index)
        free = [key for key in groups if labels[key] == number]
        if len(groups) < 2 or not free:
            lacking.append(number)
            continue
        wanted = min(max(round(len(members) * share), 1), len(members) - 1)
        taken = 0
        left = len(groups)
        for place in rng.permutation(len(free)).tolist():
            if taken >= wanted or left == 1:
                break
            group = free[place]
            if taken and taken + len(groups[group]) > wanted:
                continue
            chosen[together == group] = True
            taken += len(groups[group])
            left -= 1
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), tuple(lacking))
