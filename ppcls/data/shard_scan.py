"""Index tar shards that another tool wrote, by one pass over their headers."""

from __future__ import annotations

import atexit
import glob
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from ppcls.data.folders import SUFFIXES
from ppcls.data.shard_index import BLOCK, INDEX, ROW, Shard, ShardIndex, split_member, write_index
from ppcls.errors import DataError
from ppcls.logger import LOGGER, progress_bar
from ppcls.texts import near_path, sentence
from ppcls.weights.sources import cache_folder

IMAGES = frozenset({*(suffix[1:] for suffix in SUFFIXES), "gif", "img"})
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


def find_shards(pattern: str) -> list[Path]:
    """Return the tar files that a folder, a path or a pattern names, in order.

    Args:
        pattern: a folder, a tar file, or a pattern such as ``data/train-{000000..000099}.tar`` or
            ``data/*.tar``.

    Raises:
        DataError: if there are none, or a file of a range in braces is missing.
    """
    if os.path.isdir(pattern):
        found = sorted(Path(pattern).glob("*.tar"))
        packed = [path.name for path in Path(pattern).iterdir() if path.name.endswith(_COMPRESSED)]
        if not found:
            text = f"; unpack {packed[0]} with gunzip: images are read at any place" if packed else ""
            raise DataError(f"{pattern}: holds neither {INDEX} nor a shard (*.tar){text}")
        return found
    names = list(_expanded(pattern))
    for name in names:
        if name.endswith(_COMPRESSED):
            raise DataError(f"{name}: shards must not be compressed, because images are read at any place")
    if len(names) > 1 or os.path.exists(pattern):
        missing = [name for name in names if not os.path.isfile(name)]
        if missing:
            raise DataError(f"{missing[0]}: no such shard ({len(missing)} of {len(names)} are missing)")
        return [Path(name) for name in names]
    found = [Path(name) for name in sorted(glob.glob(pattern))]
    if not found:
        raise DataError(f"path {pattern}: no such folder or shard{sentence(near_path(pattern))}")
    return found


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    for number in range(int(match[1]), int(match[2]) + 1):
        middle = str(number).zfill(len(match[1]))
        yield from _expanded(pattern[: match.start()] + middle + pattern[match.end() :])


def index_of(paths: Sequence[Path], label_key: str | None) -> ShardIndex:
    """Return the index of shards without one; it is kept in the cache and made anew if a shard changes.

    Args:
        paths: the tar files.
        label_key: suffix of the members with the class, as a number in text; None: no sample has a label.

    Raises:
        DataError: naming the shard, if one is no complete tar file or a sample lacks its image or label.
    """
    states = [(os.path.abspath(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    digest = hashlib.blake2b(repr((states, label_key)).encode("utf-8", "replace"), digest_size=16)
    home = cache_folder("shards")
    folder = home / digest.hexdigest()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{folder.name}.lock"):  # of several processes, one makes it
            found = _kept_index(folder)
            return found or _new_index(folder, paths, states, label_key)
    except (OSError, NotImplementedError) as error:  # a system without locks raises the latter
        found = _kept_index(folder)
        if found is not None:
            return found
        LOGGER.info("cannot write to %s: %s; using a temporary folder", home, error)
        temporary = Path(tempfile.mkdtemp(prefix="ppcls-shards-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return _new_index(temporary, paths, states, label_key)


def _kept_index(folder: Path) -> ShardIndex | None:
    """Return the index that is in the cache; None if there is none that can be used."""
    if not (folder / INDEX).is_file():
        return None
    try:
        return ShardIndex(folder)
    except DataError as error:
        LOGGER.warning("%s; the index is made again", error)
        return None


def _new_index(
    folder: Path, paths: Sequence[Path], states: Sequence[tuple[str, int, int]], label_key: str | None
) -> ShardIndex:
    """Read the headers of all shards, and write their index into `folder`."""
    LOGGER.info("%s ...: %d shards without an index; reading their headers once", paths[0], len(paths))
    shards = []
    tables = []
    names: list[str] = []
    bar = progress_bar(len(paths), "index shards")
    for number, (path, (_, size, changed)) in enumerate(zip(paths, states, strict=True)):
        values = np.array(list(scan_shard(path, label_key, names)), np.int64).reshape(-1, 3)
        rows = np.zeros(len(values), ROW)
        rows["shard"] = number
        for column, field in enumerate(("length", "offset", "label")):
            rows[field] = values[:, column]
        shards.append(Shard(path, size, len(rows), changed))
        tables.append(rows)
        bar.update()
    bar.close()
    if not names:
        raise DataError(f"{paths[0]}: no shard holds an image ({' '.join(sorted(IMAGES))})")
    write_index(folder, shards, np.concatenate(tables), names, numbered=False, checksums=False)
    return ShardIndex(folder)


def scan_shard(path: Path, label_key: str | None, names: list[str]) -> Iterator[tuple[int, int, int]]:
    """Yield length, offset and label of each image of one shard, and append its name to `names`.

    Raises:
        DataError: see :func:`index_of`.
    """
    key: str | None = None
    members: dict[str, tuple[str, int, int]] = {}
    seen: set[str] = set()
    try:
        with path.open("rb") as file:
            for member in _members(path, file):
                new, suffix = split_member(member.name)
                if not suffix or os.path.basename(new).startswith("__"):
                    continue  # data about the shard, not about a sample
                if new != key:
                    yield from _row(path, file, key, members, label_key, names)
                    if new in seen:
                        raise DataError(f"{path}: the members of {new} do not follow each other")
                    seen.add(new)
                    key = new
                    members = {}
                if suffix in members:
                    raise DataError(f"{path}: {new} has two members .{suffix}")
                members[suffix] = (member.name, member.offset_data, member.size)
            yield from _row(path, file, key, members, label_key, names)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _row(
    path: Path,
    file: BinaryIO,
    key: str | None,
    members: dict[str, tuple[str, int, int]],
    label_key: str | None,
    names: list[str],
) -> Iterator[tuple[int, int, int]]:
    """Yield length, offset and label of a sample if it has an image."""
    images = [member for suffix, member in members.items() if suffix.rpartition(".")[2] in IMAGES]
    if not images:
        return
    if len(images) > 1:
        raise DataError(
            f"{path}: {key} has {len(images)} images ({images[0][0]}, {images[1][0]}), expected one"
        )
    label = 0
    if label_key is not None:
        if label_key not in members:
            raise DataError(
                f"{path}: {key} has no member .{label_key}, but {', '.join(sorted(members))}; name the one "
                "with the class in label_key, or set label_key: null for images without labels"
            )
        label = _label(path, file, *members[label_key])
    name, offset, size = images[0]
    names.append(name)
    yield size, offset, label


def _label(path: Path, file: BinaryIO, name: str, offset: int, size: int) -> int:
    file.seek(offset)
    text = file.read(min(size, 32)).strip()
    if not (text.isdigit() and len(text) < 10):
        raise DataError(f"{path}: {name}: expected a class as a number in text, got {text[:20]!r}")
    return int(text)


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar file without reading their content."""
    size = os.fstat(file.fileno()).st_size
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # they would stay in memory
                if member.isfile():
                    if member.offset_data + member.size > size:
                        raise DataError(f"{path}: cut off in {member.name}; copy the shard again")
                    yield member
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: damaged or cut off, no tar file that can be read: {error}") from error
    file.seek(end)
    if file.read(BLOCK) != bytes(BLOCK):
        raise DataError(f"{path}: the mark at the end of the tar file is missing; it was cut off")
