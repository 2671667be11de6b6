"""A distillation at 224 pixels with a real teacher: EfficientNet-Lite2 teaches an untrained PPLCNet_x0_25.

    python benchmarks/real_distillation.py [--teacher inference|onnx|paddle] [--epochs 200] [--cache FOLDER]

The photos and the teacher's public PyTorch weights are those of real_weights.py. The recipe is
configs/ImageNet/Distillation/EfficientNetLite2_distill_PPLCNet_x0_25.yaml; its loss uses no labels.
Evaluation sees the same photos whole, cropped in the middle, as training never does, and measures how often
student and teacher name the same class. The teacher runs as an exported folder (Paddle Inference), as an ONNX
file, or as a network in memory. Prints the course of the run; ends with code 1 if the loss did not halve
or if student and teacher agree on less than half of the photos.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from real_weights import PHOTOS, ROOT, default_cache, unpacked, weights_file

RECIPE = ROOT / "configs/ImageNet/Distillation/EfficientNetLite2_distill_PPLCNet_x0_25.yaml"
TEACHER = ROOT / "configs/ImageNet/EfficientNetLite/EfficientNetLite2.yaml"


def exported_teacher(kind: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Export the teacher; return the node of a network that runs the file."""
    from ppcls.config import load_config
    from ppcls.engine import Engine

    target = folder / "teacher"
    overrides = [f"Arch.pretrained={weights}", f"Global.save_inference_dir={target}", "Global.device=cpu"]
    overrides += [f"Global.export_onnx={kind == 'onnx'}", "Global.infer_add_softmax=False"]
    Engine(load_config(TEACHER, overrides, mode="export"), "export").export()
    if kind == "inference":
        return {"name": "PaddleInferenceModel", "path": str(target)}
    return {"name": "OnnxModel", "path": str(target / "inference.onnx")}


def write_recipe(args: argparse.Namespace, folder: Path) -> Path:
    """Write the shipped recipe with the photos, the teacher and the length of this run."""
    from ppcls.config import load_config, plain

    weights = weights_file(2, args.cache)
    photos = sorted(unpacked(PHOTOS, args.cache).rglob("imagenet_*.jpg"))
    lines = [f"{photo.name} {photo.stem.split('_')[-1]}\n" for photo in photos]
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    teacher = recipe["Arch"]["models"][0]["Teacher"]
    own = {**teacher, "pretrained": str(weights)}
    if args.teacher != "paddle":
        own = exported_teacher(args.teacher, weights, folder)
    preprocessing = {key: teacher[key] for key in ("mean", "std", "input_size")}
    recipe["Arch"]["models"][0]["Teacher"] = {**own, **preprocessing}
    recipe["_base_"] = [str((RECIPE.parent / base).resolve()) for base in recipe["_base_"]]
    recipe["Global"] = {
        "device": "cpu",
        "seed": 0,
        "epochs": args.epochs,
        "eval_interval": max(1, args.epochs // 8),
        "save_interval": args.epochs,
        "output_dir": str(folder / "output"),
        "print_batch_step": 1,
    }
    # So few steps are enough only for gentle crops and an optimizer that needs no tuning.
    recipe["Optimizer"] = {"name": "AdamW", "lr": {"name": "Cosine", "learning_rate": 0.01}}
    operations = plain(load_config(RECIPE))["DataLoader"]["Train"]["dataset"]["transform_ops"]
    operations[1] = {"RandCropImage": {"size": 224, "scale": [0.7, 1.0]}}
    data = {"image_root": str(photos[0].parent), "cls_label_path": str(folder / "list.txt")}
    part = {"dataset": data, "sampler": {"batch_size": 10}, "loader": {"num_workers": 1}}
    recipe["DataLoader"] = {
        "Train": {**part, "dataset": {**data, "transform_ops": operations}},
        "Eval": part,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def course(rows: list[dict[str, Any]]) -> list[tuple[int, float, float, float]]:
    """Return epoch, mean training loss since the evaluation before, and the evaluation's KL and agreement."""
    found, losses = [], []
    for row in rows:
        if row["kind"] == "train":
            losses.append(row["loss"])
        elif row["kind"] == "eval":
            found.append(
                (row["epoch"], sum(losses) / len(losses), row["kl_Teacher"], row["agreement_Teacher"])
            )
            losses = []
    return found


def main() -> int:
    """Distil and print the course of the run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", choices=["inference", "onnx", "paddle"], default="inference")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    args = parser.parse_args()
    from ppcls.config import load_config
    from ppcls.engine import Engine

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        engine = Engine(load_config(write_recipe(args, Path(temporary))), "train")
        begin = time.perf_counter()
        engine.train()
        seconds = time.perf_counter() - begin
        text = (engine.folder / "metrics.jsonl").read_text(encoding="utf-8")
    points = course([json.loads(line) for line in text.splitlines()])
    print(f"{'epoch':>5s} {'training loss':>14s} {'KL, whole photos':>17s} {'agreement':>10s}")
    for epoch, loss, kl, agreement in points:
        print(f"{epoch:5d} {loss:14.3f} {kl:17.3f} {agreement:10.0%}")
    print(f"{seconds:.0f} s, teacher: {args.teacher}")
    first, last = points[0], points[-1]
    return int(last[1] > first[1] / 2 or last[3] < 0.5)


if __name__ == "__main__":
    sys.exit(main())
