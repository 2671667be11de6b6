"""List files: every spelling that is fine, and every mistake with its line."""

from __future__ import annotations

import re
import tracemalloc
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import list_images, lists
from ppcls.data.lists import class_mapping, read_list
from ppcls.errors import DataError
from ppcls.texts import lines_of


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
    assert list(found.names) == ["a.jpg", "b c.jpg", "子/图 片 🐱.png"]
    assert found.labels.tolist() == [0, 1, 2]
    assert found.labels.dtype == np.int32


def test_delimiter_and_absolute_paths(root):
    found = read_list(write(root, f"b c.jpg,1\n{root}/a.jpg,0\n"), root, delimiter=",")
    assert list(found.names) == ["b c.jpg", f"{root}/a.jpg"]


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


def test_a_header_of_a_list_with_names_of_classes_is_named(root):
    text = "filename,class\na.jpg,cat\n"
    (found,) = messages(write(root, text), root, delimiter=",", class_names=["cat", "class"])
    assert found.endswith("if this line is a header, take it away, because a list has none")


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_empty_list(root, text):
    with pytest.raises(DataError, match="the list is empty"):
        read_list(write(root, text), root)


def test_what_is_there_but_no_folder_is_not_its_own_remedy(root):
    with pytest.raises(DataError, match=r"a\.jpg is no folder$"):
        read_list(write(root, "b c.jpg 0\n"), root / "a.jpg")


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
    name=st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\\"), min_size=1
    ).map(lambda s: f"a {s} b"),
    label=st.integers(0, 999),
    gap=st.sampled_from([" ", "\t", "  ", " \t"]),
)
def test_any_name_survives(tmp_path_factory, name, label, gap):
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_text(f"{name}{gap}{label}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:  # the file is not there: the message shows what was read
        read_list(path, path.parent, class_num=1000)
    assert str(caught.value).endswith(f"no such file: {path.parent}/{name.strip()}")


def messages(path, root, **options):
    """Return the text of each mistake in a list."""
    with pytest.raises(DataError) as caught:
        read_list(path, root, **options)
    return re.findall(r"list\.txt:\d+: (.*)", str(caught.value))


@pytest.mark.parametrize(
    "written",
    [
        "sub\\d.jpg",
        ".\\sub\\d.jpg",
        "C:\\photos\\sub\\d.jpg",
        "c:/photos/sub/d.jpg",
        "\\\\server\\x\\sub\\d.jpg",
    ],
)
def test_paths_of_windows_are_named_as_they_are_written_here(root, written):
    (found,) = messages(write(root, f"{written} 0\n"), root)
    assert found.endswith("it is a path of Windows: write sub/d.jpg, which exists")
    (root / "sub/d.jpg").unlink()
    (found,) = messages(write(root, f"{written} 0\n"), root)
    assert found.endswith("it is a path of Windows: write it with / and from image_root on")


@pytest.mark.parametrize(("here", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_the_other_unicode_form_of_a_missing_file_is_named(root, here, listed):
    folder, name = (unicodedata.normalize(form, "Häuser") for form in (here, listed))
    (root / folder).mkdir()
    (root / folder / "1.jpg").write_bytes(b"x")
    path = write(root, f"{name}/1.jpg 0\n")
    (found,) = messages(path, root)
    assert f"{name}/1.jpg. The same name exists in another Unicode form ({here}, " in found
    for missing in (lambda: list_images(path), lambda: list_images(root / name)):
        with pytest.raises(DataError, match=rf"The same name exists in another Unicode form \({here}, "):
            missing()


def test_paths_of_windows_in_what_is_searched_for(root, monkeypatch):
    monkeypatch.chdir(root)
    path = write(root, "sub\\d.jpg 3\n")
    with pytest.raises(DataError, match="list.txt:1: no such file: .*: write sub/d.jpg, which exists"):
        list_images(path)
    for missing in (lambda: list_images(".\\sub"), lambda: read_list(path, ".\\sub")):
        with pytest.raises(DataError, match=r"written for Windows: ./sub exists, write / for"):
            missing()
    with pytest.raises(DataError, match=r"C:.photos is a path of Windows, which this system does not have"):
        list_images("C:\\photos")


@pytest.mark.parametrize(
    ("inside", "written"), [("sub", "sub/d.jpg"), ("", "{root}/sub/d.jpg"), (".", "./{root}/a.jpg")]
)
def test_an_image_root_that_stands_in_the_list_too_is_named(root, inside, written):
    folder = root / inside
    written = written.format(root=root.name)
    (found,) = messages(write(root, f"{written} 0\n"), folder)
    rest = written.rpartition(f"{root.name if inside != 'sub' else 'sub'}/")[2]
    assert found.endswith(f"image_root {folder} is put before every path, so write {rest}")
    (found,) = messages(write(root, "sub/none.jpg 0\n"), folder)
    assert found == f"no such file: {folder}/sub/none.jpg"


@pytest.mark.parametrize(
    "labels", ["0,1,0", "0,1", "[0, 1]", "(1)", "0.0,1.0", "0|2", "0 1", "0 0 1 0", "0 9", "0\t1"]
)
@pytest.mark.parametrize("gap", [" ", "\t"])
def test_several_labels_are_not_supported(root, labels, gap):
    (found,) = messages(write(root, f"sub/d.jpg{gap}{labels}\n"), root, class_num=4)
    assert found.startswith("several labels (")
    assert found.endswith("multi-label lists are not supported; give each image one class")


def test_labels_beyond_all_numbers_and_other_delimiters(root):
    first, second = messages(write(root, f"a.jpg {'9' * 5000}\na.jpg,0\n"), root)
    assert len(first) < 600
    assert "the label must be a whole number, got '999" in first
    assert second == "expected a path and a label, got 'a.jpg,0'; set delimiter: ',' in the dataset"
    with pytest.raises(DataError, match="list.txt:1: the label must be a whole number"):
        class_mapping(root / "list.txt")


@pytest.mark.parametrize(
    ("codec", "message"), [("utf-16", "not UTF-8 but UTF-16"), ("cp1252", "as Windows-1252")]
)
def test_other_encodings_are_named(root, codec, message):
    path = write(root, "a.jpg 0\né 1\n", codec)
    with pytest.raises(DataError, match=f"{message}.*save the list as UTF-8"):
        read_list(path, root)


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
    with pytest.raises(
        DataError, match="some.txt:2: no such file: z.png; paths start from the folder of the list"
    ):
        list_images(tmp_path / "some.txt")
    with pytest.raises(DataError, match="list is empty"):
        list_images([])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg, 0", "no such file: {root}/a.jpg,; a.jpg exists: set delimiter: ',' in the dataset"),
        ("a.jpg ; 0", "no such file: {root}/a.jpg ;; a.jpg exists: set delimiter: ';' in the dataset"),
        ('"a.jpg" 0', 'no such file: {root}/"a.jpg"; a.jpg exists: take the quotes away'),
        ("'b c.jpg' 0", "no such file: {root}/'b c.jpg'; b c.jpg exists: take the quotes away"),
        (
            "set/train/a.jpg 0",
            "no such file: {root}/set/train/a.jpg; but a.jpg exists below image_root {root}",
        ),
        ("set/z.jpg 0", "no such file: {root}/set/z.jpg"),
    ],
)
def test_a_file_that_is_there_under_a_similar_name_is_named(root, line, message):
    assert messages(write(root, f"{line}\n"), root) == [message.format(root=root)]


def test_lines_may_end_as_on_old_macs(root):
    found = read_list(write(root, "a.jpg 0\rb c.jpg 1\r"), root)
    assert list(found.names) == ["a.jpg", "b c.jpg"]


@given(
    st.lists(st.sampled_from(["a.jpg 1", "", " ", "图.jpg 0", "\x0b"]), max_size=12),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 9),
)
def test_lines_are_the_same_when_a_text_is_split_piece_by_piece(lines, end, at_a_time):
    text = end.join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "_SPLIT", at_a_time)
        assert list(lists._lines(text)) == lines_of(text)


def test_a_long_list_needs_little_more_memory_than_its_text(tmp_path, monkeypatch):
    """Names, lines and numbers as Python objects took nine times the memory of the text."""
    monkeypatch.setattr(lists, "_SPLIT", 1 << 13)  # as short, compared with the list, as for a long one
    monkeypatch.setattr(lists, "_AT_A_TIME", 200)
    folders = [tmp_path / f"n{number:08d}" for number in range(4)]
    lines = []
    for folder in folders:
        folder.mkdir()
        for number in range(50):
            (folder / f"image_{number:08d}.jpg").touch()
            lines.append(f"{folder.name}/image_{number:08d}.jpg {number % 7}\n")
    path = tmp_path / "list.txt"
    path.write_text("".join(lines) * 50)
    path.with_name("short.txt").write_text(lines[0])
    read_list(path.with_name("short.txt"), tmp_path)  # what is only made once does not count
    tracemalloc.start()
    found = read_list(path, tmp_path)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.names) == 10_000
    assert highest < 5 * path.stat().st_size
