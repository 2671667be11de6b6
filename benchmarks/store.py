"""What a store of teacher outputs costs and saves: bytes, reading speed, and the time of an epoch.

    python benchmarks/store.py [--images 960] [--epochs 3] [--teacher resnet56] [--student resnet20]

Prints bytes for each image and view (TinyViT stores 42 for 1000 classes, ml-dr 65), entries read and decoded
in a second, and the duration of the fastest epoch of a distillation: with the teacher, while the store is
filled, from the store, and of the student alone. All times are of this process's processor, which other work
on the machine disturbs less. Images are noise of 32 x 32 pixels.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from ppcls.arch import create_model
from ppcls.config import Recipe, complete_config
from ppcls.engine import Engine
from ppcls.engine.hooks import Hook
from ppcls.engine.run import Run
from ppcls.teacher.columns import Columns, Keeping
from ppcls.teacher.store import Store

KEPT = (("all", 0), ("topk", 3), ("topk", 10), ("sample", 3), ("sample", 12))
CLASSES = 1000
BATCH = 256


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kept, k in KEPT:
            size, entries = read_speed(Path(folder) / f"{kept}{k}", kept, k)
            print(f"{kept} {k or CLASSES} of {CLASSES} classes, float16: {size} B, {entries:,.0f} entries/s")
        seconds = epochs(Path(folder), args.images, args.epochs, args.teacher, args.student)
    for name, value in seconds.items():
        print(f"epoch, {name}: {value:.2f} s")
    print(f"store / student alone: {seconds['store'] / seconds['student alone']:.3f}")
    print(f"filling / teacher: {seconds['filling'] / seconds['teacher']:.3f}")


def read_speed(folder: Path, kept: str, k: int, batches: int = 40) -> tuple[int, float]:
    """Return bytes of a record, and records that are read and decoded in a second."""
    rng = np.random.default_rng(0)
    columns = None
    store = Store(folder)
    store.write_manifest({})
    for number in range(batches):
        output = paddle.to_tensor(rng.standard_normal((BATCH, CLASSES)).astype(np.float32))
        columns = columns or Columns.of_outputs({"T": output}, Keeping("float16", "float16", kept, k))
        records = columns.records(columns.encode("T", output, BATCH, rng), np.arange(BATCH))
        store.append(1, [(number * BATCH, BATCH)], records)
    assert columns is not None
    begin = time.process_time()
    for number in range(batches):
        columns.decode(store.read(1, number * BATCH, BATCH), "T")
    return columns.dtype.itemsize, batches * BATCH / (time.process_time() - begin)


def epochs(folder: Path, images: int, count: int, teacher: str, student: str) -> dict[str, float]:
    """Return the seconds of the fastest epoch of each kind of run."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(images):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        lines.append(f"{number}.png {number % 100}\n")
    (folder / "list.txt").write_text("".join(lines))
    paddle.save(create_model(teacher, class_num=100).state_dict(), str(folder / "teacher.pdparams"))
    distilled = _recipe(folder, count, teacher, student)
    stored = {**distilled, "TeacherStore": {"path": str(folder / "store"), "views": count}}
    alone = copy.deepcopy(distilled)
    alone["Arch"] = {"name": student, "class_num": 100}
    alone["Loss"]["Train"] = [{"CELoss": {}}]
    runs = {"teacher": distilled, "filling": stored, "store": stored, "student alone": alone}
    found = {}
    for name, recipe in runs.items():
        recipe["Global"]["output_dir"] = str(folder / "runs" / name)
        clock = _Clock()
        Engine(complete_config(Recipe.from_dict(copy.deepcopy(recipe)), "train"), "train").train([clock])
        found[name] = min(clock.seconds)
    return found


def _recipe(folder: Path, count: int, teacher_name: str, student: str) -> dict[str, Any]:
    ops = [{"DecodeImage": None}, {"RandFlipImage": {"flip_code": 1}}, {"NormalizeImage": {"order": ""}}]
    dataset = {
        "name": "ImageNetDataset",
        "image_root": str(folder),
        "cls_label_path": str(folder / "list.txt"),
        "transform_ops": ops,
    }
    teacher = {"name": teacher_name, "pretrained": str(folder / "teacher.pdparams"), "frozen_engine": "eager"}
    pair = {"model_name_pairs": [["Student", "Teacher"]]}
    return {
        "Global": {
            "device": "cpu",
            "epochs": count,
            "seed": 1,
            "eval_during_train": False,
            "print_batch_step": 1000,
        },
        "Arch": {
            "name": "DistillationModel",
            "class_num": 100,
            "freeze_params_list": [True, False],
            "models": [{"Teacher": teacher}, {"Student": {"name": student}}],
        },
        "Loss": {"Train": [{"DistillationKLDivLoss": pair}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "ConstLR", "learning_rate": 0.01}},
        "DataLoader": {
            "Train": {
                "dataset": dataset,
                "sampler": {"name": "DistributedBatchSampler", "batch_size": 64, "shuffle": True},
                "loader": {"num_workers": 1},
            }
        },
    }


class _Clock(Hook):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begin = 0.0

    def before_train(self, run: Run) -> None:
        self._begin = time.process_time()

    def after_epoch(self, run: Run, epoch: int) -> None:
        now = time.process_time()
        self.seconds.append(now - self._begin)
        self._begin = now


if __name__ == "__main__":
    main()
