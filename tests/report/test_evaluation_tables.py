"""Reports of evaluations: numbers against their definitions, files, pictures, names."""

import csv
import io
import logging
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import distilled

import ppcls
from ppcls.cli import main
from ppcls.errors import ConfigError
from ppcls.report import confusion_plot
from ppcls.report import evaluation_tables as report
from ppcls.report.confusion_plot import draw_confusion
from ppcls.report.evaluation_tables import (
    Predictions,
    class_scores,
    confused_pairs,
    confusion_matrix,
    write_report,
)
from ppcls.weights import write_params

pytest.importorskip("matplotlib")


def rows(folder: Path, name: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO((folder / name).read_text(encoding="utf-8"))))


class Files:
    """Stands in for a dataset."""

    def path(self, index):
        return f"图/{index}.jpg"


@settings(max_examples=60, deadline=None)
@given(data=st.data(), classes=st.integers(1, 7), images=st.integers(1, 40))
def test_scores_are_those_of_the_definitions(data, classes, images):
    """The reference counts image by image, in float64, straight from what the words mean."""
    answers = st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)
    label, predicted = np.array(data.draw(answers)), np.array(data.draw(answers))
    found = class_scores(label, predicted, classes)
    sums = {"macro": np.zeros(3), "weighted": np.zeros(3)}
    present = sorted(set(label.tolist()))
    for one in range(classes):
        hits = sum(1 for a, b in zip(label, predicted, strict=True) if a == one == b)
        of_it, as_it = sum(a == one for a in label), sum(b == one for b in predicted)
        recall = hits / of_it if of_it else None
        precision = hits / as_it if as_it else (0.0 if of_it else None)
        f1 = None
        if precision is not None and recall is not None:
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        elif precision is not None or recall is not None:
            f1 = 0.0
        for mine, expected in ((found.precision, precision), (found.recall, recall), (found.f1, f1)):
            assert np.isnan(mine[one]) if expected is None else mine[one] == pytest.approx(expected)
        assert (found.support[one], found.predicted[one]) == (of_it, as_it)
        if of_it:
            sums["macro"] += np.array([precision, recall, f1]) / len(present)
            sums["weighted"] += np.array([precision, recall, f1]) * of_it / images
    for kind, expected in sums.items():
        assert list(found.averages()[kind].values()) == pytest.approx(expected.tolist())
    # the weighted recall is the accuracy
    assert found.averages()["weighted"]["recall"] == pytest.approx((label == predicted).mean())
    matrix = confusion_matrix(label, predicted, classes)
    assert matrix.sum() == images
    assert all(
        matrix[a, b] == sum((label == a) & (predicted == b)) for a in range(classes) for b in range(classes)
    )
    pairs = confused_pairs(label, predicted, classes)
    assert pairs[:, 2].sum() == (label != predicted).sum()
    assert all(matrix[a, b] == count and a != b for a, b, count in pairs.tolist())
    assert (np.diff(pairs[:, 2]) <= 0).all()


def predictions(label, predicted, classes):
    label, predicted = np.array(label), np.array(predicted)
    score = np.linspace(0.5, 0.9, len(label)).astype(np.float32)
    return Predictions(np.arange(len(label)), label, predicted, score, 1 - score, classes)


def test_the_files_hold_the_numbers(tmp_path):
    found = predictions([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 2, 2], 4)
    write_report(tmp_path / "new", found, Files(), {0: "猫, 小", 1: "dog"})
    folder = tmp_path / "new"
    assert {path.name for path in folder.iterdir()} == {
        "per_class.csv", "averages.csv", "confusion_matrix.csv", "confusion_matrix.png", "confused_pairs.csv",
        "misclassified.csv",
    }  # fmt: skip
    classes = rows(folder, "per_class.csv")
    assert [row["name"] for row in classes] == ["猫, 小", "dog", "2", "3"]
    assert [row["precision"] for row in classes] == ["1.00000", "0.33333", "0.50000", ""]
    assert [row["recall"] for row in classes] == ["0.33333", "0.50000", "1.00000", ""]
    assert [row["support"] for row in classes] == ["3", "2", "1", "0"]
    assert [row["average"] for row in rows(folder, "averages.csv")] == ["macro", "weighted"]
    assert {row["accuracy"] for row in rows(folder, "averages.csv")} == {"0.50000"}
    assert [row["1"] for row in rows(folder, "confusion_matrix.csv")] == ["2", "1", "0", "0"]
    pairs = rows(folder, "confused_pairs.csv")
    assert [(p["class_id"], p["predicted_id"], p["images"]) for p in pairs] == [
        ("0", "1", "2"),
        ("1", "2", "1"),
    ]
    wrong = rows(folder, "misclassified.csv")
    assert [row["file"] for row in wrong] == ["图/4.jpg", "图/2.jpg", "图/1.jpg"]  # the surest first
    assert (wrong[0]["score"], wrong[0]["score_of_class"]) == ("0.82000", "0.18000")


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path, monkeypatch):
    write_report(tmp_path, predictions([0, 1], [0, 1], 2), Files(), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(report, "draw_confusion", fail)
    with pytest.raises(MemoryError):
        write_report(tmp_path, predictions([0, 1], [1, 1], 2), Files(), {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("stop", range(6))
def test_a_full_disk_leaves_the_old_report_whole(tmp_path, monkeypatch, stop):
    write_report(tmp_path, predictions([0, 1], [0, 1], 2), Files(), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    written = []

    def write(path, content):
        if len(written) == stop:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.write_text("half of it")

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(ConfigError, match=r"--report: cannot write to .*: No space left"):
        write_report(tmp_path, predictions([0, 1], [1, 1], 2), Files(), {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_very_many_classes_go_without_a_matrix(tmp_path, monkeypatch):
    write_report(tmp_path, predictions([0, 1], [0, 1], 2), Files(), {})  # its matrix is of another evaluation
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(report, "MATRIX_CLASSES", 3)
    write_report(tmp_path, predictions([0, 3], [0, 1], 4), Files(), {})
    assert not list(tmp_path.glob("confusion_matrix.*"))
    assert len(rows(tmp_path, "confused_pairs.csv")) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def pixels(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    ("classes", "least"),
    [
        (1, 300),
        (10, 500),
        pytest.param(100, 1200, marks=pytest.mark.slow),
        pytest.param(1000, 2000, marks=pytest.mark.slow),
    ],
)
def test_every_class_has_pixels_of_its_own(classes, least):
    matrix = np.eye(classes, dtype=np.int64) * 50
    image = pixels(draw_confusion(matrix, [f"class {n}" for n in range(classes)]))
    assert min(image.shape[:2]) >= least
    assert max(image.shape[:2]) < 3000
    # the diagonal is dark, and one mistake of 50 in a corner can be seen
    assert (image.max(axis=-1) < 130).sum() > classes
    matrix[0, -1] += 1 if classes > 1 else 0
    other = pixels(draw_confusion(matrix, [f"class {n}" for n in range(classes)]))
    assert classes == 1 or (np.abs(image.astype(int) - other).max(-1) > 20).sum() >= 9


def names_drawn(monkeypatch, names: list[str]) -> list[str]:
    """Return what stands beside the rows of a picture; a letter drawn as a box is an error."""
    drawn = []
    write = confusion_plot._name
    monkeypatch.setattr(
        confusion_plot, "_name", lambda axes, texts, letter: (drawn.extend(texts), write(axes, texts, letter))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(np.eye(len(names), dtype=np.int64), names)
    return drawn


def test_letters_without_a_font_become_numbers_not_boxes_and_are_warned_of_once(monkeypatch, caplog):
    monkeypatch.setattr(confusion_plot, "_CJK_FONTS", ())
    with caplog.at_level(logging.WARNING, "ppcls"):
        drawn = names_drawn(monkeypatch, ["cat", "猫", "", "a\nb", "狗", "кот", "x" * 40])
    assert drawn == ["cat", "1", "2", "a b", "4", "кот", "x" * 23 + "…"]
    (record,) = caplog.records
    assert "2 class names (such as 猫)" in record.getMessage()


@pytest.fixture
def han_font(monkeypatch):
    """A font in matplotlib's list that has the one letter 猫."""
    from matplotlib import font_manager

    class Han:
        def get_charmap(self):
            return {ord("猫"): 1}

    known, read = font_manager.fontManager, font_manager.get_font
    own = font_manager.findfont("DejaVu Sans")
    monkeypatch.setattr(
        known, "ttflist", [*known.ttflist, font_manager.FontEntry(fname="han.ttf", name="SimHei")]
    )
    find = font_manager.findfont
    monkeypatch.setattr(
        font_manager, "findfont", lambda family: "han.ttf" if family == "SimHei" else find(family)
    )
    monkeypatch.setattr(font_manager, "get_font", lambda file: Han() if file == "han.ttf" else read(own))


def test_an_installed_font_with_the_letters_is_used_beside_the_own_one(han_font, caplog):
    families = confusion_plot._font_families()
    assert families[0] == "DejaVu Sans"
    assert "SimHei" in families
    assert confusion_plot._labels(["猫", "dog", "狗"], families) == ["猫", "dog", "2"]
    assert "1 class names" in caplog.text


def test_formulas_and_broken_ones_are_only_text():
    draw_confusion(np.eye(3, dtype=np.int64), ["$x^2$", "$\\broken{", "50 % off $"])


def test_eval_writes_a_report(recipe, write_recipe, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("0 猫\n1 dog\n2 bird\n3 fish\n", encoding="utf-8")
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(names)
    weights = tmp_path / "net.pdparams"
    write_params(weights, ppcls.create_model("resnet8", class_num=4).state_dict())
    path = write_recipe(distilled(recipe, DistillationGTCELoss={"model_names": ["Student"]}))
    folder = tmp_path / "report"
    command = ["eval", "-c", str(path), "-o", f"Global.pretrained_model={weights}", "--report", str(folder)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"report in {folder}: macro precision" in printed
    classes = rows(folder, "per_class.csv")
    assert [row["name"] for row in classes] == ["猫", "dog", "bird", "fish"]
    images = [line.split()[0] for line in Path(tmp_path / "images/val_list.txt").read_text().splitlines()]
    assert sum(int(row["support"]) for row in classes) == len(images)
    wrong = {Path(row["file"]).name for row in rows(folder, "misclassified.csv")}
    assert wrong <= set(images)
    accuracy = float(rows(folder, "averages.csv")[0]["accuracy"])
    assert f"top1: {accuracy:.5f}" in printed
    assert len(wrong) == round(len(images) * (1 - accuracy))
    assert not list(folder.glob(".*"))


def test_a_report_without_matplotlib_says_what_to_install(
    recipe, write_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    command = ["eval", "-c", str(write_recipe(recipe)), "-o", "Global.pretrained_model=x"]
    assert main([*command, "--report", str(tmp_path / "report")]) == 2
    assert "--report: matplotlib is not installed; pip install 'ppcls[report]'" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_report_without_a_path_is_refused(recipe, write_recipe, capsys):
    command = ["eval", "-c", str(write_recipe(recipe)), "-o", "Global.pretrained_model=x"]
    with pytest.raises(SystemExit):
        main([*command, "--report", ""])
    assert "argument --report: got an empty text" in capsys.readouterr().err


def test_a_report_into_a_file_is_refused_before_any_work(recipe, write_recipe, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    command = ["eval", "-c", str(write_recipe(recipe)), "-o", "Global.pretrained_model=x"]
    assert main([*command, "--report", str(tmp_path / "taken")]) == 2
    assert f"--report: cannot write to {tmp_path / 'taken'}" in capsys.readouterr().err
