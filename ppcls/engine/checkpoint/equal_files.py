"""Write equal tensors once: later files with the same content are hard links to the first one.

At the end of an epoch, ``epoch_N``, ``latest`` and often ``best_model`` contain the same tensors, and writing
takes most of the time of a checkpoint. Files are never changed in place, only replaced, so a link keeps its
content when another one is replaced or deleted.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights import write_params

_REMEMBERED = 16  # files; one evaluation of several students writes about as many


@dataclass(frozen=True)
class _Written:
    """A file that was written: where, its state on the disk, and its size and checksum."""

    path: Path
    identity: tuple[int, int, int, int]
    fingerprint: dict[str, int]


class EqualFiles:
    """Writes files of tensors, and remembers the latest ones by their content."""

    def __init__(self) -> None:
        self._written: OrderedDict[bytes, _Written] = OrderedDict()

    def write(self, path: Path, values: Mapping[str, Any], final: Path) -> dict[str, int]:
        """Write `values` to `path`, which does not exist, as a link if an equal file exists.

        Args:
            path: where the file is created.
            values: tensors or arrays by name.
            final: the name that the file will have.

        Returns:
            size and CRC-32 of the file.

        Raises:
            WeightsError: if it cannot be written.
        """
        content = _digest(values)
        earlier = self._written.get(content)
        if earlier is None or not _link(earlier, path):
            write_params(path, values)
            earlier = _Written(final, _identity(path), fingerprint(path))
        # The name of the newest file: the one of an older file may be deleted first.
        self._written[content] = _Written(final, earlier.identity, earlier.fingerprint)
        self._written.move_to_end(content)
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)
        return earlier.fingerprint


def fingerprint(path: Path) -> dict[str, int]:
    """Return size and CRC-32 of a file.

    Raises:
        WeightsError: if it cannot be read.
    """
    crc = 0
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                crc = zlib.crc32(block, crc)
        return {"size": path.stat().st_size, "crc32": crc}
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None


def move(new: Path, target: Path) -> None:
    """Rename `new` to `target`; the system would do nothing if both are links to one file."""
    if target.exists() and new.samefile(target):
        new.unlink()
    else:
        os.replace(new, target)


def _link(earlier: _Written, path: Path) -> bool:
    """Link `path` to an earlier file; return False if that was changed, or if links are impossible."""
    try:
        if _identity(earlier.path) != earlier.identity:
            return False
        os.link(earlier.path, path)
    except OSError:  # also a file system without links: the file is written again
        return False
    return True


def _identity(path: Path) -> tuple[int, int, int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def _digest(values: Mapping[str, Any]) -> bytes:
    """Return a checksum of names, types, shapes and values, which differs whenever one of them does."""
    found = hashlib.sha256()
    for name, value in values.items():
        array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
        found.update(repr((name, array.dtype.str, array.shape)).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()
