"""What tests that train shipped recipes for a step or two share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppcls.config import Recipe, load_config, parse_yaml
from ppcls.engine.hooks import Hook

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "tests/config/tutorial"
# Recipes whose two steps take long: they are slow tests.
# Recipes with large networks train one step in the default run; their two steps are left to the slow one.
LARGE = ("ImageNet/", "tutorial/dml", "tutorial/udml")
SIDE = 64  # of the images of make_small, in pixels


def check_as_it_is(path: Path) -> None:
    """A recipe is valid as it is shipped, and the same when it is written as YAML and read back."""
    config = load_config(path)
    assert config.Arch.name
    label_map = config.Infer.PostProcess and config.Infer.PostProcess.get("class_id_map_file")
    if label_map and label_map.startswith("ppcls/"):
        assert (ROOT / label_map).is_file()
    assert Recipe.from_dict(parse_yaml(config.to_yaml(), str(path))) == config
    assert config.arch.node() == config["Arch"]


def drop_keys(node: Any, keys: tuple[str, ...]) -> None:
    """Remove the keys from a tree, wherever they stand."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        drop_keys(value, keys)
    for key in keys:
        if isinstance(node, dict):
            node.pop(key, None)


class Recorder(Hook):
    """Keep the parts of the loss of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_step(self, run: Any, batch: Any) -> None:
        row = run.read()
        assert row is not None
        self.steps.append({name: value for name, value in row.items() if not name.startswith("top")})


def recipes_in_two_steps() -> dict[str, Path]:
    """All ImageNet recipes, those of one CIFAR pair, and the tutorial's blocks, by name."""
    found = [
        *sorted((ROOT / "configs/ImageNet/Distillation").glob("*.yaml")),
        *sorted((ROOT / "configs/cifar").glob("resnet56_resnet20_*.yaml")),
    ]
    named = {str(path.relative_to(ROOT / "configs")).removesuffix(".yaml"): path for path in found}
    return named | {f"tutorial/{path.stem}": path for path in sorted(TUTORIAL.glob("*.yaml"))}


def make_small(tree: dict[str, Any], images: Path, output: Path) -> None:
    """Let a recipe train untrained networks for one step on the two images."""
    tree["Global"] |= {"device": "cpu", "seed": 1, "epochs": 1, "eval_during_train": False}
    tree["Global"] |= {"output_dir": str(output), "pretrained_model": None}
    for entry in tree["Optimizer"] if isinstance(tree["Optimizer"], list) else [tree["Optimizer"]]:
        entry["lr"].pop("warmup_epoch", None)  # its first step changes nothing
        entry["lr"].pop("warmup_start_lr", None)
    for name in ("Train", "UnLabelTrain"):
        part = tree["DataLoader"].get(name)
        if part is None:
            continue
        dataset = part["dataset"]
        listed = "cls_label_path" in dataset
        dataset["image_root"] = str(images if listed else images / "classes")
        if listed:
            dataset["cls_label_path"] = str(images / "list.txt")
        part["sampler"]["batch_size"] = 2
        part["loader"] = {"num_workers": 0}
        for op in dataset["transform_ops"] if name == "Train" else ():
            if "RandCropImage" in op:
                op["RandCropImage"]["size"] = SIDE
            if "CropImage" in op:
                op["CropImage"]["size"] = SIDE
            if "resize_short" in (op.get("ResizeImage") or {}):
                op["ResizeImage"]["resize_short"] = SIDE
    drop_keys(tree, ("pretrained", "use_ssld", "s_shapes", "t_shapes"))
