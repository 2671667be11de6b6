"""A store of outputs on disk: shards of records that NumPy reads, each with its checksum.

The format is described in ``docs/teacher_store.md``. A store consists of views; a view has a fixed number
of positions, each with one record. A shard is a ``.npy`` file with the records of some positions of one view,
and a ``.json`` file with these positions, the size and the checksum. The JSON file is written last; a shard
without it is ignored.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import DataError
from ppcls.files import write_atomic
from ppcls.teacher.view import Piece, View

FORMAT = 1
MANIFEST = "manifest.json"
INDEX = "index"  # the field of a record with the place of its sample in the data
_OPEN = 64  # largest number of shards that are open: each needs a file handle
_BLOCK = 1 << 22
_LEFTOVER = 86400.0  # seconds
Runs = list[tuple[int, int]]  # first position, number of positions


@dataclass(frozen=True)
class Shard:
    """Some records of one view.

    Attributes:
        path: the file of records.
        view: number of the view, from 1.
        runs: the positions of the records in order: first position and count of each run, int64 [N, 2].
        size: size of the file in bytes.
        crc32: checksum of the file.
        described: the file that describes the shard.
    """

    path: Path
    view: int
    runs: np.ndarray = field(compare=False)
    size: int
    crc32: int
    described: Path

    @property
    def title(self) -> str:
        """Description of the shard for messages."""
        first = self.runs[0, 0]
        last = self.runs[-1].sum() - 1
        return f"shard {self.path.name} (view {self.view}, positions {first} to {last})"


class Store:
    """The shards in a folder.

    Args:
        folder: folder of the store; it need not exist.

    Attributes:
        folder: folder of the store.
        manifest: content of the manifest; None if there is none yet.
        shards: the shards that were found when the store was opened, and those appended since.

    Raises:
        DataError: if the manifest or a shard's description is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] | None = None
        self.shards: list[Shard] = []
        self._covered: dict[int, View] = {}
        self._open: OrderedDict[Path, np.ndarray] = OrderedDict()
        path = folder / MANIFEST
        if not path.is_file():
            if any(folder.glob("view-*.json")):
                raise DataError(
                    f"{folder} has shards but no {MANIFEST}, which says what they were made of; put it back, "
                    "or delete the shards (view-*)"
                )
            return
        self.manifest = _read_json(path)
        if self.manifest.get("format") != FORMAT:
            found = self.manifest.get("format")
            raise DataError(f"{path}: format {found!r}, this version reads {FORMAT}")
        for described in sorted(folder.glob("view-*.json")):
            self._add(_read_shard(described))

    # ------------------------------------------------------------------ what is there

    def has(self, view: int, position: int, count: int) -> bool:
        """Tell whether all of `count` positions of a view from `position` on are stored."""
        return sum(piece.count for piece in self._pieces(view, position, count)) == count

    def missing(self, view: int, rows: int) -> Runs:
        """Return the positions of a view of `rows` positions that are not stored."""
        found = self._covered.get(view)
        return [(0, rows)] if found is None else found.missing(rows)

    def read(self, view: int, position: int, count: int) -> np.ndarray:
        """Return the records of `count` positions of a view from `position` on, all of which are stored."""
        found = [
            self._records(self.shards[piece.shard])[piece.row : piece.row + piece.count]
            for piece in self._pieces(view, position, count)
        ]
        records = found[0] if len(found) == 1 else np.concatenate(found)
        if len(records) != count:
            raise DataError(f"{self.folder}: view {view} lacks positions of {position} to {position + count}")
        return records

    def verify(self, dtype: np.dtype[Any], part: slice = slice(None), threads: int = 4) -> list[str]:
        """Read shards completely, and return what is wrong with them.

        Args:
            dtype: type of a record.
            part: the shards to read; default: all.
            threads: number of threads that read.
        """
        shards = self.shards[part]
        with ThreadPoolExecutor(threads) as pool:
            # NumPy parses the header of a file with `ast`. Where several threads do so, Python 3.11.4 to
            # 3.11.7 sometimes raises a SystemError about its recursion depth (cpython issue 106905).
            problems = [
                damage or _difference(shard, dtype)
                for shard, damage in zip(shards, pool.map(_damage, shards), strict=True)
            ]
        return [problem for problem in problems if problem]

    # ------------------------------------------------------------------ writing

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest of a new store, unless another process has just written the same one.

        Raises:
            DataError: if another process has begun to fill the folder for something else.
        """
        content = json.dumps({"format": FORMAT, **manifest}, indent=1).encode() + b"\n"
        path = self.folder / MANIFEST
        if not write_atomic(path, lambda stream: stream.write(content), replace=False):
            there = _read_json(path)
            if _without_versions(there) != _without_versions(json.loads(content)):
                raise DataError(
                    f"{self.folder}: another process has begun to fill this store for something else; start "
                    "again to see the differences"
                )
        self.manifest = _read_json(path)

    def append(self, view: int, runs: Runs, records: np.ndarray) -> None:
        """Add a shard. If the process is killed at any moment, the shard exists completely or not at all.

        Args:
            view: number of the view, from 1.
            runs: the positions of the records, none of which is stored yet.
            records: in the order of the positions.
        """
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, records, allow_pickle=False)
        content = buffer.getbuffer()
        crc32 = zlib.crc32(content)
        # With the checksum in its name, a file never takes the place of another shard's.
        path = self.folder / f"view-{view:05d}-{runs[0][0]:012d}-{crc32:08x}.npy"
        write_atomic(path, lambda stream: stream.write(content))
        shard = Shard(path, view, np.array(runs, np.int64), len(content), crc32, path.with_suffix(".json"))
        described = {
            "file": path.name,
            "view": view,
            "runs": shard.runs.tolist(),
            "size": shard.size,
            "crc32": f"{crc32:08x}",
        }
        text = json.dumps(described).encode() + b"\n"
        write_atomic(shard.described, lambda stream: stream.write(text))
        self._add(shard)

    def remove_leftovers(self) -> None:
        """Remove what processes left that were killed more than a day ago: files that no shard consists of.

        Younger ones may belong to a process that is just writing them.
        """
        known = {shard.path for shard in self.shards}
        for path in [*self.folder.glob("view-*.npy"), *self.folder.glob(".*.tmp")]:
            with contextlib.suppress(OSError):
                # st_ctime, because a copy of a file may keep the st_mtime of the original.
                if path not in known and path.stat().st_ctime < time.time() - _LEFTOVER:
                    path.unlink()

    # ------------------------------------------------------------------ inside

    def _add(self, shard: Shard) -> None:
        self.shards.append(shard)
        self._covered.setdefault(shard.view, View()).add(len(self.shards) - 1, shard.runs)

    def _pieces(self, view: int, position: int, count: int) -> Iterator[Piece]:
        found = self._covered.get(view)
        return iter(()) if found is None else found.within(position, count)

    def _records(self, shard: Shard) -> np.ndarray:
        records = self._open.get(shard.path)
        if records is None:
            records = self._open[shard.path] = np.load(shard.path, mmap_mode="r", allow_pickle=False)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(shard.path)
        return records


def join_runs(runs: Sequence[tuple[int, int]]) -> Runs:
    """Return the same positions, with adjacent runs merged."""
    joined: Runs = []
    for position, count in runs:
        if joined and sum(joined[-1]) == position:
            joined[-1] = (joined[-1][0], joined[-1][1] + count)
        else:
            joined.append((position, count))
    return joined


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read or is damaged: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: expected a map")
    return found


def _without_versions(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest without the versions of libraries, which may differ between machines."""
    made_of = manifest.get("made_of") or {}
    return {**manifest, "made_of": {key: value for key, value in made_of.items() if key != "versions"}}


def _read_shard(path: Path) -> Shard:
    found = _read_json(path)
    try:
        runs = np.array(found["runs"], np.int64).reshape(len(found["runs"]), 2)
        name = str(found["file"])
        shard = Shard(
            path.parent / name, int(found["view"]), runs, int(found["size"]), int(found["crc32"], 16), path
        )
        whole = len(runs) > 0 and bool((runs >= (0, 1)).all())
    except (KeyError, TypeError, ValueError, OverflowError):
        whole = False
    if not whole or Path(name).name != name:
        raise DataError(f"{path} is damaged: it does not describe a shard; delete it to have it filled again")
    return shard


def _remedy(shard: Shard) -> str:
    return f"delete {shard.described} to have it filled again"


def _damage(shard: Shard) -> str:
    try:
        size = shard.path.stat().st_size
        crc32 = 0
        with shard.path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                crc32 = zlib.crc32(block, crc32)
    except FileNotFoundError:
        return f"{shard.title} is missing; {_remedy(shard)}"
    except OSError as error:
        return f"{shard.title} cannot be read: {error.strerror or error}"
    if (size, crc32) != (shard.size, shard.crc32):
        return f"{shard.title} is damaged: its content is not that of its checksum; {_remedy(shard)}"
    return ""


def _difference(shard: Shard, dtype: np.dtype[Any]) -> str:
    try:
        records = np.load(shard.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        return f"{shard.title} is not a file of NumPy: {error}"
    rows = int(shard.runs[:, 1].sum())
    if records.dtype != dtype or records.shape != (rows,):
        return f"{shard.title} has records of another kind than the manifest says; {_remedy(shard)}"
    return ""
