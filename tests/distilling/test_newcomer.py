"""What somebody does who has class folders and has never seen ppcls: four commands, or one call."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

import ppcls
from ppcls.cli import main
from ppcls.deploy import Predictor
from ppcls.report.runs import read_run

SHAPES = ("circle", "square", "triangle")
QUICK = ("resnet8", "resnet8", 1, 6)
WHOLE = ("resnet20", "resnet8", 12, 60)


def draw(shape: str, rng: np.random.Generator) -> np.ndarray:
    """Return a small noisy picture of a shape: BGR, uint8."""
    image = rng.integers(0, 90, (32, 32, 3)).astype(np.uint8)
    colour = tuple(int(value) for value in rng.integers(120, 256, 3))
    x, y = (int(value) for value in rng.integers(11, 21, 2))
    size = int(rng.integers(6, 11))
    if shape == "circle":
        cv2.circle(image, (x, y), size, colour, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - size, y - size), (x + size, y + size), colour, -1)
    else:
        points = [(x, y - size), (x - size, y + size), (x + size, y + size)]
        cv2.fillPoly(image, [np.array(points, np.int32)], colour)
    return image


def write_shapes(root: Path, count: int, seed: int = 0) -> Path:
    """Write class folders with `count` pictures of each shape."""
    rng = np.random.default_rng(seed)
    for shape in SHAPES:
        (root / shape).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / shape / f"{shape}_{number}.png"), draw(shape, rng))
    return root


def by_commands(teacher: str, student: str, epochs: int) -> list[dict[str, str]]:
    """Run the four commands in the working folder; return the rows of the predictions."""
    init = ["init", "photos", "--teacher", teacher, "--student", student, "--epochs", str(epochs)]
    assert main(init) == 0
    assert main(["check-data", "-c", "project/distill.yaml"]) == 0
    options = [f"-o{text}" for text in ("Global.device=cpu", "Global.seed=1", "Global.export_format=paddle")]
    assert main(["distill", "project", "--export", "student", *options]) == 0
    assert main(["predict", "--model-dir", "student", "new", "--output", "answers.csv"]) == 0
    with open("answers.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def check_answers(rows: list[dict[str, str]], least: float) -> None:
    """Compare predictions with the names of the files."""
    assert {Path(row["file_name"]).name for row in rows} == {path.name for path in Path("new").rglob("*.png")}
    names = [row["label_name"] for row in rows]
    assert set(names) <= set(SHAPES)
    right = [Path(row["file_name"]).name.startswith(name) for row, name in zip(rows, names, strict=True)]
    assert sum(right) / len(right) >= least


def check_project(folder: Path) -> None:
    run = read_run(folder / "output/distill")
    assert run.finished
    assert run.class_names == list(SHAPES)
    assert (run.folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("teacher", "student", "epochs", "count"),
    [QUICK, pytest.param(*WHOLE, marks=pytest.mark.slow)],
    ids=["quick", "whole"],
)
def test_four_commands_lead_from_class_folders_to_predictions(
    tmp_path, monkeypatch, capsys, teacher, student, epochs, count
):
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "photos", count)
    write_shapes(tmp_path / "new", 4, seed=1)
    rows = by_commands(teacher, student, epochs)
    check_project(tmp_path / "project")
    check_answers(rows, 0.7 if count == WHOLE[-1] else 0)
    assert "use it: ppcls predict --model-dir student IMAGES" in capsys.readouterr().out


@pytest.mark.slow
def test_one_call_does_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher, student, epochs, count = WHOLE
    write_shapes(tmp_path / "photos", count)
    write_shapes(tmp_path / "new", 4, seed=1)
    result = ppcls.distill(
        "photos",
        teacher,
        student,
        epochs=epochs,
        baseline=True,
        export="student",
        seed=1,
        overrides=["Global.device=cpu"],
    )
    check_project(tmp_path / "distilled")
    assert result.accuracy > 0.7
    found = Predictor("student").predict([str(path) for path in sorted(Path("new").rglob("*.png"))])
    right = [Path(row["file_name"]).name.startswith(row["label_names"][0]) for row in found]
    assert sum(right) / len(right) >= 0.7
