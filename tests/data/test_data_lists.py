"""List files: every spelling that is fine, and every mistake with its line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import list_images
from ppcls.data.lists import class_mapping, read_list
from ppcls.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Some files with awkward names; their content does not matter to a list."""
    for name in ("a.jpg", "b c.jpg", "子/图 片 🐱.png", "sub/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(root, text, encoding="utf-8"):
    path = root / "list.txt"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg 0\nb c.jpg 1\n子/图 片 🐱.png 2\n",
        "a.jpg\t0\nb c.jpg\t1\n子/图 片 🐱.png\t2",
        "\ufeffa.jpg 0\r\nb c.jpg 1\r\n子/图 片 🐱.png 2\r\n",
        "\n\na.jpg 0\n   \n  b c.jpg 1  \n\n子/图 片 🐱.png   2\n\n",
    ],
    ids=["plain", "tab", "bom and crlf", "blank lines"],
)
def test_spellings_of_the_same_list(root, text):
    found = read_list(write(root, text), root, class_num=3)
    assert found.names == ["a.jpg", "b c.jpg", "子/图 片 🐱.png"]
    assert found.labels.tolist() == [0, 1, 2]
    assert found.labels.dtype == np.int64


def test_delimiter_and_absolute_paths(root):
    found = read_list(write(root, f"b c.jpg,1\n{root}/a.jpg,0\n"), root, delimiter=",")
    assert found.names == ["b c.jpg", f"{root}/a.jpg"]


def test_one_report_names_every_kind_of_mistake_with_its_line(root):
    text = "a.jpg 0\n\nb c.jpg one\na.jpg 3\na.jpg -1\nmissing.jpg 1\nno/folder.jpg 1\nalone\na.jpg 1.0\n"
    path = write(root, text)
    with pytest.raises(DataError) as caught:
        read_list(path, root, class_num=3)
    message = str(caught.value)
    assert "7 mistakes in 9 lines" in message
    assert re.findall(r"list\.txt:(\d+): ", message) == ["3", "4", "5", "6", "7", "8", "9"]
    for part in ("got 'one'", "0..2 (class_num 3), got 3", f"no such file: {root}/missing.jpg", "'alone'"):
        assert part in message


def test_many_mistakes_are_counted_and_only_the_first_shown(root):
    lines = ["a.jpg 0"] * 500 + ["gone.jpg 0"] * 100
    with pytest.raises(DataError) as caught:
        read_list(write(root, "\n".join(lines)), root)
    message = str(caught.value)
    assert "missing file: 100" in message
    assert "list.txt:501:" in message
    assert "and 90 more" in message
    assert message.count("\n") == 11


@pytest.mark.parametrize("count", [3, 300], ids=["asked for each", "listed"])
def test_missing_files_are_found_either_way(root, count):
    for number in range(count):
        (root / f"{number}.png").write_bytes(b"x")
    lines = [f"{number}.png 0" for number in range(count + 1)]
    with pytest.raises(DataError, match=f"list.txt:{count + 1}: no such file: .*/{count}.png"):
        read_list(write(root, "\n".join(lines)), root)


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_empty_list(root, text):
    with pytest.raises(DataError, match="the list is empty"):
        read_list(write(root, text), root)


def test_list_that_is_not_there_names_the_near_one(root):
    write(root, "a.jpg 0")
    with pytest.raises(DataError, match="no such list file. Did you mean: list.txt"):
        read_list(root / "lst.txt", root)


def test_folder_that_is_not_there_is_one_mistake(root):
    with pytest.raises(DataError, match="image_root .* is no folder"):
        read_list(write(root, "a.jpg 0\n" * 100), root / "elsewhere")


def test_other_encoding_names_the_line(root):
    with pytest.raises(DataError, match=r"list.txt:2: not UTF-8"):
        read_list(write(root, "a.jpg 0\n狗.jpg 1\n", "gbk"), root)


def test_relabel_mapping_is_that_of_the_list_given(root):
    train = write(root, "a.jpg 10\na.jpg 30\na.jpg 20\n")
    mapping = class_mapping(train)
    assert mapping == {10: 0, 20: 1, 30: 2}
    other = root / "val.txt"
    other.write_text("a.jpg 30\na.jpg 20\n")
    assert read_list(other, root, mapping=mapping, class_num=3).labels.tolist() == [2, 1]
    other.write_text("a.jpg 30\na.jpg 40\n")
    with pytest.raises(DataError, match=r"val.txt:2: label 40 does not occur"):
        read_list(other, root, mapping=mapping)


@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1).map(lambda s: f"a {s} b"),
    label=st.integers(0, 999),
    gap=st.sampled_from([" ", "\t", "  ", " \t"]),
)
def test_any_name_survives(tmp_path_factory, name, label, gap):
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_text(f"{name}{gap}{label}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:  # the file is not there: the message shows what was read
        read_list(path, path.parent, class_num=1000)
    assert str(caught.value).endswith(f"no such file: {path.parent}/{name.strip()}")


def test_images_of_a_folder_a_list_and_one_file(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.webp", "sub/d.TIFF", "e.jpeg", "notes.md", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [name.removeprefix(f"{tmp_path}/") for name in list_images(tmp_path)]
    assert found == ["a.png", "b.JPG", "e.jpeg", "sub/c.webp", "sub/d.TIFF"]
    (tmp_path / "some.txt").write_text(f"a.png 3\n\nsub/c.webp\n{tmp_path}/b.JPG\n")
    assert [n.rsplit("/", 1)[1] for n in list_images(tmp_path / "some.txt")] == ["a.png", "c.webp", "b.JPG"]
    assert list_images(str(tmp_path / "a.png")) == [str(tmp_path / "a.png")]
    assert len(list_images([tmp_path / "a.png", tmp_path / "sub"])) == 3


def test_no_images_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no such file or folder. Did you mean: a.png"):
        list_images(tmp_path / "b.png")
    (tmp_path / "some.txt").write_text("a.png\nz.png\n")
    with pytest.raises(DataError, match="some.txt:2: no such file: z.png"):
        list_images(tmp_path / "some.txt")
    with pytest.raises(DataError, match="list is empty"):
        list_images([])
