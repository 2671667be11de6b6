"""Recipes small enough to run in a second, for tests of whole runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from ppcls.data import Batch

KL = {"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]], "temperature": 4.0}}
PHOTOS = Path(__file__).parent / "data" / "photos"


def slow_unless(quick: Callable[[Any], bool], values: Iterable[Any]) -> list[Any]:
    """Return the values as parameters of a test, marked slow where the condition does not hold."""
    return [pytest.param(value, marks=() if quick(value) else pytest.mark.slow) for value in values]


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
            "image_shape": [3, 16, 16],
            "report": False,
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


def tree(root: Path) -> dict:
    """Return everything below a folder: kind, time of the last change and content of each entry."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (about.st_mode, about.st_mtime_ns, content)
    return found


def train(path: Path, *overrides: str) -> int:
    """Run ``ppcls train`` on a recipe with ``-o``; return its exit code."""
    from ppcls.cli import main

    return main(["train", "-c", str(path), *(part for text in overrides for part in ("-o", text))])


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
    recipe["Loss"]["Train"] = [{name: copy.deepcopy(options)} for name, options in loss.items()]
    student = {"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 2]}}
    recipe["Metric"] = {"Train": [student], "Eval": [student]}
    return recipe


def same_batches(one: list[Batch], other: list[Batch]) -> bool:
    """Tell whether two lists of batches have the same images, labels and indices."""
    return len(one) == len(other) and all(
        np.array_equal(a.image, b.image)
        and np.array_equal(a.label, b.label)
        and np.array_equal(a.index, b.index)
        for a, b in zip(one, other, strict=True)
    )
