"""Which images of CIFAR-10 are trained on, and which are tested on."""

from __future__ import annotations

import random
from pathlib import Path

UNLABELLED = 8_000  # images, those with labels among them
_TEST = 500  # images of each class, half of all


def cifar_lists(folder: Path, target: Path, labels: int) -> dict[str, Path]:
    """Write lists: `labels` images of each class, 8,000 images without labels, half of the test images.

    Which images these are is drawn once, with a fixed seed, for all runs. Lists of the same folder that are
    there already are not written again, because finding 60,000 files takes seconds.

    Raises:
        SystemExit: if `folder` has not ten classes of images.
    """
    target.mkdir(parents=True, exist_ok=True)
    found = {"train": target / f"train_{labels}.txt", "test": target / "test.txt"}
    found["unlabelled"] = target / "unlabelled.txt"
    written_for = target / f"train_{labels}.folder"
    if (
        all(path.exists() for path in (written_for, *found.values()))
        and written_for.read_text("utf-8") == f"{folder}\n"
    ):
        return found
    classes = sorted(path.name for path in (folder / "train").glob("*") if path.is_dir())
    if len(classes) != 10:
        raise SystemExit(f"{folder}/train: expected 10 folders of classes, found {len(classes)}")
    lines: dict[str, list[str]] = {name: [] for name in found}
    for number, name in enumerate(classes):
        images = sorted((folder / "train" / name).glob("*.*"))
        random.Random(number).shuffle(images)
        for kind, count in (("train", labels), ("unlabelled", UNLABELLED // 10)):
            lines[kind] += [f"{path.relative_to(folder)} {number}" for path in images[:count]]
        test = sorted((folder / "test" / name).glob("*.*"))
        lines["test"] += [f"{path.relative_to(folder)} {number}" for path in test[:_TEST]]
    for kind, path in found.items():
        path.write_text("\n".join(lines[kind]) + "\n", encoding="utf-8")
    written_for.write_text(f"{folder}\n", encoding="utf-8")
    return found
