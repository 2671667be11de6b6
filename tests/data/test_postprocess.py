"""Results as the tutorial prints them."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data import build_postprocess
from ppcls.errors import ConfigError, DataError

ROWS = np.array([[0.1, 0.6, 0.3], [0.123456789, 0.5, 0.376543211]], np.float32)


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeff0 hen\r\n1 ruffed grouse, partridge\n\n2\tkite\n", encoding="utf-8")
    return path


def test_keys_come_in_order_and_scores_are_rounded(names):
    postprocess = build_postprocess({"name": "Topk", "topk": 2, "class_id_map_file": str(names)})
    first, second = postprocess(ROWS, ["a.jpg", "b.jpg"])
    expected = {
        "class_ids": [1, 2],
        "scores": [0.6, 0.3],
        "file_name": "a.jpg",
        "label_names": ["ruffed grouse, partridge", "kite"],
    }
    assert str(first) == str(expected)
    assert second["scores"] == [0.5, 0.37654]


def test_more_than_there_are_ties_and_no_file(names):
    results = build_postprocess({"name": "Topk", "topk": 5})(np.array([[0.25, 0.5, 0.25]]))
    assert results == [{"class_ids": [1, 0, 2], "scores": [0.5, 0.25, 0.25], "label_names": []}]
    assert build_postprocess(None)(ROWS)[0]["class_ids"] == [1]


def test_a_delimiter_of_ones_own(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("0,hen\n1, duck\n2,kite, red\n")
    postprocess = build_postprocess(
        {"name": "Topk", "topk": 3, "class_id_map_file": str(path), "delimiter": ","}
    )
    assert postprocess(ROWS)[0]["label_names"] == ["duck", "kite, red", "hen"]


def test_names_given_inline_replace_the_file(tmp_path):
    node = {"name": "Topk", "class_id_map_file": str(tmp_path / "none.txt"), "label_list": ["a", "b", "c"]}
    assert build_postprocess(node)(ROWS)[0]["label_names"] == ["b"]
    with pytest.raises(DataError, match="label_list has 3 names, but the network has 4 classes"):
        build_postprocess(node)(np.eye(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 hen\n2 duck\n3 kite\n", "numbered from 1 to 3. Classes count from 0: write them as 0 to 2"),
        (b"0 hen\n2 kite\n", "it has 2 names: there is no name for class 1. Each class from 0 on needs one"),
        (b"0 hen\n1 duck\n1 kite\n", ":3: class 1 has a name in line 2 already .'duck', here 'kite'"),
        ("0 hen\n1 狗\n2 kite\n".encode("gbk"), ":2: not UTF-8 .as GBK the line reads '1 狗'"),
        ("0 hen\n1 duck\n".encode("utf-16"), ":1: not UTF-8 but UTF-16 .* save the list of class names as"),
        (b"0 hen\n1\n", ":2: expected 'id name', got '1' without a name"),
        ("0 hen\n\u0661 duck".encode(), ":2: expected 'id name'"),
        (b"0 hen\n" + b"1" * 5000 + b" duck", ":2: expected 'id name'"),
        (b"0 hen\n999999999 kite\n", "no name for class 1, 2, 3, 4, 5 and 999999993 more"),
        (b"\n \n", "the file is empty; expected 'id name' on a line for each class"),
        (b"\n0 d\0ck\n", ":2: holds zero bytes"),
    ],
)
def test_files_that_do_not_name_each_class_once_are_refused(tmp_path, content, message):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        build_postprocess({"name": "Topk", "class_id_map_file": str(path)})


def test_names_for_other_classes_are_refused_or_left_out(names, caplog):
    postprocess = build_postprocess({"name": "Topk", "class_id_map_file": str(names)})
    with pytest.raises(DataError, match="names.txt has 3 names, but the network has 4 classes"):
        postprocess(np.eye(4))
    packaged = {"name": "Topk", "class_id_map_file": "ppcls/data/labels/imagenet1k_label_list.txt"}
    postprocess = build_postprocess(packaged)
    for _ in range(2):
        assert postprocess(np.eye(4))[0] == {"class_ids": [0], "scores": [1.0], "label_names": []}
    assert caplog.text.count("has 1000 names, but the network has 4 classes; results go without") == 1


def test_names_of_the_package_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("ppcls/utils/imagenet1k_label_list.txt", "ppcls/data/labels/imagenet1k_label_list.txt"):
        postprocess = build_postprocess({"name": "Topk", "class_id_map_file": path})
        assert postprocess(np.eye(1000)[8:9])[0]["label_names"] == ["hen"]


def test_mistakes(tmp_path, names):
    with pytest.raises(DataError, match="nams.txt: no such file. Did you mean: names.txt"):
        build_postprocess({"name": "Topk", "class_id_map_file": str(tmp_path / "nams.txt")})
    names.write_text("0 hen\nkite\n")
    with pytest.raises(DataError, match="names.txt:2: expected 'id name', got 'kite'"):
        build_postprocess({"name": "Topk", "class_id_map_file": str(names)})
    with pytest.raises(ConfigError, match="Topk has no option 'top'"):
        build_postprocess({"name": "Topk", "top": 5})
    with pytest.raises(ConfigError, match="topk must be at least 1"):
        build_postprocess({"name": "Topk", "topk": 0})
