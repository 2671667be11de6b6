"""Lists of images that were read and checked before, so that a long list does not have to be checked again.

A stored list is used only if the list file, the way it is to be read and the folders of its images are what
they were: a folder's time changes when a file in it appears or disappears. The files are in
``$PPCLS_HOME/lists``, else ``~/.cache/ppcls/lists``; they can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data.names import Names
from ppcls.errors import WeightsError
from ppcls.files import write_atomic
from ppcls.logger import LOGGER
from ppcls.weights.sources import cache_folder

# Shorter lists are read faster than it takes to look for them here.
_LEAST_BYTES = 1 << 20
_KEPT = 16
# Times of files are exact to some milliseconds, on some systems to 2 s: what changed later may change again
# without a new time.
_SETTLED_SECONDS = 3.0
_VERSION = 1  # to be increased when lists are checked for something new
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Reading:
    """One way to read one list file, as it is now.

    Attributes:
        info: all that the result depends on, except the images, for JSON.
        root: folder of the images.
        begin: when the reading began, in seconds since 1970.
        changed: when the list file was last changed.
    """

    info: dict[str, Any]
    root: str
    begin: float
    changed: float

    @property
    def file(self) -> Path:
        """The stored list."""
        key = hashlib.sha256(json.dumps(self.info["how"]).encode()).hexdigest()[:32]
        return cache_folder("lists") / f"{key}.list"


def reading_of(
    path: Path,
    root: str,
    delimiter: str | None,
    class_num: int | None,
    mapping: Mapping[int, int] | None,
    class_names: Sequence[str] | None = None,
    labelled: bool = True,
) -> Reading | None:
    """Describe the reading of a list; None if it is short or not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_size < _LEAST_BYTES:
        return None
    classes = sorted(mapping.items()) if mapping is not None else class_names and list(class_names)
    digest = hashlib.sha256(json.dumps(classes).encode()).hexdigest()
    how = [_VERSION, os.path.abspath(path), os.path.abspath(root), root, delimiter, class_num, digest]
    times = [status.st_mtime_ns, status.st_ctime_ns]
    how += [] if labelled else ["without labels"]
    info = {"how": how, "size": status.st_size, "inode": status.st_ino, "times": times}
    return Reading(info, root, time.time(), max(times) / 1e9)


def load_list(reading: Reading) -> tuple[Names, np.ndarray] | None:
    """Return names and labels of a list that was stored; None if there is none, or anything changed since."""
    try:
        whole = reading.file.read_bytes()
    except OSError:
        return None
    body = memoryview(whole)[_DIGEST_BYTES:]
    if _digest(body) != whole[:_DIGEST_BYTES]:
        LOGGER.debug("%s is damaged", reading.file)
        return None
    head = bytes(body[: whole.index(b"\n", _DIGEST_BYTES) - _DIGEST_BYTES])
    info: dict[str, Any] = json.loads(head)
    if info["reading"] != reading.info or _times(reading.root, info["folders"]) != info["folders"]:
        return None
    parts = []  # views of `whole`, without copies
    begin = len(head) + 1
    for dtype, size in info["parts"]:
        parts.append((body[begin : begin + size], dtype))
        begin = begin + size
    starts, labels = (np.frombuffer(part, dtype) for part, dtype in parts[1:])
    names = Names(parts[0][0], starts)
    LOGGER.debug("%s was checked before and has not changed", reading.info["how"][1])
    return names, labels


def store_list(reading: Reading, names: Names, labels: np.ndarray, folders: Iterable[str]) -> None:
    """Store a list that is right, unless something changed so recently that a further change could be missed.

    Args:
        reading: made before the list was read.
        names: of the images.
        labels: of the images.
        folders: that hold images, relative to the root.
    """
    times = _times(reading.root, folders)
    newest = max([reading.changed, *(value / 1e9 for value in times.values())])
    if -1 in times.values() or newest > reading.begin - _SETTLED_SECONDS:
        return
    parts = [np.frombuffer(names.content, np.uint8), names.starts, labels]
    shapes = [(part.dtype.str, part.nbytes) for part in parts]
    info = json.dumps({"reading": reading.info, "folders": times, "parts": shapes}).encode()
    arrays = (np.ascontiguousarray(part) for part in parts)
    pieces: list[bytes | memoryview] = [
        info + b"\n",
        *(memoryview(array.view(np.uint8).data) for array in arrays),
    ]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    try:
        write_atomic(reading.file, lambda stream: stream.writelines([digest.digest(), *pieces]))
    except WeightsError as error:
        LOGGER.debug("the list is checked again next time: %s", error)
        return
    _remove_oldest(reading.file)


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()


def _times(root: str, folders: Iterable[str]) -> dict[str, int]:
    """Return when the content of each folder changed, in nanoseconds; -1 for one that is not there."""
    return {folder: _time(os.path.join(root, folder)) for folder in folders}


def _time(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return -1


def _remove_oldest(newest: Path) -> None:
    with contextlib.suppress(OSError):
        files = sorted(newest.parent.glob("*.list"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_KEPT:]:
            file.unlink(missing_ok=True)
