"""Finished runs, made once, for tests of what a start does to them."""

from __future__ import annotations

import copy
import shutil

import cv2
import numpy as np
import pytest
import yaml
from support import KL, distilled, tiny_recipe, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with images and two finished runs, `keep/resnet8` and `keep/DistillationModel`."""
    home = tmp_path_factory.mktemp("finished")
    images = home / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    lines = [f"{number}.png {number % 4}\n" for number in range(12)]
    for number in range(12):
        cv2.imwrite(str(images / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    (images / "train_list.txt").write_text("".join(lines))
    (images / "val_list.txt").write_text("".join(lines[:7]))
    plain = tiny_recipe(images, home / "keep")
    plain["Global"] |= {"epochs": 1, "save_interval": 2}
    (home / "plain.yaml").write_text(yaml.safe_dump(plain))
    both = distilled(copy.deepcopy(plain), **KL)
    (home / "both.yaml").write_text(yaml.safe_dump(both))
    for name in ("plain", "both"):
        assert train(home / f"{name}.yaml") == 0
    return home


@pytest.fixture
def home(finished, tmp_path):
    """A copy of them, with the remains of a save that was cut off."""
    copied = tmp_path / "home"
    shutil.copytree(finished, copied)
    for name in ("plain", "both"):
        text = (copied / f"{name}.yaml").read_text().replace(str(finished), str(copied))
        (copied / f"{name}.yaml").write_text(text)
    (copied / "keep/resnet8/latest.pdopt.new").write_bytes(b"half")
    return copied
