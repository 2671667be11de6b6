"""Searching folders: each real folder once, nothing hidden, one notice; classes in order of their names."""

from __future__ import annotations

import logging
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ppcls.class_names import format_class_names, read_class_names, shown_name
from ppcls.data import FolderDataset, build_transforms, list_images, matching, read_image
from ppcls.data.folders import in_order, is_hidden, list_class_names, text_order
from ppcls.errors import DataError


@pytest.fixture
def touch(tmp_path):
    """Return a function that makes empty files below the folder of the test."""

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")

    return make


def relative(paths: list[str], root) -> list[str]:
    return [os.path.relpath(path, root) for path in paths]


def labelled(dataset: FolderDataset) -> list[tuple[str, int]]:
    """Return path below the root and label of each sample."""
    return [(os.path.relpath(dataset.path(i), dataset.name), dataset.label(i)) for i in range(len(dataset))]


def test_hidden_files_and_folders_are_no_data(tmp_path, touch, caplog):
    touch(
        "a/1.jpg",
        "a/._1.jpg",
        "a/.DS_Store",
        "a/Thumbs.db",
        "a/.ipynb_checkpoints/1-checkpoint.jpg",
        "b/2.jpg",
    )
    touch(
        ".ipynb_checkpoints/x.jpg",
        "__MACOSX/a/._1.jpg",
        "b/@eaDir/2.jpg",
        "b/inner/.git/3.jpg",
        "b/c/DESKTOP.INI",
    )
    caplog.set_level(logging.INFO)
    assert relative(list_images(tmp_path), tmp_path) == ["a/1.jpg", "b/2.jpg"]
    dataset = FolderDataset(str(tmp_path), class_num=2)
    assert dataset.class_names == ["a", "b"]
    assert labelled(dataset) == [("a/1.jpg", 0), ("b/2.jpg", 1)]
    (first, second) = [record for record in caplog.records if "hidden" in record.message]
    assert first.message == second.message
    assert first.message.startswith(f"{tmp_path}: 9 hidden files and folders skipped: ")
    assert first.levelno == logging.INFO
    with pytest.raises(
        DataError, match=r"2 classes, but class_num is 3; .*\(folders that are hidden .*ipynb_check"
    ):
        FolderDataset(str(tmp_path), class_num=3)


def test_what_is_named_is_taken_even_if_it_is_hidden(tmp_path, touch):
    touch(".cache/a.jpg", ".b.jpg")
    assert relative(list_images(tmp_path / ".cache"), tmp_path) == [".cache/a.jpg"]
    assert list_images(tmp_path / ".b.jpg") == [str(tmp_path / ".b.jpg")]


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, touch, caplog):
    caplog.set_level(logging.INFO)
    touch("a/1.jpg", "a/notes.md")
    list_images(tmp_path)
    FolderDataset(str(tmp_path))
    assert caplog.text == ""


def test_other_files_are_counted_once_for_all_classes(tmp_path, touch, caplog):
    touch("a/1.jpg", "a/2.gif", "b/1.jpg", "b/2.GIF", "b/3.heic", "b/4.jpg.crdownload", "b/5")
    touch("a/README", "a/labels.XML", "b/.6.gif", "b/Thumbs.db")
    FolderDataset(str(tmp_path))
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.message == (
        f"{tmp_path}: not taken from this folder: 2 .gif, 1 without a suffix, 1 .crdownload, 1 .heic; "
        "if they are images, rename them or convert them to JPEG or PNG"
    )


@pytest.mark.parametrize("suffix", [".JPG", ".jpe", ".jfif", ".jif", ".ppm", ".pgm", ".pbm", ".pnm"])
def test_images_with_rarer_suffixes_are_taken_and_can_be_decoded(tmp_path, suffix, caplog):
    file = tmp_path / f"image{suffix}"
    Image.new("L", (4, 4)).save(file, "PPM" if suffix.startswith(".p") else "JPEG")
    assert list_images(tmp_path) == [str(file)]
    assert read_image(str(file), build_transforms([{"DecodeImage": None}])).shape == (3, 4, 4)
    assert caplog.text == ""


@pytest.mark.parametrize("target", [".", "..", "../a", "/", "b"])
def test_links_that_lead_back_end(tmp_path, touch, target, caplog):
    root = tmp_path / "tree"
    touch("tree/a/1.jpg", "tree/a/b/2.jpg", "outside.jpg")
    (root / "a" / "loop").symlink_to(target)
    assert relative(list_images(root), root) == ["a/1.jpg", "a/b/2.jpg"]
    assert labelled(FolderDataset(str(root))) == [("a/1.jpg", 0), ("a/b/2.jpg", 0)]
    assert caplog.text.count("1 link skipped") == 2
    assert "which are searched anyway or hold this one: a/loop" in caplog.text


def test_a_link_among_the_class_folders_is_a_class_only_if_it_leads_elsewhere(tmp_path, touch, caplog):
    root = tmp_path / "tree"
    touch("tree/cat/1.jpg", "disk/dogs/2.jpg")
    for name, target in (
        ("all", "."),
        ("up", ".."),
        ("kitty", "cat"),
        ("dog", "../disk/dogs"),
        ("hound", "dog"),
    ):
        (root / name).symlink_to(target)
    assert list_class_names(root) == ["cat", "dog"]
    assert labelled(FolderDataset(str(root), class_num=2)) == [("cat/1.jpg", 0), ("dog/2.jpg", 1)]
    assert "4 links skipped" in caplog.text
    with pytest.raises(
        DataError, match=r"class_num is 5.*hidden or links do not count: all, hound, kitty, up"
    ):
        FolderDataset(str(root), class_num=5)


def test_real_folders_keep_their_images_whatever_links_to_them(tmp_path, touch):
    """A link that comes first in order must not take the images of another class."""
    touch("cat/1.jpg", "dog/puppy/2.jpg", "far/3.jpg")
    (tmp_path / "tree").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name).rename(tmp_path / "tree" / name)
    (tmp_path / "tree/cat/a").symlink_to("../dog/puppy")
    (tmp_path / "tree/dog/more").symlink_to(tmp_path / "far")
    (tmp_path / "tree/cat/more").symlink_to("../dog/more")
    assert labelled(FolderDataset(str(tmp_path / "tree"))) == [
        ("cat/1.jpg", 0),
        ("cat/more/3.jpg", 0),
        ("dog/puppy/2.jpg", 1),
    ]


def test_two_links_that_lead_to_each_other_and_links_that_lead_nowhere(tmp_path, touch):
    touch("a/1.jpg", "x/2.jpg", "y/3.jpg")
    root = tmp_path / "a"
    (root / "x").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "y").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "x").symlink_to(tmp_path / "x")
    (root / "self").symlink_to("self")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "gone").symlink_to("nowhere")
    assert relative(list_images(root), root) == ["1.jpg", "self.jpg", "x/2.jpg", "x/y/3.jpg"]


def test_patterns_give_each_file_once_and_nothing_hidden(tmp_path, touch):
    touch("a/1.jpg", "a/b/2.jpg", "a/Thumbs.db", "a/.3.jpg")
    (tmp_path / "a" / "loop").symlink_to(".")
    assert relative(matching(f"{tmp_path}/**/*.jpg"), tmp_path) == ["a/1.jpg", "a/b/2.jpg"]
    assert relative(matching(f"{tmp_path}/a/*"), tmp_path) == ["a/1.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, touch, monkeypatch):
    touch("a/1.jpg", "a/b/2.jpg")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="a/b: the folder cannot be read: Permission denied"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("folders", "order"),
    [
        (["10", "9", "0", "11", "1"], ["0", "1", "9", "10", "11"]),
        (["b", "10", "a", "2"], ["2", "10", "a", "b"]),
        (["010", "2", "10", "02"], ["02", "2", "010", "10"]),
        (["class10", "class2", "Z", "a"], ["Z", "a", "class10", "class2"]),
        (["\u0661", "2", "-1", "1.5"], ["2", "-1", "1.5", "\u0661"]),
    ],
)
def test_names_that_are_numbers_are_in_their_order(tmp_path, touch, folders, order):
    assert in_order(folders) == order
    touch(*(f"{name}/1.jpg" for name in folders))
    assert FolderDataset(str(tmp_path)).class_names == list_class_names(tmp_path) == order
    assert text_order(order) == sorted(folders)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_folders_that_are_the_numbers_of_classes_have_them(numbers):
    assert [int(name) for name in in_order(map(str, numbers))] == sorted(numbers)


def test_names_given_in_order(tmp_path, touch, caplog):
    touch("a/1.jpg", "b/1.jpg")
    assert labelled(FolderDataset(str(tmp_path), class_names=["b", "c", "a"])) == [
        ("b/1.jpg", 0),
        ("a/1.jpg", 2),
    ]
    with pytest.raises(DataError, match="class_names: two class folders differ in blanks or .* alone: 'a'"):
        FolderDataset(str(tmp_path), class_names=["a", "b", "a"])


def test_folders_of_images_without_labels_need_not_be_classes(tmp_path, touch):
    touch("2019/1.jpg", "2020/deep/2.jpg", "3.jpg")
    options = {"labelled": False, "class_names": ["a", "b"]}
    dataset = FolderDataset(str(tmp_path), **options)
    assert [name for name, _ in labelled(dataset)] == ["2019/1.jpg", "2020/deep/2.jpg", "3.jpg"]
    assert [name for name, _ in labelled(FolderDataset(str(tmp_path), labelled=False))] == [
        name for name, _ in labelled(dataset)
    ]
    assert dataset.class_names == ["a", "b"]
    with pytest.raises(DataError, match="folders that are none of the 2 classes: '2019', '2020'"):
        FolderDataset(str(tmp_path), class_names=["a", "b"])


def test_names_that_text_files_cannot_hold(tmp_path, touch):
    folders = [b"a  b", b" c", b"d\ne", b"\xb9\xb7"]  # the last is GBK
    for folder in folders:
        path = os.path.join(os.fsencode(tmp_path), folder)
        os.mkdir(path)
        with open(os.path.join(path, b"1.jpg"), "wb") as file:
            file.write(b"x")
    names = FolderDataset(str(tmp_path)).class_names
    assert sorted(names) == ["\\xb9\\xb7", "a b", "c", "d e"]
    (tmp_path / "names.txt").write_text(format_class_names(names), encoding="utf-8")
    assert list(read_class_names(tmp_path / "names.txt").values()) == names
    assert len(FolderDataset(str(tmp_path), class_names=names)) == 4
    (tmp_path / "a b").mkdir()
    with pytest.raises(DataError, match="two class folders differ in blanks or .* alone: 'a b'"):
        FolderDataset(str(tmp_path))


def test_both_unicode_forms_of_a_name_are_the_same_class(tmp_path, touch):
    composed, apart = (unicodedata.normalize(form, "Häuser") for form in ("NFC", "NFD"))
    touch(f"mac/{apart}/1.jpg", "mac/b/1.jpg", f"linux/{composed}/1.jpg", "linux/b/1.jpg")
    names = FolderDataset(str(tmp_path / "linux")).class_names
    mac = FolderDataset(str(tmp_path / "mac"), class_names=names)
    assert mac.class_names == names
    assert [composed, "b"] == [names[0], names[1]]
    assert labelled(mac) == [(f"{apart}/1.jpg", 0), ("b/1.jpg", 1)]
    (tmp_path / "names.txt").write_text(f"0 {apart}\n1 b\n", "utf-8")
    assert list(read_class_names(tmp_path / "names.txt").values()) == names
    touch(f"mac/{composed}/1.jpg")
    with pytest.raises(DataError, match=f"the Unicode form of letters alone: '{composed}'"):
        FolderDataset(str(tmp_path / "mac"))


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
        .map(shown_name)
        .filter(bool)
    )
)
def test_names_come_back_from_their_file(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("names") / "class_names.txt"
    path.write_text(format_class_names(["first", *names]), encoding="utf-8", newline="")
    assert read_class_names(path) == dict(enumerate(["first", *names]))


@pytest.mark.parametrize(
    "name", [".git", "._x.jpg", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX", "@eaDir"]
)
def test_hidden_names(name):
    assert is_hidden(name)
    assert not is_hidden(f"x{name}")


def test_many_things_left_out_are_cut(tmp_path, touch, caplog):
    caplog.set_level(logging.INFO)
    touch("a.jpg", *(f".{number}.jpg" for number in range(5)))
    list_images(tmp_path)
    (record,) = caplog.records
    assert record.message.endswith(
        "5 hidden files and folders skipped: .0.jpg, .1.jpg, .2.jpg, .3.jpg, .4.jpg"
    )
    touch(*(f".{number}.jpg" for number in range(8)))
    list_images(tmp_path)
    assert (
        "8 hidden files and folders skipped: .0.jpg, .1.jpg, .2.jpg, .3.jpg, .4.jpg and 3 more" in caplog.text
    )
