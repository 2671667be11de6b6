"""Write the images of a dataset into tar shards, so that a killed process loses at most one shard.

Every shard is written whole or not at all, and beside it a table of its samples, in the hidden folder
``.unfinished``. The next process continues after the last whole shard. The index is written last.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from filelock import FileLock, Timeout

from ppcls.data.dataset import Dataset, FolderDataset
from ppcls.data.fingerprint import fingerprint_of
from ppcls.data.folders import SUFFIXES
from ppcls.data.headers import declared_size
from ppcls.data.images import ImageError, Naming
from ppcls.data.shard_index import BLOCK, INDEX, ROW, Shard, ShardIndex, sample_key, shard_name, write_index
from ppcls.data.transforms.decode import DecodeImage
from ppcls.errors import ConfigError, DataError, WeightsError
from ppcls.files import require_writable, write_atomic
from ppcls.logger import LOGGER, progress_bar

_WORK = ".unfinished"
_PLAN = "plan.json"
_AHEAD = 64  # images that are read or encoded before their turn
_TRIED = 64  # images by which the size of all is estimated
_END = 2 * tarfile.RECORDSIZE  # an upper bound of what ends a tar file
_SHOWN = 5


@dataclass(frozen=True)
class ShardOptions:
    """How shards are written.

    Attributes:
        size: largest number of bytes of a shard; one image more than that gets a shard of its own.
        resize_short: images whose shorter side is longer are shrunk to it and encoded as JPEG; None keeps
            all bytes.
        quality: of JPEG.
        json: also write ``key.json`` with the name of the image and of its class.
        shuffle: seed of the order in the shards, for tools that read them from beginning to end; None: the
            order of the dataset. It does not change the order of the index.
    """

    size: int = 256_000_000
    resize_short: int | None = None
    quality: int = 92
    json: bool = False
    shuffle: int | None = None

    def check(self) -> None:
        """Raise ConfigError for values that cannot be."""
        if self.size < 1_000:
            raise ConfigError(f"--size: expected at least 1KB, got {self.size} bytes")
        if self.resize_short is not None and self.resize_short < 1:
            raise ConfigError(f"--resize-short: expected at least 1 pixel, got {self.resize_short}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality: expected 1 to 100, got {self.quality}")
        if self.shuffle is not None and self.shuffle < 0:
            raise ConfigError(f"--shuffle: expected a seed of at least 0, got {self.shuffle}")


@dataclass(frozen=True)
class Written:
    """What :func:`write_shards` did.

    Attributes:
        samples: images in the shards.
        shards: number of shards.
        size: bytes of all shards.
        skipped: messages about images that cannot be read, with ``on_error: skip``.
        written: shards that this call wrote; the others were there.
    """

    samples: int
    shards: int
    size: int
    skipped: list[str]
    written: int


def write_shards(
    dataset: Dataset, folder: Path, options: ShardOptions, class_names: Sequence[str] | None = None
) -> Written:
    """Write the images of a dataset into `folder`, or continue what a killed process began there.

    Args:
        dataset: the images; its transforms are not used.
        folder: where to write; it must be empty, not exist, or hold shards of the same data.
        options: how to write.
        class_names: names by class; None: those of the dataset, if it has some.

    Raises:
        ConfigError: if the folder holds something else or would be a class of the images, the disk is too
            small, or another process writes there.
        DataError: naming the image that cannot be read, or whose name or label shards cannot hold; or if the
            folder cannot be written.
    """
    options.check()
    require_writable(folder, "OUT")
    _refuse_own_data(dataset, folder)
    _check_samples(dataset)
    names = dataset.class_names if class_names is None else list(class_names)
    plan = {
        "samples": len(dataset),
        "fingerprint": dataset.fingerprint().digest,
        "class_names": names,
        **asdict(options),
    }
    _refuse_others(folder)
    if (folder / INDEX).is_file():
        return _finished(folder, plan)
    work = folder / _WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"OUT: cannot write to {folder}: {error.strerror or error}") from error
    try:
        with FileLock(work / "lock", timeout=0):
            written = _Writer(dataset, folder, options, plan).run(names)
    except Timeout:
        raise ConfigError(f"OUT: another process writes into {folder}") from None
    except WeightsError as error:  # of write_atomic
        raise DataError(
            f"{error}; the shards that are complete stay, and the same command continues"
        ) from error
    shutil.rmtree(work, ignore_errors=True)
    return written


def _refuse_own_data(dataset: Dataset, folder: Path) -> None:
    """Raise ConfigError if the shards would lie in the folder whose folders are the classes."""
    if isinstance(dataset, FolderDataset):
        root = Path(os.path.realpath(dataset.name))
        if root in Path(os.path.realpath(folder)).parents:
            raise ConfigError(
                f"OUT: {folder} lies in {dataset.name}, where each folder is a class of images; give a "
                "folder outside of it"
            )


def _check_samples(dataset: Dataset) -> None:
    """Raise DataError for names and labels that the index cannot hold, before anything is written."""
    for index, name in enumerate(dataset.relative_paths()):
        if "\n" in name:
            raise DataError(f"{name!r}: shards take no names with a line break; rename the file")
        label = dataset.label(index)
        if not 0 <= label < 2**31:
            raise DataError(f"{dataset.path(index)}: shards hold labels from 0 to 2147483647, got {label}")


def _refuse_others(folder: Path) -> None:
    """Raise ConfigError if a folder holds files that are not shards of ours."""
    there = [] if not folder.is_dir() else sorted(os.listdir(folder))
    if there and INDEX not in there and not (folder / _WORK).is_dir():
        raise ConfigError(
            f"OUT: {folder} holds something else ({', '.join(there[:_SHOWN])}); give a new folder"
        )


def _finished(folder: Path, plan: dict[str, Any]) -> Written:
    """Return what is in a folder that is complete."""
    index = ShardIndex(folder)
    _compare(folder, index.description.get("plan"), plan)
    index.check_shards()
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    skipped = plan["samples"] - len(index)
    texts = [f"{skipped} images were left out before"] if skipped else []
    return Written(len(index), len(index.shards), sum(shard.size for shard in index.shards), texts, 0)


def _compare(folder: Path, found: Any, plan: dict[str, Any]) -> None:
    if not isinstance(found, dict):
        found = {}
    for key, value in plan.items():
        if found.get(key) != value:
            shown = [str(text)[:80] for text in (found.get(key), value)]
            what = f"{key} was {shown[0]}, and is {shown[1]} now"
            if key == "fingerprint":
                what = "the names or labels of the images differ"
            raise ConfigError(
                f"OUT: {folder} holds shards of other data or options: {what}; give a new folder"
            )


class _Writer:
    """Writes the shards of one dataset."""

    def __init__(self, dataset: Dataset, folder: Path, options: ShardOptions, plan: dict[str, Any]) -> None:
        self._dataset = dataset
        self._folder = folder
        self._options = options
        self._plan = plan
        self._work = folder / _WORK
        self._decode = DecodeImage(to_rgb=False)
        self._names = list(dataset.relative_paths())
        self._order = np.arange(len(dataset))
        if options.shuffle is not None:
            self._order = np.random.default_rng(options.shuffle).permutation(len(dataset))

    def run(self, class_names: Sequence[str] | None) -> Written:
        """Write what is missing, and the index."""
        self._begin()
        tables = self._complete()
        before = len(tables)
        done = int(sum(table["next"] for table in tables[-1:]))
        self._require_space(done)
        if done:
            LOGGER.info("%s: continues after %d images in %d shards", self._folder, done, before)
        bar = progress_bar(len(self._order), "write shards")
        bar.update(done)
        skipped = [text for table in tables for text in table["skipped"]]
        pending = _Pending(self._encoded(done), done)
        while pending.has_more():
            table: dict[str, Any] = {"rows": [], "skipped": []}
            path = self._folder / shard_name(len(tables))
            write_atomic(path, lambda out, table=table: self._fill(out, pending, table))  # type: ignore[misc]
            bar.update(pending.position - bar.n)
            table["next"] = pending.position
            table["size"] = path.stat().st_size
            text = json.dumps(table).encode("utf-8", "surrogateescape")
            write_atomic(self._table(len(tables)), lambda out, text=text: out.write(text))  # type: ignore[misc]
            skipped += table["skipped"]
            tables.append(table)
        bar.close()
        return self._finish(tables, class_names, skipped, before)

    def _begin(self) -> None:
        """Record what is written here, or compare it with what was, if a shard is complete."""
        path = self._work / _PLAN
        if path.is_file() and self._table(0).is_file():
            _compare(self._folder, json.loads(path.read_text("utf-8")), self._plan)
        else:
            text = json.dumps(self._plan, ensure_ascii=True).encode()
            write_atomic(path, lambda out: out.write(text))

    def _table(self, number: int) -> Path:
        return self._work / f"{shard_name(number)}.json"

    def _complete(self) -> list[dict[str, Any]]:
        """Return the tables of the shards that are complete, up to the first one that is not.

        Later shards are removed; they may begin with other images now.
        """
        tables: list[dict[str, Any]] = []
        while self._table(len(tables)).is_file():
            table = json.loads(self._table(len(tables)).read_text("utf-8"))
            shard = self._folder / shard_name(len(tables))
            if not shard.is_file() or shard.stat().st_size != table["size"]:
                break
            tables.append(table)
        for path in sorted(self._folder.glob("shard-*.tar"))[len(tables) :]:
            path.unlink()
        return tables

    def _require_space(self, done: int) -> None:
        """Raise ConfigError if what is still to be written does not fit on the disk."""
        left = len(self._order) - done
        if not left:
            return
        tried = self._order[done:][:: max(1, left // _TRIED)]
        if self._options.resize_short is None and os.path.isfile(self._dataset.path(int(self._order[0]))):
            tried = self._order[done:]  # sizes of files are known exactly, and cheap
        sizes = [self._needed(int(index), exact=len(tried) == left) for index in tried]
        needed = int(sum(sizes) / len(sizes) * left)
        needed += _END * (needed // self._options.size + 1) + left * (ROW.itemsize + 80)
        free = shutil.disk_usage(self._folder).free
        LOGGER.info("%s: about %s to write, %s free", self._folder, _bytes(needed), _bytes(free))
        if needed > free:
            raise ConfigError(
                f"OUT: {self._folder}: about {_bytes(needed)} are needed, but {_bytes(free)} are free; "
                "choose another disk, or shrink the images with --resize-short"
            )

    def _needed(self, index: int, exact: bool) -> int:
        """Return the bytes that a sample takes in a shard."""
        length = 0
        with contextlib.suppress(OSError, DataError):
            if exact and self._options.resize_short is None and os.path.isfile(self._dataset.path(index)):
                length = os.path.getsize(self._dataset.path(index))
            else:
                length = len(self._encode(index)[0])
        return BLOCK * (3 + 2 * self._options.json) + -(-length // BLOCK) * BLOCK

    def _encoded(self, done: int) -> Iterator[tuple[int, bytes | None, str]]:
        """Yield (sample, content, suffix) from a place of the order on; content None, message: left out."""
        workers = min(8, os.cpu_count() or 1)
        waiting: deque[tuple[int, Future[tuple[bytes, str]]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for index in map(int, self._order[done:]):
                    waiting.append((index, pool.submit(self._encode, index)))
                    if len(waiting) >= _AHEAD:
                        yield self._result(*waiting.popleft())
                while waiting:
                    yield self._result(*waiting.popleft())
            finally:
                for _, future in waiting:
                    future.cancel()

    def _result(self, index: int, future: Future[tuple[bytes, str]]) -> tuple[int, bytes | None, str]:
        try:
            return index, *future.result()
        except ImageError as error:
            if self._dataset.on_error == "raise":
                raise
            LOGGER.warning("left out: %s", error)
            return index, None, str(error)

    def _encode(self, index: int) -> tuple[bytes, str]:
        """Return content and suffix of an image."""
        with Naming(lambda: f"{self._dataset.path(index)} (sample {index})"):
            content = self._dataset.read(index)
            if isinstance(content, np.ndarray):  # decoded already, RGB
                return _encoded_image(content[..., ::-1], ".png", []), ".png"
            short = self._options.resize_short
            if short is not None:
                size = declared_size(content)
                if size is None or min(size) > short:
                    return self._shrunk(content, short), ".jpg"
            return bytes(content), _suffix(self._names[index], content)

    def _shrunk(self, content: bytes, short: int) -> bytes:
        pixels = self._decode(content, np.random.default_rng(0))
        height, width = pixels.shape[:2]
        if min(height, width) > short:
            factor = short / min(height, width)
            wanted = (max(short, round(width * factor)), max(short, round(height * factor)))
            pixels = cv2.resize(pixels, wanted, interpolation=cv2.INTER_AREA)
        return _encoded_image(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, self._options.quality])

    def _fill(self, out: BinaryIO, pending: _Pending, table: dict[str, Any]) -> None:
        """Write samples into one shard until it is full."""
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            while (sample := pending.peek()) is not None:
                index, content, suffix = sample
                if content is None:
                    table["skipped"].append(suffix)
                    pending.take()
                    continue
                label = self._dataset.label(index)
                members = {suffix: content, ".cls": str(label).encode()}
                if self._options.json:
                    members[".json"] = self._description(index, label)
                needed = sum(BLOCK + -(-len(part) // BLOCK) * BLOCK for part in members.values())
                if table["rows"] and _padded(out.tell() + needed + 2 * BLOCK) > self._options.size:
                    return
                offset = out.tell() + BLOCK
                for ending, part in members.items():
                    member = tarfile.TarInfo(sample_key(index) + ending)
                    member.size = len(part)
                    archive.addfile(member, io.BytesIO(part))
                table["rows"].append([index, len(content), offset, label, zlib.crc32(content)])
                pending.take()

    def _description(self, index: int, label: int) -> bytes:
        names = self._plan["class_names"]
        found = {"name": self._names[index], "label": label}
        if names is not None and label < len(names):
            found["class_name"] = names[label]
        return json.dumps(found).encode()

    def _finish(
        self,
        tables: list[dict[str, Any]],
        class_names: Sequence[str] | None,
        skipped: list[str],
        before: int,
    ) -> Written:
        """Write the index in the order of the dataset."""
        shards = []
        for number, table in enumerate(tables):
            path = self._folder / shard_name(number)
            if table["rows"]:
                shards.append(Shard(path, table["size"], len(table["rows"])))
            else:  # the last images were all left out
                path.unlink()
        count = sum(shard.samples for shard in shards)
        if not count:
            raise DataError(f"{self._dataset.name}: none of {len(self._order)} images can be read")
        samples = np.empty(count, np.int64)
        rows = np.zeros(count, ROW)
        start = 0
        for number, table in enumerate(tables):
            stop = start + len(table["rows"])
            if stop > start:
                values = np.array(table["rows"], np.int64)
                samples[start:stop] = values[:, 0]
                rows["shard"][start:stop] = number
                for column, field in enumerate(("length", "offset", "label", "crc32"), 1):
                    rows[field][start:stop] = values[:, column]
            start = stop
        rows["number"] = samples
        order = np.argsort(samples, kind="stable")
        rows = rows[order]
        names = [self._names[index] for index in samples[order]]
        fingerprint = fingerprint_of(str(self._folder), names, rows["label"].astype(np.int64))
        if self._options.resize_short is not None:  # other pixels
            how = f"resize_short {self._options.resize_short} quality {self._options.quality}"
            fingerprint = fingerprint_of(str(self._folder), [fingerprint.digest, how], rows["label"])
        write_index(
            self._folder,
            shards,
            rows,
            names,
            numbered=True,
            checksums=True,
            class_names=class_names,
            fingerprint=fingerprint,
            plan=self._plan,
        )
        return Written(count, len(shards), sum(s.size for s in shards), skipped, len(tables) - before)


class _Pending:
    """An iterator whose next item can be looked at; `position` counts the items that were taken."""

    def __init__(self, samples: Iterator[tuple[int, bytes | None, str]], position: int) -> None:
        self._samples = samples
        self._next = next(samples, None)
        self.position = position

    def has_more(self) -> bool:
        return self._next is not None

    def peek(self) -> tuple[int, bytes | None, str] | None:
        return self._next

    def take(self) -> None:
        self._next = next(self._samples, None)
        self.position += 1


def _padded(size: int) -> int:
    """Return the size of a tar file with its end."""
    return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _suffix(name: str, content: bytes) -> str:
    """Return the suffix of an image in its shard: its own, if that is one of an image."""
    own = os.path.splitext(name)[1].lower()
    if own in SUFFIXES:
        return own
    starts = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
    return next((suffix for start, suffix in starts.items() if content.startswith(start)), ".img")


def _encoded_image(pixels: np.ndarray, suffix: str, options: list[int]) -> bytes:
    try:
        done, content = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    except cv2.error as error:
        raise DataError(f"cannot be encoded as {suffix}: {error.err}") from error
    if not done:
        raise DataError(f"cannot be encoded as {suffix}")
    return content.tobytes()


def _bytes(number: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} bytes"
