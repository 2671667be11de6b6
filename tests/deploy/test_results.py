"""What is written of results: JSON, JSON lines and CSV, complete or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppcls.data import ImageError, Topk
from ppcls.deploy.batches import ResultOptions, classified, result_batches
from ppcls.deploy.images import expand_images
from ppcls.deploy.results import require_result_file, write_results
from ppcls.errors import ConfigError, DataError

NAMES = ["cat", "a, b", "猫\n2"]
ODD = os.fsdecode(b"caf\xe9/x.png")  # no UTF-8


def results() -> list[dict[str, Any]]:
    rows = np.float32([[0.7, 0.2, 0.1], [0.25, 0.35, 0.4]])
    post = Topk(topk=2, label_list=NAMES, threshold=0.5)
    found = classified(rows, ["a.png", ODD], post, all_probabilities=True)
    return [{"class_ids": [], "scores": [], "file_name": "z", "label_names": [], "error": "is empty"}, *found]


def test_json_and_json_lines_hold_the_results_as_they_are(tmp_path: Path) -> None:
    for name in ("x.json", "X.JSONL"):
        write_results(tmp_path / name, iter(results()))
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == results()
    lines = (tmp_path / "X.JSONL").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == results()
    assert "猫" in lines[1] or "猫" in lines[2] or "cat" in lines[1]
    write_results(tmp_path / "x.json", iter([]))
    assert json.loads((tmp_path / "x.json").read_text()) == []


def test_csv_has_one_row_for_each_image(tmp_path: Path) -> None:
    write_results(tmp_path / "x.csv", iter(results()), topk=2)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        broken, known, unknown = csv.DictReader(file)
    assert broken["file_name"] == "z"
    assert broken["error"] == "is empty"
    assert broken["class_id"] == broken["probability_0"] == ""
    assert (known["class_id"], known["label_name"], known["score"]) == ("0", "cat", "0.7")
    assert (known["class_id_2"], known["label_name_2"], known["score_2"]) == ("1", "a, b", "0.2")
    assert [known[f"probability_{number}"] for number in range(3)] == ["0.7", "0.2", "0.1"]
    assert (unknown["class_id"], unknown["label_name"], unknown["score"]) == ("-1", "unknown", "0.4")
    assert unknown["class_id_2"] == ""
    assert unknown["file_name"] == "caf\\udce9/x.png"


def test_csv_refuses_results_of_another_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gives best, file_name; write a \.json"):
        write_results(tmp_path / "x.csv", iter([{"best": 3, "file_name": "a"}]))
    write_results(tmp_path / "x.json", iter([{"best": np.int64(3), "all": np.arange(2), "at": Path("a")}]))
    assert json.loads((tmp_path / "x.json").read_text()) == [{"best": 3, "all": [0, 1], "at": "a"}]
    for odd in (object(), float("nan")):
        with pytest.raises(ConfigError, match="JSON cannot hold"):
            write_results(tmp_path / "y.jsonl", iter([{"best": odd}]))
    assert not (tmp_path / "y.jsonl").exists()


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv"])
def test_an_error_leaves_the_earlier_file(tmp_path: Path, name: str) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield from results()
        raise ImageError("b.png: is empty")

    (tmp_path / name).write_text("earlier")
    with pytest.raises(ImageError):
        write_results(tmp_path / name, failing())
    assert (tmp_path / name).read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_wrong_files(tmp_path: Path) -> None:
    for name, words in (
        ("x.txt", "suffix decides the format, expected .json, .jsonl or .csv"),
        ("x", "suffix"),
        ("x.jsn", "did you mean x.json"),
        ("", "suffix"),
    ):
        with pytest.raises(ConfigError, match=words):
            require_result_file(name)
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="it is a folder"):
        require_result_file(str(tmp_path / "d.csv"))
    with pytest.raises(ConfigError, match="Not a directory"):
        require_result_file(str(tmp_path / "file" / "x.csv"))
    assert require_result_file(str(tmp_path / "new" / "x.CSV")).name == "x.CSV"


def test_images_before_an_unreadable_one_have_their_results() -> None:
    def read(name: str, _: object) -> np.ndarray:
        if name == "3":
            raise ImageError("3: is empty")
        return np.zeros(1)

    images = [(str(number), str(number)) for number in range(6)]
    seen: list[dict[str, Any]] = []

    def answer(_: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
        return [{"file_name": name} for name in names]

    batches = result_batches(images, read, answer, batch_size=5)
    seen += next(batches)
    with pytest.raises(ImageError, match=r"3: is empty\. Remove it, or leave"):
        next(batches)
    assert [result["file_name"] for result in seen] == ["0", "1", "2"]
    skipped = [r for b in result_batches(images, read, answer, batch_size=2, on_error="skip") for r in b]
    assert [result["file_name"] for result in skipped] == list("012345")
    assert ["error" in result for result in skipped] == [False, False, False, True, False, False]


def test_images_of_different_sizes_are_named() -> None:
    def read(name: str, _: object) -> np.ndarray:
        return np.zeros([3, 4, int(name)])

    with pytest.raises(
        DataError, match=r"^5: the transforms make it \[3, 4, 5\], and 4 \[3, 4, 4\]; .*ResizeImage"
    ):
        list(result_batches([("4", "4"), ("5", "5")], read, lambda *_: [], batch_size=2))


def test_missing_files_of_a_list_can_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("a.png 3\nmissing.png 1\n")
    with pytest.raises(DataError, match=r"list\.txt:2: no such file"):
        expand_images(str(tmp_path / "list.txt"))
    found = expand_images(str(tmp_path / "list.txt"), skip_missing=True)
    assert [name for name, _ in found] == [str(tmp_path / "a.png"), "missing.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topk": 0}, "topk: 0; expected a whole number"),
        ({"topk": 2.0}, "topk: 2.0; expected"),
        ({"topk": True}, "topk: True; expected"),
        ({"threshold": 1.5}, "threshold: 1.5; expected a probability"),
        ({"threshold": float("nan")}, "threshold: nan; expected"),
        ({"threshold": "0.5"}, "threshold: '0.5'; expected"),
        ({"unknown_name": "  "}, "unknown_name: the name is empty"),
        ({"unknown_name": "x"}, "has no effect without a threshold"),
    ],
)
def test_wrong_wishes(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ResultOptions(**options).applied_to({"name": "Topk"})


def test_wishes_replace_what_the_export_says() -> None:
    said = {"name": "Topk", "topk": 5, "threshold": 0.3}
    assert ResultOptions().applied_to(said) == said
    assert ResultOptions(topk=1, unknown_name="?").applied_to(said) == said | {"topk": 1, "unknown_name": "?"}
    with pytest.raises(
        ConfigError, match="topk: an option of Topk, and here the post-process is ThreshOutput"
    ):
        ResultOptions(topk=1).applied_to({"name": "ThreshOutput", "threshold": 0.3})
    with pytest.raises(ConfigError, match=r"Topk\.unknown_name: class 0 is called 'cat'"):
        Topk(label_list=NAMES, threshold=0.5, unknown_name="cat")


def test_the_threshold_is_compared_with_the_printed_score() -> None:
    (result,) = Topk(threshold=0.9)(np.float32([[0.1, 0.9]]))  # as float32 a little less than 0.9
    assert (result["class_ids"], result["scores"]) == ([1], [0.9])
