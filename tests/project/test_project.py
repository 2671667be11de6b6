"""`ppcls init`: what it sees in data, and the project that it writes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import PHOTOS

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.errors import DataError
from ppcls.project import METHODS, inspect_data, plan, write_project
from ppcls.project.sources import find_source
from ppcls.project.split import stratified_split


def write_classes(root: Path, counts: dict[str, int], side: int = 32, seed: int = 0) -> Path:
    """Write a folder of crops of a photo for each class."""
    rng = np.random.default_rng(seed)
    photos = [cv2.imread(str(path)) for path in sorted(PHOTOS.glob("*.jpg"))]
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            photo = photos[number % len(photos)]
            y, x = rng.integers(0, photo.shape[0] - 48), rng.integers(0, photo.shape[1] - 48)
            crop = cv2.resize(photo[y : y + 48, x : x + 48], (side, side))
            cv2.imwrite(str(root / name / f"{index}.png"), crop)
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "pets", {"cat": 5, "dog": 4, "golden fish": 6})


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_four_commands_lead_from_class_folders_to_a_student(pets, tmp_path, capsys):
    out = tmp_path / "project"
    options = ["--teacher", "resnet8", "--student", "resnet8", "--epochs", "1", "--out", str(out)]
    assert main(["init", str(pets), *options]) == 0
    shown = capsys.readouterr().out
    assert "3 classes (cat, dog, golden fish); from 4 images (dog) to 6 (golden fish)" in shown
    assert f"ppcls train -c {out}/teacher.yaml" in shown
    assert lines_of(out / "class_names.txt") == ["0 cat", "1 dog", "2 golden fish"]
    both = [lines_of(out / f"{part}_list.txt") for part in ("train", "val")]
    assert sorted(map(len, both)) == [3, 12]
    assert len({*both[0], *both[1]}) == 15
    for name in ("teacher", "student", "distill", "data"):
        assert len(lines_of(out / f"{name}.yaml")) <= 30
    device = ["-o", "Global.device=cpu"]
    everything = [word for path in sorted(out.glob("*.yaml")) for word in ("-c", str(path))]
    assert main(["validate", *everything]) == 0
    for name in ("teacher", "distill"):
        assert main(["train", "-c", str(out / f"{name}.yaml"), *device]) == 0
    run = out / "output/distill"
    assert lines_of(run / "class_names.txt") == ["0 cat", "1 dog", "2 golden fish"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_valid_recipe(method, pets, tmp_path):
    summary = inspect_data(pets)
    decided = plan(summary, teacher="resnet8", student="resnet8", method=method)
    recipe = load_config(write_project(summary, decided, tmp_path / "out").folder / "distill.yaml")
    assert any(name != "DistillationGTCELoss" for entry in recipe.Loss.Train for name in entry)


def test_the_page_lists_every_method():
    page = (Path(__file__).parents[2] / "docs" / "first_project.md").read_text(encoding="utf-8")
    table = page.split("its losses in `distill.yaml`")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(METHODS)


@pytest.mark.parametrize("held", ["val", "Validation", "test"])
def test_parts_are_found_by_their_names(tmp_path, held):
    data = tmp_path / "data"
    write_classes(data / "train", {"1": 2, "2": 3, "10": 2})
    write_classes(data / held, {"10": 1, "1": 1})
    summary = inspect_data(data)
    assert (len(summary.train), len(summary.val)) == (7, 2)
    assert summary.class_names == ["1", "2", "10"]
    assert summary.counts.tolist() == [[2, 3, 2], [1, 0, 1]]
    assert "no effect" not in "\n".join(summary.notes)
    assert "val 0.5 has no effect" in "\n".join(inspect_data(data, val=0.5).notes)
    project = write_project(summary, plan(summary), tmp_path / "out")
    assert not project.lists
    for recipe in project.recipes:
        dataset = load_config(recipe).DataLoader.Eval.dataset
        assert dataset["image_root"] == str(data / held)


def test_a_part_for_validation_is_split_from_train_alone(tmp_path):
    write_classes(tmp_path / "data/train", {"a": 5, "b": 5})
    summary = inspect_data(tmp_path / "data", val=0.4)
    assert summary.counts.tolist() == [[3, 3], [2, 2]]


def test_lists_of_both_parts(image_folder, tmp_path):
    summary = inspect_data(image_folder)
    assert (len(summary.train), len(summary.val)) == (12, 6)
    assert len(summary.equal) == 6
    assert "in both parts, byte for byte: 6" in summary.describe()
    project = write_project(summary, plan(summary), tmp_path / "out")
    assert load_config(project.student).arch.main.class_num == 4


def test_names_of_numbers_are_found_beside_lists(image_folder):
    (image_folder / "labels.txt").write_text("0 cat\n1 dog\n")
    assert "Not used as names of the 4 classes" in inspect_data(image_folder).describe()
    (image_folder / "classes.txt").write_text("0 a\n1 b\n2 c\n3 d\n")
    summary = inspect_data(image_folder)
    assert summary.class_names == ["a", "b", "c", "d"]
    assert "come from" in summary.describe()


def test_a_list_alone_is_split(image_folder, tmp_path):
    summary = inspect_data(image_folder / "train_list.txt", val=0.34)
    assert summary.counts.sum(axis=1).tolist() == [8, 4]
    assert not summary.equal


def test_numbers_of_a_split_keep_their_names(pets, tmp_path):
    lists = tmp_path / "lists"
    assert main(["split", str(pets), "--out", str(lists)]) == 0
    for data in (lists, lists / "train_list.txt"):
        summary = inspect_data(data, image_root=pets)
        assert (summary.named, summary.class_names) == (True, ["cat", "dog", "golden fish"])
    (lists / "class_names.txt").write_text("0 cat\n1 dog\n")
    summary = inspect_data(lists, image_root=pets)
    assert (summary.named, summary.class_names) == (False, ["0", "1", "2"])
    assert "Not used as names of the 3 classes" in "\n".join(summary.notes)


def test_classes_of_a_list_without_images_are_named(pets, tmp_path):
    text = "".join(
        f"{name}/{number}.png {label}\n" for label, name in ((1, "cat"), (2, "dog")) for number in range(4)
    )
    (tmp_path / "from_one.txt").write_text(text)
    summary = inspect_data(tmp_path / "from_one.txt", image_root=pets)
    assert "1 class has no images: 0. They stay classes; classes count from 0" in "\n".join(summary.notes)


def test_shards_need_both_parts(image_folder, tmp_path, write_recipe, recipe, capsys):
    assert main(["shard", "-c", str(write_recipe(recipe)), str(tmp_path / "shards")]) == 0
    summary = inspect_data(tmp_path / "shards")
    assert (len(summary.train), len(summary.val)) == (12, 6)
    project = write_project(summary, plan(summary), tmp_path / "out")
    assert load_config(project.distill).DataLoader.Train.dataset["name"] == "ShardDataset"
    with pytest.raises(DataError, match="image_root is for lists, but .*shards holds shards"):
        inspect_data(tmp_path / "shards", image_root=image_folder)
    shutil.rmtree(tmp_path / "shards/Eval")
    assert main(["init", str(tmp_path / "shards"), "--out", str(tmp_path / "other")]) == 2
    assert "found train; expected the folders Train and Eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("side", "size", "student"), [(28, 32, "resnet8x4"), (64, 64, "resnet8x4"), (100, 96, "PPLCNet_x1_0")]
)
def test_networks_fit_the_size_of_images(tmp_path, side, size, student):
    summary = inspect_data(write_classes(tmp_path / "data", {"a": 3, "b": 3}, side))
    chosen = plan(summary)
    assert (chosen.image_size, chosen.student.network) == (size, student)
    assert chosen.student.pretrained == (size > 64)
    for recipe in write_project(summary, chosen, tmp_path / "out").recipes:
        load_config(recipe)


def test_networks_that_do_not_fit_the_size_are_named(pets):
    notes = plan(inspect_data(pets), teacher="ResNet50_vd").notes
    assert "ResNet50_vd makes images 32 times smaller" in notes[0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds no class folders"),
        ({"cat": 3}, "only one class folder, 'cat'"),
        ({"cat": 1, "dog": 1}, "no class has two images or more"),
        ({"cat": 0, "dog": 0}, "no class folder holds an image"),
        ({"all/cat": 2, "all/dog": 2}, "Or are the classes in"),
        ({"cat": 2, "dog": 2, "out/a": 1}, "would be taken for a class"),
        ({"train/cat": 2, "train/dog": 2, "unlabeled/x": 2}, "named as a part for validation, such as val"),
    ],
)
def test_data_that_cannot_be_used_are_refused(tmp_path, counts, message, capsys):
    (tmp_path / "data").mkdir()
    write_classes(tmp_path / "data", counts)
    out = tmp_path / ("data/out" if "class" in message and "taken" in message else "out")
    assert main(["init", str(tmp_path / "data"), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not (out / "data.yaml").exists()


@pytest.mark.parametrize(
    ("command", "options", "remedy"),
    [
        ("init", [], "../pets-project"),
        ("init", ["--out", "."], "../pets-project"),
        ("init", ["--out", "cat/a/b"], "../pets-b"),
        ("distill", [], "../pets-distilled"),
    ],
)
def test_a_project_among_the_classes_is_refused_before_images_are_read(
    pets, monkeypatch, capsys, command, options, remedy
):
    monkeypatch.chdir(pets)
    before = sorted(pets.rglob("*"))
    with monkeypatch.context() as unreadable:
        unreadable.setattr("ppcls.project.summary.parts_of", None)
        assert main([command, ".", *options]) == 2
    assert capsys.readouterr().err.endswith(f"taken for a class; choose another, such as --out {remedy}\n")
    assert sorted(pets.rglob("*")) == before
    assert main(["init", ".", "--out", remedy]) == 0


def test_odd_names_damage_and_empty_classes(tmp_path, capsys):
    data = write_classes(
        tmp_path / "data", {" two  blanks": 3, "größe": 4, "einzeln": 1, "leer": 0, ".git": 2}
    )
    (data / "größe/9.jpg").write_bytes(b"no image")
    (data / "größe/tief/er").mkdir(parents=True)
    shutil.move(data / "größe/3.png", data / "größe/tief/er/3.png")
    shutil.copy(data / "größe/1.png", data / "loose.png")
    shutil.copy(data / "größe/1.png", data / " two  blanks/same.png")
    out = tmp_path / "out"
    assert main(["init", str(data), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Not used: 1 image right in" in shown
    assert "1 class has no images: leer" in shown
    assert "9.jpg: cannot be decoded: it is text, no image" in shown
    assert "single image" in shown
    assert "1 image is in several classes, such as" in shown
    assert lines_of(out / "class_names.txt") == ["0 two blanks", "1 einzeln", "2 größe", "3 leer"]
    assert main(["validate", "-c", str(out / "student.yaml")]) == 0
    assert main(["check-data", "-c", str(out / "student.yaml")]) == 2
    assert "1 image cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "names", [("training_set", "test_set"), ("train", "dev"), ("Train", "Validation_set")]
)
def test_parts_have_many_names(tmp_path, names):
    for part in names:
        write_classes(tmp_path / "data" / part, {"cat": 3, "dog": 2})
    source = find_source(tmp_path / "data")
    assert (source.class_names, len(source.train), len(source.val)) == (["cat", "dog"], 5, 5)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_lists_of_the_data_are_never_replaced(pets, tmp_path, overwrite, capsys):
    assert main(["split", str(pets), "--out", str(tmp_path / "lists"), "--seed", "1"]) == 0
    lists = tmp_path / "lists"
    for name in ("train", "val"):
        text = (lists / f"{name}_list.txt").read_text()
        (lists / f"{name}_list.txt").write_text(text)
    before = {path.name: path.read_text() for path in lists.iterdir()}
    place = ["--image-root", str(pets), "--out", str(lists), *overwrite]
    assert main(["init", str(lists), *place]) == 2
    assert main(["split", str(lists / "train_list.txt"), *place]) == 2
    shown = capsys.readouterr().err
    assert ("part of the data themselves, and never replaced" in shown) == bool(overwrite)
    assert {path.name: path.read_text() for path in lists.iterdir()} == before


def test_a_project_is_only_replaced_on_request(pets, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["init", str(pets), "--out", str(out)]) == 0
    (out / "student.yaml").write_text("mine")
    capsys.readouterr()
    assert main(["init", str(pets), "--out", str(out)]) == 2
    assert "already holds train_list.txt" in capsys.readouterr().err
    assert (out / "student.yaml").read_text() == "mine"
    assert main(["init", str(pets), "--out", str(out), "--overwrite"]) == 0
    assert "replaced: train_list.txt" in capsys.readouterr().out
    assert (out / "student.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val", "1.5"], "between 0 and 1"),
        (["--seed", "-1"], "seed: expected a whole number of 0 or more"),
        (["--method", "dk"], "Did you mean"),
        (["--teacher", "resnet57"], "unknown network 'resnet57'"),
        (["--image-size", "0"], "expected 8 to"),
        (["--image-root", "."], "is for lists"),
    ],
)
def test_wrong_options(pets, tmp_path, options, message, capsys):
    assert main(["init", str(pets), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_split_keeps_shares_and_equal_images():
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    first = stratified_split(labels, 0.2, 3, [[0, 7, 8]])
    assert np.bincount(labels[first.val]).tolist() == [10, 2, 1]
    assert first.lacking == (3,)
    assert sorted([*first.train, *first.val]) == list(range(63))
    assert len({*first.val} & {0, 7, 8}) in (0, 3)
    assert stratified_split(labels, 0.2, 3, [[0, 7, 8]]).val.tolist() == first.val.tolist()
    assert stratified_split(labels, 0.2, 4).val.tolist() != first.val.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_equal_images_of_two_classes_leave_both_a_training_image(seed):
    split = stratified_split(np.array([0, 0, 0, 1, 1]), 0.2, seed, [[0, 3]])
    assert {*np.array([0, 0, 0, 1, 1])[split.train]} == {0, 1}
    assert len({0, 3} & {*split.val.tolist()}) in (0, 2)


def test_a_split_as_lists(pets, tmp_path, capsys):
    out = tmp_path / "lists"
    assert main(["split", str(pets), "--val", "0.25", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"image_root: {pets}, cls_label_path: {out}/train_list.txt" in shown
    train, val = (lines_of(out / f"{part}_list.txt") for part in ("train", "val"))
    assert (len(train), len(val)) == (11, 4)
    assert main(["split", str(pets), "--out", str(out)]) == 2
    assert "already holds train_list.txt" in capsys.readouterr().err
    assert main(["split", str(pets), "--val", "0.25", "--seed", "1", "--out", str(out), "--overwrite"]) == 0
    assert lines_of(out / "val_list.txt") != val
    # A list of the split can be split again, for a test part.
    assert (
        main(["split", str(out / "train_list.txt"), "--image-root", str(pets), "--out", str(tmp_path)]) == 0
    )
    assert lines_of(tmp_path / "class_names.txt") == lines_of(out / "class_names.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val", "0"], "between 0 and 1"),
        (["--image-root", "."], "is for lists"),
        (["--out", "pets/cat/0.png"], "cannot write"),
    ],
)
def test_wrong_options_of_split(pets, tmp_path, options, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["split", "pets", *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_data_with_both_parts_are_not_split(image_folder, tmp_path, capsys):
    assert main(["split", str(image_folder), "--out", str(tmp_path / "out")]) == 2
    assert "6 images for validation already" in capsys.readouterr().err
