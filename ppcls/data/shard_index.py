"""The index of a folder of shards: where each sample lies. ``docs/shards.md`` describes the files.

Everything is checked when an index is opened: its version, the checksums of its files, the sizes of the
shards and, in each shard, the tar headers of its first and its last sample. The arrays are mapped into
memory, so that 14 million samples take no memory of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.class_names import format_class_names, read_fitting_names
from ppcls.data.fingerprint import Fingerprint
from ppcls.errors import DataError, WeightsError
from ppcls.files import write_atomic
from ppcls.texts import near_path

VERSION = 1
INDEX = "index.json"
SAMPLES = "samples.npy"
NAMES = "names.txt"
CLASSES = "class_names.txt"
# One row per sample, little-endian, in the order of the dataset.
ROW = np.dtype(
    [
        ("shard", "<u4"),  # place in the list of shards
        ("length", "<u4"),  # bytes of the image
        ("offset", "<u8"),  # first byte of the image in the shard
        ("name", "<u8"),  # first byte of its name in names.txt
        ("label", "<i4"),
        ("crc32", "<u4"),  # of the image
        ("number", "<u4"),  # its key, if keys are numbers
    ]
)
BLOCK = tarfile.BLOCKSIZE
_SHOWN = 5


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:06d}.tar"


def sample_key(number: int) -> str:
    """Return the key in the shards of a sample, by its place in the data that the shards are made from."""
    return f"{number:09d}"


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        path: the file.
        size: its bytes.
        samples: number of its samples.
        changed: time of its last change in nanoseconds, which only indexes of other tools' shards compare;
            otherwise None.
    """

    path: Path
    size: int
    samples: int
    changed: int | None = None


class ShardIndex:
    """An index that was opened, read-only.

    Args:
        folder: folder of the index.
        shards: folder of the shards; None: the same one.

    Attributes:
        shards: the tar files.
        rows: one row per sample, see `ROW`; mapped into memory.
        class_names: names by class; None if unknown.
        fingerprint: count and digest of the data that the shards were made from, None in indexes of other
            tools' shards.
        has_checksums: whether rows have checksums of the images.
        numbered: whether keys are the numbers of the samples; otherwise they are parts of the names.

    Raises:
        DataError: if a file of the index is missing, damaged or of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.description = _read_description(self.folder / INDEX)
        for name, expected in self.description["files"].items():
            found = _digest(self.folder / name)
            if found != expected:
                raise DataError(
                    f"{self.folder / name}: its checksum is not the one in {INDEX}; the index is damaged "
                    "or of two versions. Write the shards again, or copy all files of the folder again"
                )
        self.shards = [
            Shard(self.folder / entry["file"], entry["size"], entry["samples"], entry.get("changed"))
            for entry in self.description["shards"]
        ]
        self.has_checksums = bool(self.description["checksums"])
        self.numbered = self.description["keys"] == "number"
        self.rows: np.ndarray = _mapped_rows(self.folder / SAMPLES)
        self._names = np.memmap(self.folder / NAMES, np.uint8, "r")
        fingerprint = self.description["fingerprint"]
        self.fingerprint = None if fingerprint is None else Fingerprint(str(self.folder), **fingerprint)
        names = self.description["files"].get(CLASSES)
        self.class_names = None if names is None else read_fitting_names(self.folder / CLASSES, None)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type[ShardIndex], tuple[Path]]:
        return ShardIndex, (self.folder,)  # another process maps the files itself

    def name(self, index: int) -> str:
        """Return the name of a sample: its path in the data that the shards were made from."""
        start = int(self.rows["name"][index])
        stop = int(self.rows["name"][index + 1]) if index + 1 < len(self.rows) else len(self._names)
        return os.fsdecode(self._names[start : stop - 1].tobytes())

    def names(self) -> Iterator[str]:
        """Yield the names of all samples in order."""
        with (self.folder / NAMES).open("rb") as lines:
            for line in lines:
                yield os.fsdecode(line[:-1])

    def key(self, index: int) -> str:
        """Return the key of a sample in its shard."""
        return sample_key(self.rows["number"][index]) if self.numbered else split_member(self.name(index))[0]

    def check_shards(self) -> None:
        """Check that all shards are there and are those that the index describes.

        Raises:
            DataError: naming the shards that are missing, or have another size or other content.
        """
        missing = [shard.path for shard in self.shards if not shard.path.is_file()]
        if missing:
            raise DataError(f"{self.folder}: {_some(missing)}; copy or write them again")
        for shard in self.shards:
            size = shard.path.stat().st_size
            if size != shard.size:
                verb = "was cut off" if size < shard.size else "was changed"
                raise DataError(
                    f"{shard.path}: {size} bytes, but the index says {shard.size}; the shard {verb}. Copy or "
                    "write it again"
                )
        for index in self._ends():
            self._check_header(index)

    def _ends(self) -> list[int]:
        """Return the first and the last sample of each shard."""
        shards = np.ascontiguousarray(self.rows["shard"])
        first = np.unique(shards, return_index=True)[1]
        last = len(shards) - 1 - np.unique(shards[::-1], return_index=True)[1]
        return sorted({int(index) for index in (*first, *last)})

    def _check_header(self, index: int) -> None:
        """Check that the tar header of a sample of numbered keys is where the index says."""
        if not self.numbered:
            return
        row = self.rows[index]
        path = self.shards[row["shard"]].path
        found = None
        try:
            with path.open("rb") as file:
                file.seek(int(row["offset"]) - BLOCK)
                found = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            pass
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        key = self.key(index)
        if found is None or split_member(found.name)[0] != key or found.size != row["length"]:
            there = "no member" if found is None else f"{found.name} of {found.size} bytes"
            raise DataError(
                f"{path}: the index has the image {key} of {row['length']} bytes at {row['offset']}, but "
                f"there is {there}; the shard belongs to another index or is damaged"
            )


def split_member(name: str) -> tuple[str, str]:
    """Return key and suffix of a member, as WebDataset does: the suffix begins at the first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def write_index(
    folder: Path,
    shards: Sequence[Shard],
    rows: np.ndarray,
    names: Iterable[str],
    *,
    numbered: bool,
    checksums: bool,
    class_names: Sequence[str] | None = None,
    fingerprint: Fingerprint | None = None,
    **more: Any,
) -> None:
    """Write the index of shards; ``index.json`` comes last, so an index without it is not complete.

    Args:
        folder: where to write it.
        shards: the tar files; below `folder` they are named relative to it.
        rows: one row per sample; the field ``name`` is filled in here.
        names: their names in the same order.
        numbered: whether the keys are the numbers of the samples.
        checksums: whether rows have checksums.
        class_names: names by class.
        fingerprint: that of the data.
        more: further entries of ``index.json``.

    Raises:
        DataError: if it cannot be written, or a name has a line break.
    """
    lines = [os.fsencode(name) + b"\n" for name in names]
    odd = next((line for line in lines if line.count(b"\n") > 1), None)
    if odd is not None:
        raise DataError(f"{os.fsdecode(odd)!r}: shards take no names with a line break; rename the file")
    ends = np.cumsum([len(line) for line in lines], dtype=np.uint64)
    rows = rows.astype(ROW, copy=True)
    rows["name"] = np.concatenate((np.zeros(1, np.uint64), ends[:-1]))
    files = {NAMES: lambda out: out.writelines(lines), SAMPLES: lambda out: np.save(out, rows)}
    if class_names is not None:
        text = format_class_names(class_names).encode("utf-8", "backslashreplace")
        files[CLASSES] = lambda out: out.write(text)
    entries = []
    for shard in shards:
        path = shard.path.name if shard.path.parent == folder else os.path.abspath(shard.path)
        entry: dict[str, Any] = {"file": str(path), "size": shard.size, "samples": shard.samples}
        entries.append(entry if shard.changed is None else {**entry, "changed": shard.changed})
    try:
        for name, writer in files.items():
            write_atomic(folder / name, writer)
        description = {
            "version": VERSION,
            "samples": len(rows),
            "keys": "number" if numbered else "name",
            "checksums": checksums,
            "fingerprint": None
            if fingerprint is None
            else {"count": fingerprint.count, "digest": fingerprint.digest},
            **more,
            "files": {name: _digest(folder / name) for name in files},
            "shards": entries,
        }
        description["digest"] = _digest_of(description)
        write_atomic(folder / INDEX, lambda out: out.write(json.dumps(description, indent=1).encode()))
    except WeightsError as error:
        raise DataError(str(error)) from error


def _read_description(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such index of shards.{near_path(path)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an index of shards that can be read: {error}") from error
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION:
        raise DataError(f"{path}: an index of version {version!r}; this version of ppcls reads {VERSION}")
    if found.pop("digest", None) != _digest_of(found):
        raise DataError(f"{path}: damaged or edited: its own checksum does not fit; copy or write it again")
    return found


def _digest_of(description: dict[str, Any]) -> str:
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _mapped_rows(path: Path) -> np.ndarray:
    rows = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # a memmap is slow to index
    if rows.dtype != ROW or rows.ndim != 1:
        raise DataError(f"{path}: rows of {rows.dtype}, expected {ROW}")
    return rows


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise DataError(f"{path}: a file of the index cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _some(missing: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return f"{len(missing)} {'shards are' if len(missing) > 1 else 'shard is'} missing: {names}{more}"
