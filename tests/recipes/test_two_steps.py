"""Every distillation recipe and every block of the tutorial gives the losses on record at two steps.

A record is the value of every part of the loss, for networks that begin with fixed random weights on eight
synthetic images, smaller than the recipe's to be quick. It changes when the mathematics of a loss, a network,
an optimizer or a transform does. Where that is meant, record again and look at what changed:

    PPCLS_RECORD_LOSSES=1 pytest tests/recipes/test_two_steps.py -m "slow or not slow"
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddle import nn
from recipe_steps import LARGE, ROOT, TUTORIAL, Recorder, check_as_it_is, drop_keys, recipes_in_two_steps
from support import slow_unless

from ppcls.config import load_config
from ppcls.config.loading import read
from ppcls.engine import Engine
from ppcls.engine.train import train_epoch

RECORD = Path(__file__).parent / "losses.json"
REST = ROOT / "tests" / "config" / "rest.yaml"
SIDE = 64
# Float sums differ in order between processors; two steps make 1e-5 of it. A change of mathematics is more.
TOLERANCE = 5e-4
# Here an untrained network of 56 layers trains too: step 2 differs by 1.6e-3 between Intel and AMD CPUs.
# In the network of 200 layers it moves by 3e-2 with the number of threads; step 1 agrees to six digits.
TOLERANCES = {
    "cifar/resnet56_resnet20_dml": 5e-3,
    "ImageNet/Distillation/res2net200_vd_distill_pphgnet_base": 6e-2,
}


pytestmark = pytest.mark.usefixtures("quick_weights")

RECIPES = recipes_in_two_steps()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of smooth noise and a list of them."""
    folder = tmp_path_factory.mktemp("eight")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(8):
        coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
        smooth = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), smooth)
        lines.append(f"{number}.png {11 * number}\n")
    (folder / "train_list.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def tree_of(path: Path) -> dict[str, Any]:
    """Read a recipe; a block of the tutorial gets the rest of one."""
    return {**read(REST), **read(path)} if path.parent == TUTORIAL else read(path)


def shrink(tree: dict[str, Any], images: Path, output: Path) -> None:
    """Make a recipe quick and self-contained; its networks, losses and optimizer stay."""
    place(tree, images, output)
    for op in tree["DataLoader"]["Train"]["dataset"]["transform_ops"]:
        if "RandCropImage" in op:
            op["RandCropImage"]["size"] = SIDE
    # Given shapes are those of the recipe's image size; they are found for this one.
    drop_keys(tree, ("s_shapes", "t_shapes"))


def place(tree: dict[str, Any], images: Path, output: Path) -> None:
    """Let a recipe train untrained networks on the eight images."""
    tree["Global"] |= {"device": "cpu", "seed": 1, "epochs": 1, "eval_during_train": False}
    tree["Global"]["output_dir"] = str(output)
    train = tree["DataLoader"]["Train"]
    mixing = train["dataset"].get("batch_transform_ops")
    train["dataset"] = {
        "name": "ImageNetDataset",
        "image_root": str(images),
        "cls_label_path": str(images / "train_list.txt"),
        # The images of CIFAR have the size of the recipe; these are larger, and are cropped.
        "transform_ops": [op for op in train["dataset"]["transform_ops"] if "ResizeImage" not in op],
        "batch_transform_ops": mixing,
    }
    schedule = tree["Optimizer"]["lr"]
    schedule["learning_rate"] *= (
        4 / train["sampler"]["batch_size"]
    )  # in proportion, or the second step explodes
    schedule.pop("warmup_epoch", None)  # the first step would be none
    train["sampler"] |= {"batch_size": 4}
    train["loader"] = {"num_workers": 0}
    # On the CPU, where Paddle ignores it, this must change no digit; it shows that every recipe goes with it.
    tree["AMP"] = {**(tree.get("AMP") or {}), "use_amp": True}
    drop_keys(tree["Arch"], ("pretrained", "use_ssld"))


def calibrate(model: nn.Layer, images: paddle.Tensor) -> None:
    """Give every BatchNorm the statistics of some images, as training would have.

    Without, the maps of an untrained teacher grow from block to block and its probabilities are 0 and 1, for
    which many losses are the same whatever they compute.
    """
    norms = [
        layer for layer in model.sublayers() if isinstance(layer, nn.layer.norm._BatchNormBase | nn.BatchNorm)
    ]
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 0.0
    with paddle.no_grad():
        for name in model.names:
            network = model.infer_network(name)
            network.train()
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm._momentum = momentum


def two_steps(tree: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """Train the recipe for an epoch of two batches; return the parts of the loss at each."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    run = Engine(load_config(path), "train").build_run()
    calibrate(run.parts.model, paddle.to_tensor(next(iter(run.parts.loader.epoch(2))).image))
    recorder = Recorder()
    run.hooks = [recorder]
    train_epoch(run)
    run.parts.loader.close()
    assert len(recorder.steps) == 2
    return recorder.steps


@pytest.mark.parametrize("name", slow_unless(lambda n: not any(part in n for part in LARGE), RECIPES))
def test_a_recipe_gives_the_losses_on_record(
    name: str, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if RECIPES[name].parent != TUTORIAL:  # whose blocks are parts of recipes
        check_as_it_is(RECIPES[name])
    tree = tree_of(RECIPES[name])
    shrink(tree, images, tmp_path)
    found = two_steps(tree, tmp_path)
    assert caplog.text.count("no mixed precision on the CPU") == 1
    stored = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    if os.environ.get("PPCLS_RECORD_LOSSES"):
        stored[name] = [{part: float(f"{value:.6g}") for part, value in step.items()} for step in found]
        text = json.dumps({key: stored[key] for key in sorted(stored) if key in RECIPES}, indent=1)
        RECORD.write_text(text + "\n", encoding="utf-8")
        return
    assert name in stored, "nothing on record for this recipe; the head of this file says how to record it"
    tolerance = TOLERANCES.get(name, TOLERANCE)
    for number, (mine, expected) in enumerate(zip(found, stored[name], strict=True), 1):
        assert list(mine) == list(expected)
        for part, value in expected.items():
            assert mine[part] == pytest.approx(value, rel=tolerance, abs=1e-6), f"{part} of step {number}"


def test_refinery_learns_from_the_teacher_alone(images: Path, tmp_path: Path) -> None:
    found = []
    for shift in (0, 1):
        tree = tree_of(ROOT / "configs/cifar/resnet56_resnet20_refinery.yaml")
        shrink(tree, images, tmp_path)
        labels = tmp_path / "labels.txt"
        labels.write_text("".join(f"{n}.png {n + shift}\n" for n in range(8)), encoding="utf-8")
        tree["DataLoader"]["Train"]["dataset"]["cls_label_path"] = str(labels)
        found.append(two_steps(tree, tmp_path))
    assert found[0] == found[1]
    assert [list(step) for step in found[0]] == [["CELoss_Student_Teacher", "loss"]] * 2


@pytest.mark.slow
def test_the_afd_of_the_tutorial_runs_at_its_own_size(images: Path, tmp_path: Path) -> None:
    """With the shapes it gives, which are those of 224 pixels."""
    tree = tree_of(TUTORIAL / "afd.yaml")
    place(tree, images, tmp_path)
    for step in two_steps(tree, tmp_path):
        assert list(step) == ["CELoss_Student", "loss_kldiv_Student_Teacher", "loss_afd", "loss"]
        assert all(0 < value < 100 for value in step.values())
