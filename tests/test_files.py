"""Files that are replaced together: the old ones or the new ones, at whatever operation a process dies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ppcls import files
from ppcls.errors import WeightsError
from ppcls.files import FileSet, write_atomic

NAMES = ("data", "stale", "program")


class Killed(BaseException):
    pass


def file_set(folder: Path) -> FileSet:
    return FileSet(folder, "set", NAMES, last=("program",))


def save(folder: Path, value: str, names: tuple[str, ...] = ("data", "program")) -> None:
    with file_set(folder).replacing() as stage:
        for name in (*names, "extra"):
            (stage / name).write_text(value)


def content(folder: Path) -> dict[str, str]:
    """Return what a reader that asks the set finds."""
    found = {name: file_set(folder).place(name) for name in (*NAMES, "extra")}
    return {name: path.read_text() for name, path in found.items() if path is not None}


def dying(monkeypatch: pytest.MonkeyPatch, stop_at: int | None, action: Callable[[], None]) -> int:
    """Run `action` and die before file operation number `stop_at`, as kill -9 does: nothing runs afterwards.

    Returns:
        how many operations there were.
    """
    count, dead = 0, False

    def counted(function):  # noqa: ANN001, ANN202
        def call(*args, **kwargs):  # noqa: ANN002, ANN003, ANN202
            nonlocal count, dead
            if dead or count == stop_at:
                dead = True
                raise Killed
            count += 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, names in (
            (files.os, ("replace", "fsync")),
            (files.shutil, ("rmtree",)),
            (Path, ("unlink", "rmdir", "mkdir", "write_text", "open")),
        ):
            for name in names:
                patch.setattr(owner, name, counted(getattr(owner, name)))
        if stop_at is None:
            action()
        else:
            with pytest.raises(Killed):
                action()
    return count


OLD = {"data": "old", "stale": "old", "program": "old", "extra": "old"}
NEW = {"data": "new", "program": "new", "extra": "new"}


def test_killed_at_any_operation_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "count", "old", NAMES)
    operations = dying(monkeypatch, None, lambda: save(tmp_path / "count", "new"))
    assert content(tmp_path / "count") == NEW
    assert operations > 15
    seen = []
    for stop in range(operations):
        folder = tmp_path / str(stop)
        save(folder, "old", NAMES)
        (folder / "mine.txt").write_text("mine")
        dying(monkeypatch, stop, lambda folder=folder: save(folder, "new"))
        found = content(folder)
        assert found in (OLD, NEW), stop
        seen.append(found)
        # A reader that knows nothing of sets never meets a program beside data of another age.
        plain = {p.name: p.read_text() for p in folder.iterdir() if p.is_file() and p.name in OLD}
        if "program" in plain:
            assert plain["program"] == plain["data"], stop
        # The next start finishes or forgets, and leaves nothing behind; only a dead process's folder goes.
        for left in folder.glob(".set.*.tmp"):
            left.rename(folder / f".set.{dead_process()}.tmp")
        file_set(folder).finish()
        assert content(folder) == found
        assert {p.name for p in folder.iterdir()} == {*found, "mine.txt"}
        assert all((folder / name).read_text() == value for name, value in found.items())
    assert OLD in seen
    assert NEW in seen
    assert seen == sorted(seen, key=[OLD, NEW].index)  # once the new set counts, it keeps counting


def dead_process() -> int:
    return 99_999_999  # more than any system hands out


def test_a_failure_leaves_the_old_set(tmp_path: Path) -> None:
    save(tmp_path, "old", NAMES)

    def fail() -> None:
        with file_set(tmp_path).replacing() as stage:
            (stage / "data").write_text("new")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert content(tmp_path) == OLD
    assert {p.name for p in tmp_path.iterdir()} == set(OLD)


def test_a_folder_in_the_place_of_a_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    save(tmp_path, "old", NAMES)
    (tmp_path / NAMES[0]).unlink()
    (tmp_path / NAMES[0]).mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(IsADirectoryError, match=NAMES[0]):
        save(tmp_path, "new", NAMES)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert [(tmp_path / name).read_text() for name in NAMES[1:]] == ["old"] * len(NAMES[1:])


def test_a_folder_is_made_and_goes_again_with_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="no"), file_set(folder).replacing():
        raise ValueError("no")
    assert not folder.exists()
    save(folder, "new")
    assert content(folder) == NEW


def test_a_process_that_still_writes_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path, "old", NAMES)
    alive, gone = tmp_path / f".set.{os.getppid()}.tmp", tmp_path / f".set.{dead_process()}.tmp"
    other = tmp_path / ".set.notes.tmp"
    for folder in (alive, gone):
        folder.mkdir()
        (folder / "data").write_text("half")
    other.write_text("mine")
    save(tmp_path, "new")
    assert content(tmp_path) == NEW
    assert alive.is_dir()
    assert other.exists()
    assert not gone.exists()


@pytest.mark.parametrize("manifest", ["", "7", '["../../outside", "data"]', "{}", "[1]"])
def test_a_damaged_list_of_new_files_touches_nothing_outside(tmp_path: Path, manifest: str) -> None:
    folder = tmp_path / "folder"
    save(folder, "old", NAMES)
    (tmp_path / "outside").write_text("outside")
    (folder / ".set.new").mkdir()
    (folder / ".set.new" / "files.json").write_text(manifest)
    save(folder, "new")
    assert content(folder) == NEW
    assert (tmp_path / "outside").read_text() == "outside"


def test_one_file_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, value: bytes) -> None:
        write_atomic(folder / "report.json", lambda stream: stream.write(value))

    (tmp_path / "count").mkdir()
    operations = dying(monkeypatch, None, lambda: write(tmp_path / "count", b"new"))
    assert operations >= 4
    for stop in range(operations):
        folder = tmp_path / str(stop)
        folder.mkdir()
        write(folder, b"old")
        dying(monkeypatch, stop, lambda folder=folder: write(folder, b"new"))
        assert (folder / "report.json").read_bytes() in (b"old", b"new")
        for left in folder.glob(".report.json.*.tmp"):
            left.rename(folder / f".report.json.{dead_process()}.tmp")
        write(folder, b"next")
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"report.json": b"next"}


def test_names_with_signs_of_patterns(tmp_path: Path) -> None:
    left = tmp_path / f".a[1]*.json.{dead_process()}.tmp"
    left.write_text("")
    write_atomic(tmp_path / "a[1]*.json", lambda stream: stream.write(b"x"))
    assert [p.name for p in tmp_path.iterdir()] == ["a[1]*.json"]


def test_a_failed_write_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, lambda stream: stream.write(b"old"))

    def full(stream: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WeightsError, match=r"cannot write .*file: No space left"):
        write_atomic(target, full)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"old"}


def test_the_list_of_files_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSet, "finish", lambda self: None)
    save(tmp_path, "new")
    assert json.loads((tmp_path / ".set.new" / "files.json").read_text()) == ["extra", "data", "program"]
    shutil.rmtree(tmp_path / ".set.new")


def test_everything_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after a rename, which a killed process cannot show, must not leave empty files."""
    synced: set[int] = set()
    fsync, replace = os.fsync, os.replace

    def record(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def check(source: Path, target: Path) -> None:
        needed = [source, *source.iterdir()] if source.is_dir() else [source]
        assert {path.name for path in needed if path.stat().st_ino not in synced} == set()
        replace(source, target)
        synced.discard(target.parent.stat().st_ino)  # the rename itself is not on the disk yet

    monkeypatch.setattr(files.os, "fsync", record)
    monkeypatch.setattr(files.os, "replace", check)
    save(tmp_path / "set", "new")
    write_atomic(tmp_path / "one" / "report.json", lambda stream: stream.write(b"new"))
    for folder in (tmp_path / "set", tmp_path / "one"):
        assert folder.stat().st_ino in synced
