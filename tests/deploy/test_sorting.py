"""Images in folders by class: safe names, nothing lost, nothing twice, also after a kill."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ppcls.deploy.sorting import RECORD, Sorter, require_sort_folder, safe_name
from ppcls.errors import ConfigError, DataError

NAMES = ["cat", "dog", "a/b", "con", "..", "Cat food"]


def result(path: Path | str, number: int, *labels: str) -> dict[str, Any]:
    return {"class_ids": [number], "scores": [0.9], "file_name": str(path), "label_names": list(labels)}


def images(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return [folder / name for name in names]


def sort(root: Path, results: list[dict[str, Any]], kind: Any = "copy", names: Any = NAMES) -> dict[str, int]:
    with Sorter(root, kind, lambda: names).open() as sorter:
        for one in results:
            sorter(one)
    return dict(sorter.counts)


def contents(root: Path) -> dict[str, bytes]:
    found = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_each_image_lies_in_the_folder_of_its_class(tmp_path: Path) -> None:
    a, b, c, d, e = images(tmp_path / "in", "1.png", "x/1.png", "2.png", "3.png", "4.png")
    results = [result(a, 0), result(b, 0), result(c, 2), result(d, 3), result(e, -1, "unknown")]
    bad = result(e, 0) | {"error": "is empty"}
    assert sort(tmp_path / "out", [*results, bad]) == {"sorted": 5, "unreadable": 1}
    want = {
        "cat/1.png": b"1.png",
        "cat/1_2.png": b"x/1.png",
        "a_b/2.png": b"2.png",
        "_con/3.png": b"3.png",
        "unknown/4.png": b"4.png",
    }
    assert contents(tmp_path / "out") == want
    assert sort(tmp_path / "out", results) == {"already there": 5}
    assert sort(tmp_path / "out", [result(b, 1), *results[2:]]) == {"moved": 1, "already there": 3}
    want["dog/1.png"] = want.pop("cat/1_2.png")
    assert contents(tmp_path / "out") == want


def test_files_of_others_stay(tmp_path: Path) -> None:
    (a,) = images(tmp_path / "in", "1.png")
    images(tmp_path / "out", "cat/1.png", "cat/1_2.png")
    assert sort(tmp_path / "out", [result(a, 0)]) == {"sorted": 1}
    assert contents(tmp_path / "out") == {
        "cat/1.png": b"cat/1.png",
        "cat/1_2.png": b"cat/1_2.png",
        "cat/1_3.png": b"1.png",
    }


def test_links(tmp_path: Path) -> None:
    a, b = images(tmp_path / "in", "1.png", "y/1.png")
    results = [result(a, 5), result(b, 5)]
    assert sort(tmp_path / "out", results, "link") == {"sorted": 2}
    assert os.readlink(tmp_path / "out" / "Cat food" / "1_2.png") == str(b)
    (tmp_path / "out" / RECORD).unlink()
    assert sort(tmp_path / "out", results, "link") == {"already there": 2}
    assert sort(tmp_path / "out", [result(b, 0)], "link") == {"moved": 1}
    assert os.readlink(tmp_path / "out" / "cat" / "1.png") == str(b)


def test_folders_without_names_or_with_names_that_look_the_same(tmp_path: Path) -> None:
    a, b = images(tmp_path / "in", "1.png", "2.png")
    sort(tmp_path / "ids", [result(a, 0), result(b, 12)], names=None)
    assert contents(tmp_path / "ids").keys() == {"0/1.png", "12/2.png"}
    sort(tmp_path / "same", [result(a, 0), result(b, 1)], names=["Crane", "crane"])
    assert contents(tmp_path / "same").keys() == {"0_Crane/1.png", "1_crane/2.png"}
    sort(tmp_path / "own", [result(a, 0, "no"), result(b, 1, "no")], names=None)
    assert contents(tmp_path / "own").keys() == {"0_no/1.png", "1_no/2.png"}
    sort(tmp_path / "taken", [result(a, -1, "Cat")])
    assert contents(tmp_path / "taken").keys() == {"-1_Cat/1.png"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../b", "\0", "x" * 300, "猫" * 200, "NUL.txt", "a.", ".x"]
)
def test_safe_names(name: str, tmp_path: Path) -> None:
    safe = safe_name(name)
    (tmp_path / safe).mkdir()
    assert (tmp_path / safe).parent.resolve() == tmp_path.resolve()
    assert [path.name for path in tmp_path.iterdir()] == [safe]
    assert not safe.startswith(".")


def test_wrong_folders(tmp_path: Path) -> None:
    (a,) = images(tmp_path / "in", "1.png")
    for path, inputs, words in (
        (str(a), [], "expected a folder"),
        ("", [], "expected a folder"),
        (str(a / "x"), [], "Not a directory"),
        (str(tmp_path / "in" / "sorted"), [str(tmp_path / "in")], "it lies in"),
        (str(tmp_path / "in"), [str(tmp_path / "in")], "it lies in"),
        (str(tmp_path / "in"), [str(a)], "it holds"),
    ):
        with pytest.raises(ConfigError, match=words):
            require_sort_folder(path, inputs)
    with pytest.raises(ConfigError, match="it holds"):
        sort(tmp_path / "in", [result(a, 0)])
    with pytest.raises(ConfigError, match="without class_ids"):
        sort(tmp_path / "out", [{"best": 1, "file_name": str(a)}])
    with Sorter(tmp_path / "out", "copy", lambda: None).open():
        pytest.raises(ConfigError, sort, tmp_path / "out", []).match("another process")
    outside = json.dumps({"file_name": str(a), "folder": "../in", "name": "1.png"})
    for line in ("{}", "[]", "x", outside):
        (tmp_path / "out" / RECORD).write_text(f"{line}\n")
        with pytest.raises(DataError, match=r"sorted\.jsonl:1: not a line"):
            sort(tmp_path / "out", [])


def test_a_folder_around_the_images_is_left_as_it_was(tmp_path: Path) -> None:
    images(tmp_path / "data", "cat/1.png")
    for name in (tmp_path / "data", tmp_path / "data/cat", tmp_path / "data/cat/1.png"):
        with pytest.raises(ConfigError, match="whose images are predicted"):
            require_sort_folder(str(tmp_path / "data"), [str(name)])
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cat"]


class FullAtFirst(io.FileIO):
    """A file on a disk that has space for so many bytes, and for all once that was too little."""

    def __init__(self, path: Path, space: int) -> None:
        super().__init__(path, "a")
        self.space: int | None = space

    def write(self, data: Any) -> int:
        space, self.space = self.space, None
        if space == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:space])


@contextmanager
def on_a_full_disk(root: Path, kind: Any, space: int) -> Iterator[Sorter]:
    with Sorter(root, kind, lambda: NAMES).open() as sorter:
        sorter._record.close()
        sorter._record = FullAtFirst(root / RECORD, space)
        try:
            yield sorter
        finally:
            sorter._record.close()


@pytest.mark.parametrize("space", [0, 9])
@pytest.mark.parametrize("kind", ["copy", "link"])
def test_on_a_full_disk_the_record_lists_what_is_there(kind: Any, space: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (a, b) = images(tmp_path / "in", "1.png", "2.png")
    full = rf"^--sort-into {out}: {a}: No space left on device$"
    with pytest.raises(DataError, match=full) as caught, on_a_full_disk(out, kind, space) as sorter:
        sorter(result(a, 0))
    assert contents(out) == {}
    assert not sorter.counts
    assert (out / RECORD).read_bytes() == b""
    assert sort(out, [result(a, 0)], kind) == {"sorted": 1}  # the lock is free
    assert caught.value.__traceback__ is not None  # until here, it keeps the lock alive
    record = (out / RECORD).read_bytes()
    with on_a_full_disk(out, kind, space) as sorter:
        with pytest.raises(DataError, match=full):
            sorter(result(a, 1))
        assert list(contents(out)) == ["cat/1.png"]
        assert (out / RECORD).read_bytes() == record
        sorter(result(b, 0))
    assert sort(out, [result(a, 1), result(b, 0)], kind) == {"moved": 1, "already there": 1}
    assert contents(out).keys() == {"dog/1.png", "cat/2.png"}


def test_half_a_copy_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        target.write_bytes(b"1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (a,) = images(tmp_path / "in", "1.png")
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(DataError, match="No space left"):
        sort(tmp_path / "out", [result(a, 0)])
    assert [path.name for path in (tmp_path / "out").glob("*.tmp")] == []


def test_a_killed_sorting_continues(tmp_path: Path) -> None:
    paths = images(tmp_path / "in", *(f"{folder}/{number}.png" for folder in "abc" for number in range(40)))
    results = [result(path, int(path.stem) % 2) for path in paths]
    code = (
        "import sys, json; from pathlib import Path; from ppcls.deploy.sorting import Sorter\n"
        f"with Sorter(Path({str(tmp_path / 'out')!r}), 'copy', lambda: ['even', 'odd']).open() as sorter:\n"
        "    print('open', flush=True)\n"
        "    for one in json.loads(sys.stdin.read()): sorter(one)\n"
        "    input()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    process.stdin.write(json.dumps(results).encode())
    process.stdin.close()
    while len(contents(tmp_path / "out")) < 20:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (tmp_path / "out" / RECORD).open("a") as record:
        record.write('{"file_name": "ha')  # half a line
    counts = sort(tmp_path / "out", results, names=["even", "odd"])
    assert counts["already there"] + counts.get("sorted", 0) == 120
    assert sorted(contents(tmp_path / "out").values()) == sorted(path.read_bytes() for path in paths)
    assert sort(tmp_path / "out", results, names=["even", "odd"]) == {"already there": 120}
