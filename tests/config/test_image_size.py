"""`Global.image_size` and `image_shape` decide the size in all chains; normalisation and Infer follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppcls.config import Recipe, complete_config, load_config
from ppcls.config.checks.image_shape import chain_shape
from ppcls.config.checks.transform_chains import transform_chains
from ppcls.config.loading import PACKAGED
from ppcls.errors import ConfigError

RECIPES = [
    "ImageNet/ResNet/ResNet18.yaml",
    "ImageNet/PPHGNet/PPHGNet_small.yaml",
    "ImageNet/EfficientNetLite/EfficientNetLite1.yaml",
    "ImageNet/PPLCNet/PPLCNet_x2_5.yaml",
    "quick_start/own_images_distill.yaml",
    "quick_start/fashion_mnist_ssld_unlabelled.yaml",
    "cifar/resnet20.yaml",
]
SIDE = "Global: {image_size: 64}\n"
SHAPE = "Global: {image_shape: [1, 48, 48]}\n"


def sides(recipe: Recipe) -> set[Any]:
    """Return the sides of the images of all chains."""
    return {shape[1:] for ops in transform_chains(recipe).values() if (shape := chain_shape(ops)) is not None}


@pytest.mark.parametrize(
    ("name", "setting"),
    [*((name, "image_size=96") for name in RECIPES), (RECIPES[0], "image_shape=[3,96,96]")],
)
def test_one_setting_drives_all_chains_of_the_packaged_recipes(name, setting):
    recipe = load_config(name, [f"Global.{setting}"])
    assert sides(recipe) == {(96, 96)}
    assert len(transform_chains(recipe)) >= 3
    assert recipe.Global.image_shape[1:] == [96, 96]


def test_every_packaged_recipe_says_the_size_once():
    for path in PACKAGED.rglob("*.yaml"):
        for line in path.read_text("utf-8").splitlines():
            code = line.partition("#")[0]
            assert "size: 224" not in code or "input_size" in code, path


@pytest.mark.parametrize(
    ("files", "overrides", "shape"),
    [
        ([SIDE], [], [3, 64, 64]),
        ([SIDE, SHAPE], [], [1, 48, 48]),
        ([SHAPE, SIDE], [], [1, 64, 64]),
        ([SHAPE, SIDE, SHAPE], [], [1, 48, 48]),
        ([SHAPE], ["Global.image_size=32"], [1, 32, 32]),
        ([SIDE], ["Global.image_shape=[3,80,80]"], [3, 80, 80]),
        ([SIDE], ["Global.image_shape=[1,80,80]", "Global.image_size=16"], [1, 16, 16]),
        ([SHAPE], ["Global.image_shape.0=3", "Global.image_size=16"], [3, 16, 16]),
    ],
)
def test_the_upper_layer_decides(tmp_path: Path, files, overrides, shape):
    below = "ImageNet/ResNet/ResNet18.yaml"
    for number, text in enumerate(files):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"_base_: {below}\n{text}")
        below = path.name
    gray = [f"DataLoader.{part}.dataset.transform_ops.0.DecodeImage.channels=1" for part in ("Train", "Eval")]
    gray += ["Arch.input_image_channel=1", "Global.mean=[0.5]", "Global.std=[0.2]"]
    recipe = load_config(path, overrides + (gray if shape[0] == 1 else []))
    assert recipe.Global.image_shape == shape
    assert sides(recipe) == {tuple(shape[1:])}
    assert complete_config(Recipe.from_dict(recipe.to_dict()), "train").Global.image_shape == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_size: 64, image_shape: [3, 32, 32]", "64, but Global.image_shape is [3, 32, 32]; give one"),
        ("image_size: 0", "Global.image_size"),
        ("image_size: large", "Global.image_size"),
        ("image_size: [64, 64]", "Global.image_size"),
        ("mean: [0.5]", "give mean and std, or neither"),
        ("mean: [0.5], std: [0.5, 0.5]", "one number for each channel"),
    ],
)
def test_contradictions_are_named(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(f"Global: {{{text}}}\nArch: {{name: resnet8, class_num: 4}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)


def test_a_size_alone_is_the_shape_of_colour_images():
    tree = {"Global": {"image_size": 40}, "Arch": {"name": "resnet8", "class_num": 4}}
    recipe = complete_config({**tree, "Infer": {"transforms": [{"ResizeImage": {"size": 40}}]}}, "export")
    assert recipe.Global.image_shape == [3, 40, 40]


def test_mean_and_std_are_said_once(caplog):
    numbers = ["Global.mean=[0.5,0.5,0.5]", "Global.std=[0.25,0.25,0.25]"]
    recipe = load_config("ImageNet/ResNet/ResNet18.yaml", numbers)
    for operations in transform_chains(recipe).values():
        (normalize,) = [node["NormalizeImage"] for node in operations if "NormalizeImage" in node]
        assert (normalize["mean"], normalize["std"]) == ([0.5] * 3, [0.25] * 3)
    own = "DataLoader.Eval.dataset.transform_ops.3.NormalizeImage.mean=[0.1,0.1,0.1]"
    assert "Global.mean" not in caplog.text
    load_config("ImageNet/ResNet/ResNet18.yaml", [own])
    assert "DataLoader.Eval.dataset.transform_ops normalise with [0.1, 0.1, 0.1]" in caplog.text


def test_inference_prepares_images_as_evaluation_does():
    recipe = load_config("ImageNet/ResNet/ResNet18.yaml", mode="infer")
    assert recipe.Infer.transforms == recipe.DataLoader.Eval.dataset["transform_ops"]
    with pytest.raises(ConfigError, match=r"Infer.transforms: missing; infer needs it, or DataLoader.Eval"):
        load_config("ImageNet/ResNet/ResNet18.yaml", ["DataLoader.Eval=null"], mode="infer")
