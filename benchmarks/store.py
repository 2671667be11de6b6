"""What a store of teacher outputs costs and saves: bytes, reading speed, and the time of an epoch.

    python benchmarks/store.py [--images 320] [--turns 5] [--teacher resnet56] [--student resnet20]

Prints bytes for each image and view of 1000 classes, and entries that are read and decoded in a second, for
batches in order and for batches anywhere in the store; then the duration of an epoch of a distillation: with
the teacher, while the store is filled, from the store, and of the student alone. The four take turns, a run
of two epochs each, whose second epoch counts. Printed are medians, and medians of the ratios within a turn.
All times are of this process's processor, which other work on the machine disturbs less. Images are noise of
32 x 32 pixels. ``store_precision.py`` measures what the lower precisions change.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from ppcls.arch import create_model
from ppcls.config import Recipe, complete_config
from ppcls.cpu.processor import processor_name
from ppcls.engine import Engine
from ppcls.engine.hooks import Hook
from ppcls.engine.run import Run
from ppcls.teacher.columns import Columns, Keeping
from ppcls.teacher.store import Store

# What is kept of the logits, how many classes, the precision, and the numbers of a stored feature.
KEPT = (
    *(("all", 0, precision, 0) for precision in ("float32", "float16", "bfloat16")),
    *(("topk", k, "float16", 0) for k in (3, 10, 20)),
    *(("sample", k, "float16", 0) for k in (3, 12, 30)),
    ("all", 0, "float16", 2048),
)
# What other projects publish for 1000 classes.
OTHERS = (("TinyViT, 10 classes of each image", 42), ("ml-dr (reinforced ImageNet), 10 classes", 65))
GOALS = {"entries/s": 50_000, "store / student alone": 1.03, "filling / teacher": 1.05}
CLASSES = 1000
BATCH = 256
EPOCHS = 2  # of a run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    args = parser.parse_args()
    if args.images < 1 or args.turns < 1:
        parser.error("--images, --turns: expected 1 or more")
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        print("| stored | bytes | entries/s in order | entries/s anywhere |\n|---|---|---|---|")
        for number, (kept, k, precision, width) in enumerate(KEPT):
            size, entries = read_speed(Path(folder) / str(number), kept, k, precision, width)
            title = f"{kept} {k or CLASSES}, {precision}" + (f", and {width} features" if width else "")
            print(f"| {title} | {size} | {entries[0]:,.0f} | {entries[1]:,.0f} |")
        for title, size in OTHERS:
            print(f"| {title} | {size} | | |")
        print(f"goal: {GOALS['entries/s']:,} entries/s")
        turns = epochs(Path(folder), args.images, args.turns, args.teacher, args.student)
    print(f"{processor_name()}; {args.turns} turns")
    for name in turns[0]:
        print(f"epoch, {name}: {statistics.median(turn[name] for turn in turns):.2f} s")
    for name in ("store / student alone", "filling / teacher"):
        above, below = name.split(" / ")
        ratios = sorted(turn[above] / turn[below] for turn in turns)
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        print(f"{name}: {statistics.median(ratios):.3f}, {spread} (goal: at most {GOALS[name]})")


def read_speed(
    folder: Path, kept: str, k: int, precision: str, width: int, batches: int = 40
) -> tuple[int, list[float]]:
    """Return bytes of a record, and records that are read and decoded in a second: in order, and anywhere."""
    rng = np.random.default_rng(0)
    columns = None
    store = Store(folder)
    store.write_manifest({})
    for number in range(batches):
        output: Any = {"logits": paddle.to_tensor(rng.standard_normal((BATCH, CLASSES), np.float32))}
        if width:
            output["feature"] = paddle.to_tensor(rng.standard_normal((BATCH, width), np.float32))
        columns = columns or Columns.of_outputs({"T": output}, Keeping(precision, precision, kept, k))
        records = columns.records(columns.encode("T", output, BATCH, rng), np.arange(BATCH))
        store.append(1, [(number * BATCH, BATCH)], records)
    assert columns is not None
    found = []
    for places in (np.arange(batches) * BATCH, rng.integers(0, (batches - 1) * BATCH, batches)):
        begin = time.process_time()
        for place in places.tolist():
            columns.decode(store.read(1, place, BATCH), "T")
        found.append(batches * BATCH / (time.process_time() - begin))
    return columns.dtype.itemsize, found


def epochs(folder: Path, images: int, turns: int, teacher: str, student: str) -> list[dict[str, float]]:
    """Return the seconds of an epoch of each kind of run, for each turn."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(images):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        lines.append(f"{number}.png {number % 100}\n")
    (folder / "list.txt").write_text("".join(lines))
    paddle.save(create_model(teacher, class_num=100).state_dict(), str(folder / "teacher.pdparams"))
    found = []
    for turn in range(turns):
        distilled = _recipe(folder, teacher, student)
        # The first run of a turn fills its own store, the second one reads it.
        stored = {**distilled, "TeacherStore": {"path": str(folder / f"store {turn}"), "views": EPOCHS}}
        alone = copy.deepcopy(distilled)
        alone["Arch"] = {"name": student, "class_num": 100}
        alone["Loss"]["Train"] = [{"CELoss": {}}]
        runs = {"teacher": distilled, "filling": stored, "store": stored, "student alone": alone}
        found.append({name: seconds_of(recipe, folder / "runs" / name) for name, recipe in runs.items()})
    return found


def seconds_of(recipe: dict[str, Any], folder: Path) -> float:
    """Train a recipe; return the seconds of its last epoch."""
    recipe = copy.deepcopy(recipe)
    recipe["Global"]["output_dir"] = str(folder)
    clock = _Clock()
    Engine(complete_config(Recipe.from_dict(recipe), "train"), "train").train([clock])
    return clock.seconds[-1]


def _recipe(folder: Path, teacher_name: str, student: str) -> dict[str, Any]:
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
            "epochs": EPOCHS,
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
