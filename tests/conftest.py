"""What many tests share: a few real pixels, and a recipe small enough to run in a second."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

PHOTOS = Path(__file__).parent / "data" / "photos"


@pytest.fixture(autouse=True)
def _console_stays_ours():
    """Commands configure the logger ``ppcls``; give it back as it was, so that caplog sees it."""
    logger = logging.getLogger("ppcls")
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with 12 crops of real photos, 32 x 32, of 4 classes, and train_list.txt, val_list.txt."""
    folder = tmp_path / "images"
    folder.mkdir()
    lines = []
    rng = np.random.default_rng(0)
    for label, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        pixels = cv2.imread(str(photo))
        for number in range(3):
            y, x = rng.integers(0, pixels.shape[0] - 48), rng.integers(0, pixels.shape[1] - 48)
            name = f"{photo.stem}_{number}.png"
            cv2.imwrite(str(folder / name), cv2.resize(pixels[y : y + 48, x : x + 48], (32, 32)))
            lines.append(f"{name} {label}\n")
    (folder / "train_list.txt").write_text("".join(lines))
    (folder / "val_list.txt").write_text("".join(lines[::2]))
    return folder


def _data(folder: Path, name: str, *, train: bool) -> dict:
    augment = [{"RandFlipImage": {"flip_code": 1}}] if train else []
    return {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / name),
            "transform_ops": [
                {"DecodeImage": {"to_rgb": True, "channel_first": False}},
                *augment,
                {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.25] * 3, "order": ""}},
            ],
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": 5, "drop_last": False, "shuffle": train},
        "loader": {"num_workers": 2},
    }


def tiny_recipe(folder: Path, output: Path) -> dict:
    """Return the recipe of a small network on the images of `folder`."""
    return {
        "Global": {
            "device": "cpu",
            "epochs": 2,
            "print_batch_step": 1,
            "seed": 3,
            "output_dir": str(output),
            "save_inference_dir": str(output / "inference"),
            "image_shape": [3, 32, 32],
        },
        "Arch": {"name": "resnet8", "class_num": 4},
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}], "Eval": [{"CELoss": {"weight": 1.0}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "Cosine", "learning_rate": 0.05}},
        "DataLoader": {
            "Train": _data(folder, "train_list.txt", train=True),
            "Eval": _data(folder, "val_list.txt", train=False),
        },
        "Infer": {
            "infer_imgs": str(folder),
            "batch_size": 5,
            "transforms": [
                {"DecodeImage": {"to_rgb": True, "channel_first": False}},
                {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.25] * 3, "order": ""}},
                {"ToCHWImage": None},
            ],
            "PostProcess": {"name": "Topk", "topk": 3},
        },
        "Metric": {"Train": [{"TopkAcc": {"topk": [1, 2]}}], "Eval": [{"TopkAcc": {"topk": [1, 2]}}]},
    }


def distilled(recipe: dict, **loss: dict) -> dict:
    """Turn a tiny recipe into a distillation one: a frozen teacher, and the losses given."""
    arch = recipe["Arch"]
    recipe["Arch"] = {
        "name": "DistillationModel",
        "class_num": arch["class_num"],
        "freeze_params_list": [True, False],
        "infer_model_name": "Student",
        "models": [{"Teacher": {"name": "resnet14"}}, {"Student": {"name": arch["name"]}}],
    }
    recipe["Loss"]["Train"] = [{name: options} for name, options in loss.items()]
    student = {"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 2]}}
    recipe["Metric"] = {"Train": [student], "Eval": [student]}
    return recipe


@pytest.fixture
def recipe(image_folder: Path, tmp_path: Path) -> dict:
    """A plain recipe as a dict, to be changed and written."""
    return tiny_recipe(image_folder, tmp_path / "output")


@pytest.fixture
def write_recipe(tmp_path: Path):
    """Return a function that writes a recipe to a YAML file and returns its path."""

    def write(content: dict, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write
