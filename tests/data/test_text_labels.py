"""Lists whose labels are names of classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_recipe

from ppcls.cli import main
from ppcls.data import ImageNetDataset
from ppcls.data.lists import label_names
from ppcls.errors import ConfigError, DataError

NAMES = ["cat", "dog", "golden fish", "\u00fcber"]


@pytest.fixture
def named(image_folder: Path) -> Path:
    """The folder of images, with names as labels of both lists; the second lacks a class."""
    for part in ("train", "val"):
        lines = (image_folder / f"{part}_list.txt").read_text().splitlines()
        pairs = [(line.split()[0], NAMES[int(line.split()[1])]) for line in lines]
        kept = [pair for pair in pairs if part == "train" or pair[1] != "cat"]
        text = "".join(f"{name}\t{label}\n" for name, label in kept)
        (image_folder / f"{part}_list.txt").write_text(text, encoding="utf-8")
    return image_folder


def test_names_are_sorted_and_may_contain_blanks(named):
    dataset = ImageNetDataset(str(named), str(named / "train_list.txt"))
    assert dataset.class_names == NAMES
    assert [dataset.label(index) for index in range(12)] == [number for number in range(4) for _ in range(3)]


@pytest.mark.parametrize("as_file", [True, False])
def test_an_order_can_be_given(named, as_file):
    order = NAMES[::-1]
    text = "".join(f"{number} {name}\n" for number, name in enumerate(order))
    (named / "names.txt").write_text(text, encoding="utf-8")
    given = str(named / "names.txt") if as_file else order
    dataset = ImageNetDataset(str(named), str(named / "train_list.txt"), class_names=given)
    assert (dataset.class_names, dataset.label(0)) == (order, 3)
    assert ImageNetDataset.find_class_names({"class_names": given}) == order


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.png cat\nb.png dog\n", ["cat", "dog"]),
        ("a.png cat\nb.png 1\n", None),
        ("path label\na.png 1\n", None),
        ("a.png 0,1\n", None),
        ("a.png 0.5\n", None),
        ("one a.png\n", None),
        ("a.png\n", None),
        ("", None),
        ("\ufeff\n a b.png\tgolden  fish \r\n", ["golden fish"]),
        ("a\tb.png 0\n", None),
        ("a.png\tBoeing 747\nb c.PNG \t Type 1\n", ["Boeing 747", "Type 1"]),
        ("a.png\t0 1\n", None),
    ],
)
def test_what_counts_as_a_name(tmp_path, text, found):
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert label_names(path) == found


@pytest.mark.parametrize(
    ("labels", "names", "classes"),
    [
        (["0-9", "10-19", "0-9"], ["0-9", "10-19"], [0, 1, 0]),
        (["18+", "65+"], ["65+", "18+"], [1, 0]),
        (["20 30", "30  40"], ["20 30", "30 40"], [0, 1]),
        (["0", "1-2", "3+"], ["1-2", "0", "3+"], [1, 0, 2]),
        (["7", "cat"], ["7", "cat"], [0, 1]),
        (["Type 1", "Type 2"], ["Type 2", "Type 1"], [1, 0]),
        # All are whole numbers: those of the classes.
        (["1", "0"], ["1", "0"], [1, 0]),
        (["1", "0"], ["0-9", "10-19"], [1, 0]),
    ],
)
@pytest.mark.parametrize("delimiter", [None, "\t"])
def test_names_that_are_given_need_no_letter(tmp_path, labels, names, classes, delimiter):
    lines = []
    for place, label in enumerate(labels):
        (tmp_path / f"{place}.png").touch()
        lines.append(f"{place}.png\t{label}\n")
    path = tmp_path / "list.txt"
    path.write_text("".join(lines), encoding="utf-8")
    options = {"delimiter": delimiter, "class_num": len(names), "class_names": names}
    dataset = ImageNetDataset(str(tmp_path), str(path), **options)
    assert [dataset.label(index) for index in range(len(labels))] == classes
    assert dataset.class_names == names
    assert len(ImageNetDataset(str(tmp_path), str(path), delimiter=delimiter, labelled=False)) == len(labels)


def test_numbers_that_are_names_of_other_classes_are_called_out(tmp_path, caplog):
    path = tmp_path / "list.txt"
    path.write_text("x.png\t1\n", encoding="utf-8")
    (tmp_path / "x.png").touch()
    assert ImageNetDataset(str(tmp_path), str(path), class_names=["1", "cat"]).label(0) == 1
    assert "its labels are read as numbers of classes, although 1 is the name of class 0, too" in caplog.text
    caplog.clear()
    assert ImageNetDataset(str(tmp_path), str(path), class_names=["0", "1", "other"]).label(0) == 1
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        ("10-99", ["0-9", "10-19"], "'10-99' is none of the 2 classes"),
        (
            "18+",
            None,
            "got '18\\+' .*; class names without a letter must be listed in .* class_names",
        ),
        ("0.5", None, r"got '0.5' in 'x.png\\t0.5'$"),
    ],
)
def test_mistakes_in_names_without_a_letter(tmp_path, label, names, message):
    path = tmp_path / "list.txt"
    path.write_text(f"x.png\t{label}\nx.png\t{'0-9' if names else 0}\n", encoding="utf-8")
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match=message):
        ImageNetDataset(str(tmp_path), str(path), class_names=names)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (
            "x.png\tcta",
            {"class_names": NAMES},
            DataError,
            "'cta' is none of the 4 .* Did you mean: cat?",
        ),
        ("x.png\t3", {}, DataError, "either all numbers or all names"),
        ("", {"relabel": "train_list.txt"}, ConfigError, "relabel is for numbers"),
        ("", {"class_num": 5}, DataError, "4 classes by name, but class_num is 5"),
        ("", {"class_names": ["cat", "cat"]}, DataError, "'cat'"),
    ],
)
def test_mistakes_are_named(named, change, options, error, message, monkeypatch):
    monkeypatch.chdir(named)
    path = named / "train_list.txt"
    path.write_text(path.read_text("utf-8") + change + "\n", encoding="utf-8")
    with pytest.raises(error, match=message):
        ImageNetDataset(str(named), str(path), **options)


def test_names_travel_from_lists_to_the_run_and_to_evaluation(named, tmp_path, write_recipe, capsys):
    recipe = tiny_recipe(named, tmp_path / "output")
    recipe["Global"]["epochs"] = 1
    recipe["Infer"]["PostProcess"].pop("class_id_map_file", None)
    path = str(write_recipe(recipe))
    assert main(["train", "-c", path]) == 0
    run = tmp_path / "output/resnet8"
    assert (run / "class_names.txt").read_text("utf-8").split("\n")[2:4] == ["2 golden fish", "3 \u00fcber"]
    assert main(["eval", str(run)]) == 0
    val = named / "val_list.txt"
    val.write_text(val.read_text("utf-8").replace("dog", "dgo"), encoding="utf-8")
    capsys.readouterr()
    assert main(["eval", str(run)]) == 2
    assert "'dgo' is none of the 4 classes. Did you mean: dog?" in capsys.readouterr().err
