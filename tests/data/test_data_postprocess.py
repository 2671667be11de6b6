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


def test_a_class_without_a_name_drops_nothing(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("0,hen\n2,kite, red\n")
    postprocess = build_postprocess(
        {"name": "Topk", "topk": 3, "class_id_map_file": str(path), "delimiter": ","}
    )
    assert postprocess(ROWS)[0]["label_names"] == ["1", "kite, red", "hen"]


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
