"""A long list is checked once, and again after any change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ppcls.data import list_cache, lists
from ppcls.data.lists import read_list
from ppcls.errors import DataError

LONG_AGO = 1_000_000_000


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of images in two folders, all of which were last changed long ago."""
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(list_cache, "_LEAST_BYTES", 0)
    monkeypatch.setattr(list_cache, "_SETTLED_SECONDS", -1e9)  # the list's own ctime cannot be set
    root = tmp_path / "images"
    for folder in ("one", "two"):
        (root / folder).mkdir(parents=True)
        for number in range(3):
            (root / folder / f"图{number}.jpg").touch()
    lines = [f"{folder}/图{n}.jpg {label}" for label, folder in enumerate(["one", "two"]) for n in range(3)]
    (root / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    age(root)
    return root


def age(root: Path) -> None:
    for path in [root, *root.iterdir()]:
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were checked."""
    seen: list[str] = []
    present = lists._present

    def note(folder: str, names: list[str]) -> set[str]:
        seen.append(os.path.basename(os.path.normpath(folder)))
        return present(folder, names)

    monkeypatch.setattr(lists, "_present", note)
    return seen


def read(root: Path, **options) -> tuple[list[str], list[int]]:
    found = read_list(root / "list.txt", root, **options)
    assert found.labels.dtype == np.int32
    return list(found.names), list(found.labels)


def stored(root: Path) -> list[Path]:
    return [*(root.parent / "home" / "lists").glob("*.list")]


def test_an_unchanged_list_is_checked_once(data: Path, checks: list[str]) -> None:
    first = read(data, class_num=2)
    assert checks == ["one", "two"]
    assert read(data, class_num=2) == first
    assert checks == ["one", "two"]
    assert len(stored(data)) == 1


@pytest.mark.parametrize("options", [{"class_num": 3}, {"mapping": {0: 1, 1: 0}}, {"delimiter": " "}])
def test_a_list_that_is_read_in_another_way_is_checked_anew(
    data: Path, checks: list[str], options: dict
) -> None:
    names, labels = read(data)
    found, changed = read(data, **options)
    assert checks == ["one", "two"] * 2
    assert found == names
    assert changed == ([1 - label for label in labels] if "mapping" in options else labels)
    with pytest.raises(DataError, match="label out of range"):
        read(data, class_num=1)


def test_a_missing_image_is_found_although_the_list_is_unchanged(data: Path, checks: list[str]) -> None:
    read(data)
    (data / "two" / "图1.jpg").unlink()
    with pytest.raises(DataError, match="no such file"):
        read(data)


def test_a_missing_folder_is_found(data: Path) -> None:
    read(data)
    (data / "two").rename(data / "three")
    with pytest.raises(DataError, match="no such file"):
        read(data)


def test_a_changed_list_is_read_anew(data: Path) -> None:
    read(data)
    text = (data / "list.txt").read_text("utf-8")
    (data / "list.txt").write_text(text.replace("图2.jpg 1", "图2.jpg 0"), "utf-8")
    age(data)  # same size, same time: the system still knows
    assert read(data)[1] == [0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "other"])
def test_damaged_files_are_ignored_and_written_anew(data: Path, checks: list[str], damage: str) -> None:
    expected = read(data)
    (file,) = stored(data)
    whole = file.read_bytes()
    for place in range(0, len(whole), 97) if damage == "bit" else [len(whole) // 2]:
        content = bytearray(whole)
        content[place] ^= 4
        changed = {"empty": b"", "half": whole[:place], "bit": bytes(content), "other": b"\x80\x04N."}[damage]
        file.write_bytes(changed)
        assert read(data) == expected
        if damage != "bit":
            assert file.read_bytes() != changed


def test_what_changed_a_moment_ago_is_not_stored(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_cache, "_SETTLED_SECONDS", 3.0)
    read(data)
    assert not stored(data)


def test_a_cache_that_cannot_be_written_is_no_mistake(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data.parent / "file").touch()
    monkeypatch.setenv("PPCLS_HOME", str(data.parent / "file"))
    assert read(data) == read(data)


def test_short_lists_and_wrong_ones_are_not_stored(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "one" / "图0.jpg").unlink()
    with pytest.raises(DataError):
        read(data)
    (data / "one" / "图0.jpg").touch()
    monkeypatch.setattr(list_cache, "_LEAST_BYTES", 1 << 20)
    read(data)
    assert not stored(data)


def test_only_the_lists_used_last_are_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_cache, "_KEPT", 2)
    for classes in range(2, 6):
        read(data, class_num=classes)
    assert len(stored(data)) == 2
