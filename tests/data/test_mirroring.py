"""Classes that differ in left and right must not be mirrored unnoticed."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data import Dataset
from ppcls.data.mirroring import mirrored_classes, mirroring_problem


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["upright", "turned_left", "upside down", "turned_right"], [("turned_left", "turned_right")]),
        (["Left Turn Ahead", "right-turn-ahead", "Stop"], [("Left Turn Ahead", "right-turn-ahead")]),
        (["turnRight", "turnLeft"], [("turnRight", "turnLeft")]),
        (["clockwise", "anticlockwise"], [("anticlockwise", "clockwise")]),
        (["left 1", "left 2", "right 2"], [("left 2", "right 2")]),
        (["left", "centre"], []),  # nothing that a mirrored image would be
        (["bright", "cleft", "eft", "b"], []),  # only whole words
        (["right whale", "leftovers"], []),
        (["左转", "right"], []),
        ([], []),
    ],
)
def test_pairs(names, pairs):
    assert mirrored_classes(names) == pairs


@pytest.mark.parametrize(("code", "mirrors"), [(1, True), (-1, True), (0, False), (None, False)])
def test_only_a_transform_that_exchanges_left_and_right_is_reported(code, mirrors):
    class Images(Dataset):
        def __len__(self):
            return 1

        def read(self, index):
            return np.zeros((2, 2, 3), np.uint8)

        def label(self, index):
            return 0

        def path(self, index):
            return "memory"

    flips = [] if code is None else [{"RandFlipImage": {"flip_code": code}}]
    images = Images("memory", [*flips, {"NormalizeImage": {"order": ""}}])
    problem = mirroring_problem(images, ["left", "right"])
    assert (problem is not None) == mirrors
    if problem is not None:
        assert "'left'" in problem
        assert "'right'" in problem
    assert mirroring_problem(images, ["cat", "dog"]) is None
    assert mirroring_problem(images, None) is None
