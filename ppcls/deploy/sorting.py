"""Sort images into folders by their predicted class."""

from __future__ import annotations

import errno
import filecmp
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ppcls.data.postprocess import UNKNOWN
from ppcls.errors import ConfigError, DataError
from ppcls.files import require_writable

SortAs = Literal["copy", "link"]
RECORD = ".ppcls-sorted.jsonl"
_LOCK = ".ppcls-sorted.lock"
_STAGE = ".ppcls-sorting.tmp"
_LONGEST = 100  # bytes; file systems allow 255, and a number may be put before
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Placed:
    """Where the copy or link of an image is.

    Attributes:
        folder: name of the class folder.
        name: name in this folder.
    """

    folder: str
    name: str


class Sorter:
    """Puts a copy or link of each image into the folder of its class; the images themselves stay.

    Nothing is overwritten: an image whose name is taken by another one gets a number. What was done is
    recorded in the folder, so that an interrupted sorting continues, and an image with a new class moves.

    Args:
        root: folder of the class folders; it is created.
        kind: ``copy``, or ``link`` for symbolic links to the images.
        names: returns the names of the classes in order of their ids, or None if there are none: then
            folders have ids. It is called when there is a result.

    Attributes:
        counts: number of images that were ``sorted``, ``already there``, ``moved`` or ``unreadable``.
    """

    _record: FileIO

    def __init__(self, root: Path, kind: SortAs, names: Callable[[], Sequence[str] | None]) -> None:
        self.root = root
        self.counts: Counter[str] = Counter()
        self._kind = kind
        self._names = names
        self._folders: dict[int, str] = {}
        self._placed: dict[str, Placed] = {}
        self._taken: dict[Placed, str] = {}

    @contextmanager
    def open(self) -> Iterator[Sorter]:
        """Read the record of an earlier sorting; no other process may sort into the folder meanwhile.

        Raises:
            ConfigError: if another process does.
            DataError: if the folder cannot be written, or the record of an earlier sorting is damaged.
        """
        lock = FileLock(self.root / _LOCK, timeout=0)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            (self.root / _STAGE).unlink(missing_ok=True)
            self._read_record()
            # Without a buffer: a line that could not be written must not be written later after all.
            self._record = (self.root / RECORD).open("ab", buffering=0)
        except Timeout:
            raise ConfigError(f"--sort-into {self.root}: another process is sorting into it") from None
        except OSError as error:
            raise self._error(error) from error
        try:
            with self._record:
                yield self
        finally:
            lock.release()

    def __call__(self, result: dict[str, Any]) -> None:
        """Put the image of a result into its folder.

        Raises:
            ConfigError: if the result does not say a class.
            DataError: if the image cannot be copied.
        """
        if "error" in result:
            self.counts["unreadable"] += 1
            return
        source = os.path.abspath(result["file_name"])
        if _is_below(os.path.dirname(source), self.root):
            raise _misplaced(self.root, f"it holds {source}")
        folder = self._folder(result)
        before = self._placed.get(source)
        try:
            if before is not None and os.path.lexists(self._path(before)):
                if before.folder != folder:
                    self._move(source, before, folder)
                else:
                    self.counts["already there"] += 1
                return
            self._place(source, folder)
        except OSError as error:
            raise self._error(error, source) from error

    def summary(self) -> str:
        """Return what was done, for users."""
        counts = [f"{count} {what}" for what, count in self.counts.items()]
        return f"{', '.join(counts) or 'no images'} ({self._kind})"

    def _error(self, error: OSError, source: str = "") -> DataError:
        about = f"{source}: " if source else ""
        return DataError(f"--sort-into {self.root}: {about}{error.strerror or error}")

    def _folder(self, result: dict[str, Any]) -> str:
        ids = result.get("class_ids")
        if not isinstance(ids, list) or not ids:
            raise ConfigError("--sort-into: this post-process gives results without class_ids")
        if not self._folders:
            self._folders = _class_folders(self._names() or [])
        number, labels = int(ids[0]), result.get("label_names") or []
        if number not in self._folders:
            name = safe_name(str(labels[0])) if labels else str(number)
            taken = {other.casefold() for other in self._folders.values()}
            alone = not labels or (number == UNKNOWN and name.casefold() not in taken)
            self._folders[number] = name if alone else f"{number}_{name}"
        return self._folders[number]

    def _path(self, placed: Placed) -> Path:
        return self.root / placed.folder / placed.name

    def _place(self, source: str, folder: str) -> None:
        (self.root / folder).mkdir(exist_ok=True)
        stage = self.root / _STAGE
        for placed in _candidates(folder, os.path.basename(source)):
            path = self._path(placed)
            if self._taken.get(placed, source) != source:
                continue
            if os.path.lexists(path):
                if not self._is_ours(path, source):
                    continue
                self._note(source, placed)
                self.counts["already there"] += 1
                return
            self._make(source, stage)
            if not _rename_if_free(stage, path):
                continue  # it appeared in this moment
            try:
                self._note(source, placed)
            except OSError:
                path.unlink()  # nobody would know that it is ours
                raise
            self.counts["sorted"] += 1
            return

    def _make(self, source: str, stage: Path) -> None:
        stage.unlink(missing_ok=True)
        try:
            if self._kind == "link":
                stage.symlink_to(source)
            else:
                shutil.copy2(source, stage)
        except OSError:
            stage.unlink(missing_ok=True)  # half a copy
            raise

    def _is_ours(self, path: Path, source: str) -> bool:
        """Tell whether a file that is not in the record is what an interrupted sorting made of `source`."""
        if path.is_symlink():
            return os.readlink(path) == source
        return path.is_file() and filecmp.cmp(path, source, shallow=False)

    def _move(self, source: str, before: Placed, folder: str) -> None:
        (self.root / folder).mkdir(exist_ok=True)
        old = self._path(before)
        for placed in _candidates(folder, os.path.basename(source)):
            new = self._path(placed)
            if placed in self._taken:
                continue
            if new.exists() and old.exists() and new.samefile(old):
                old.unlink()  # a killed process did not come to this
            elif not _rename_if_free(old, new):
                continue
            try:
                self._note(source, placed)
            except OSError:
                _rename_if_free(new, old)  # where the record says that it is
                raise
            self.counts["moved"] += 1
            return

    def _note(self, source: str, placed: Placed) -> None:
        entry = {"file_name": source, "folder": placed.folder, "name": placed.name}
        line = json.dumps(entry).encode() + b"\n"
        written = self._record.write(line)
        if written < len(line):
            self._record.truncate(self._record.tell() - written)  # no line could follow half of one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._remember(source, placed)

    def _remember(self, source: str, placed: Placed) -> None:
        before = self._placed.get(source)
        if before is not None:
            self._taken.pop(before, None)
        self._placed[source] = placed
        self._taken[placed] = source

    def _read_record(self) -> None:
        file = self.root / RECORD
        if not file.exists():
            return
        content = file.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]  # a killed process may leave half a line
        for number, line in enumerate(complete.splitlines(), 1):
            try:
                entry = json.loads(line)
                placed = Placed(str(entry["folder"]), str(entry["name"]))
                if not all(map(_is_plain, (placed.folder, placed.name))):
                    raise ValueError("a name leads out of the folder")
                self._remember(str(entry["file_name"]), placed)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{file}:{number}: not a line of the record of a sorting; sort into another folder"
                ) from error
        if complete != content:
            os.truncate(file, len(complete))


def require_sort_folder(path: str, inputs: Sequence[str]) -> Path:
    """Return the folder to sort into, after a check that it can be written and is no part of an input.

    Args:
        path: the folder.
        inputs: files, folders, patterns and lists that the user named.

    Raises:
        ConfigError: if it cannot be used.
    """
    root = Path(path)
    if not path or (os.path.lexists(root) and not root.is_dir()):
        raise ConfigError(f"--sort-into {path!r}: expected a folder; it is created if it does not exist")
    require_writable(root, "--sort-into")
    around = next((name for name in inputs if os.path.isdir(name) and _is_below(path, name)), None)
    if around is not None:
        raise _misplaced(path, f"it lies in {around}")
    images = (name for name in inputs if not name.lower().endswith(".txt") and os.path.exists(name))
    inside = next((name for name in images if _is_below(name, path)), None)
    if inside is not None:
        raise _misplaced(path, f"it holds {inside}")
    return root


def _misplaced(root: str | Path, why: str) -> ConfigError:
    return ConfigError(
        f"--sort-into {root}: {why}, whose images are predicted, so a second call would take the sorted ones "
        "too; choose a folder elsewhere"
    )


def _is_below(path: str | Path, folder: str | Path) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(folder)
    return real == top or real.startswith(top.rstrip(os.sep) + os.sep)


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and os.path.basename(name) == name


def safe_name(name: str) -> str:
    """Return a name that every file system accepts for a folder, as similar to `name` as possible."""
    text = _UNSAFE.sub("_", name).strip().rstrip(". ").lstrip(".")
    if len(os.fsencode(text)) > _LONGEST:
        text = text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").rstrip(". ")
    return f"_{text}" if not text or _RESERVED.match(text) else text


def _class_folders(names: Sequence[str]) -> dict[int, str]:
    """Return the folder of each class; if names look the same, all folders begin with the ids."""
    safe = {number: safe_name(name) for number, name in enumerate(names)}
    if len({name.casefold() for name in safe.values()}) == len(safe):
        return safe
    return {number: f"{number}_{name}" for number, name in safe.items()}


def _candidates(folder: str, name: str) -> Iterator[Placed]:
    stem, suffix = os.path.splitext(name)
    yield Placed(folder, name)
    number = 1
    while True:
        number += 1
        yield Placed(folder, f"{stem}_{number}{suffix}")


def _rename_if_free(path: Path, target: Path) -> bool:
    """Move a file within the file system, unless the new name is taken."""
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except (OSError, NotImplementedError):  # a file system without hard links
        if os.path.lexists(target):
            return False
        os.rename(path, target)
        return True
    path.unlink()
    return True
