"""Every recipe of the project is valid, is built with its own networks and data chain, and trains one step.

What `test_two_steps` runs anyway is left out. Images are made up, two to a batch and smaller than those of
the recipe; pretrained weights are left out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from recipe_steps import LARGE, Recorder, check_as_it_is, make_small, recipes_in_two_steps
from support import slow_unless

from ppcls.config import load_config
from ppcls.config.loading import read
from ppcls.data import build_transforms
from ppcls.engine import Engine
from ppcls.engine.train import train_epoch

pytestmark = pytest.mark.usefixtures("quick_weights")

CONFIGS = Path(__file__).parents[2] / "configs"
COVERED = {path for name, path in recipes_in_two_steps().items() if not any(part in name for part in LARGE)}
RECIPES = {
    str(path.relative_to(CONFIGS)): path
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if "_base_" not in path.parts and path not in COVERED
}
PAIRS = ("resnet56_resnet20_", "resnet34_distill_resnet18_", "resnet32x4_resnet8x4_", "wrn_40_2_wrn_16_2_")
FAMILIES = ("ImageNet/ResNet/", "ImageNet/PPLCNet/", "ImageNet/EfficientNetLite/")
DEEP = ("101", "152", "200", "DeiT", "EfficientNetLite2")


def quick_recipes() -> set[str]:
    """Every method with one pair of networks, one network of each family, and what is of neither kind."""
    shown = {path.stem.removeprefix(PAIRS[0]) for path in COVERED}
    quick = set()
    for name, path in RECIPES.items():
        kind = next((path.stem.removeprefix(pair) for pair in PAIRS if path.stem.startswith(pair)), name)
        if name.startswith(FAMILIES):
            kind = path.parent.name
        if kind not in shown and not any(part in name for part in DEEP):
            quick.add(name)
            shown.add(kind)
    return quick


QUICK = quick_recipes()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, named by a list and in folders of a hundred classes."""
    folder = tmp_path_factory.mktemp("two")
    for number in range(100):
        (folder / "classes" / f"class_{number:03d}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        image = cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        cv2.imwrite(str(folder / "classes" / f"class_{number:03d}" / "image.png"), image)
    (folder / "list.txt").write_text("0.png 0\n1.png 1\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", slow_unless(lambda name: name in QUICK, RECIPES))
def test_a_recipe_trains_one_step(name: str, images: Path, tmp_path: Path) -> None:
    check_as_it_is(RECIPES[name])
    tree = read(RECIPES[name])
    make_small(tree, images, tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    config = load_config(file)
    run = Engine(config, "train").build_run()
    before = [run.parts.trained[place].numpy().copy() for place in (0, -1)]
    recorder = Recorder()
    run.hooks = [recorder]
    train_epoch(run)
    run.parts.loader.close()
    assert len(recorder.steps) == 1
    assert all(math.isfinite(value) for value in recorder.steps[0].values())
    assert recorder.steps[0]["loss"] > 0
    after = [run.parts.trained[place].numpy() for place in (0, -1)]
    assert any((old != new).any() for old, new in zip(before, after, strict=True))
    check_chains(config, images)


def check_chains(config: Any, images: Path) -> None:
    """Evaluation and prediction, as the recipe has them, give the network what `Global.image_shape` says."""
    content = (images / "0.png").read_bytes()
    chains = [config.DataLoader.Eval.dataset.transform_ops, config.Infer.transforms]
    for nodes in chains:
        image = build_transforms(nodes).chw(content)
        cifar = "RandomCropImage" in str(config.DataLoader.Train.dataset.transform_ops)
        assert cifar or list(image.shape) == list(config.Global.image_shape)
