"""Every method of distillation gets the same loss whether its teacher is run by Paddle or as a program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_steps import drop_keys, make_small
from support import slow_unless

from ppcls.config import load_config
from ppcls.config.loading import read
from ppcls.engine import Engine
from ppcls.engine.train import forward_and_backward, start_epoch
from ppcls.teacher import remove_answers

CONFIGS = Path(__file__).parents[2] / "configs/cifar"
PAIR = "wrn_40_2_wrn_16_2_"
METHODS = sorted(path.stem.removeprefix(PAIR) for path in CONFIGS.glob(f"{PAIR}*.yaml"))
QUICK = ("kd", "dml")  # one with an engine and one without
WITHOUT = {"dml": "both networks train", "ofd": "its teacher is in train mode"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the methods share, because most have the same teacher."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (32, 32)))
        lines.append(f"{number}.png {number}\n")
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("method", slow_unless(lambda name: name in QUICK, METHODS))
def test_losses_are_those_of_a_teacher_that_answers_by_itself(
    method: str, images: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPCLS_HOME", str(home))
    tree: dict[str, Any] = read(CONFIGS / f"{PAIR}{method}.yaml")
    make_small(tree, images, tmp_path)
    drop_keys(tree, ("pretrained_list",))
    tree["Arch"]["frozen_engine"] = "paddle_inference"
    tree["DataLoader"]["Train"]["dataset"] = {
        "name": "ImageNetDataset",
        "image_root": str(images),
        "cls_label_path": str(images / "list.txt"),
        "transform_ops": [{"DecodeImage": {"channel_first": False}}, {"NormalizeImage": {"order": ""}}],
    }
    tree["DataLoader"]["Train"]["sampler"] = {"name": "BatchSampler", "batch_size": 4}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    run = Engine(load_config(tmp_path / "recipe.yaml"), "train").build_run()
    start_epoch(run)
    (batch,) = run.parts.loader.epoch(1)
    found = forward_and_backward(run, batch)[2]
    used = {answer.choice.used for answer in run.parts.answers.values()}
    remove_answers(run.parts.model)
    expected = forward_and_backward(run, batch)[2]
    run.parts.loader.close()
    assert used == (set() if method in WITHOUT else {"paddle_inference/float32"})
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-5), name


def test_methods_are_found() -> None:
    assert len(METHODS) >= 12
