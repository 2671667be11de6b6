"""Images in tar shards of WebDataset's layout, read at any place through an index."""

from __future__ import annotations

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.class_names import read_fitting_names, shown_name
from ppcls.config.nodes import Options
from ppcls.data.dataset import Dataset, OnError
from ppcls.data.fingerprint import Fingerprint, fingerprint_of
from ppcls.data.folders import match_classes
from ppcls.data.images import ImageError
from ppcls.data.shard_index import CLASSES, INDEX, ShardIndex
from ppcls.data.shard_scan import find_shards, index_of
from ppcls.errors import DataError
from ppcls.registry import DATASETS

_MOST_OPEN = 128  # files; many systems allow 1024 for a process


@DATASETS.register()
class ShardDataset(Dataset):
    """Images in tar shards: those of ``ppcls shard``, or any in WebDataset's layout (``docs/shards.md``).

    The samples, their order and their batches are those of the data that the shards were made from. Shards of
    other tools have no index; it is made once, from the headers of the files, and kept in the cache folder.

    Args:
        path: folder with shards; for those of other tools also a tar file or a pattern such as
            ``data/train-{000000..000099}.tar``.
        transform_ops: transforms of an image.
        batch_transform_ops: transforms of a batch.
        class_names: the classes in order, by which those of the shards are numbered; null means the names in
            the shards, or in evaluation those of the training data.
        label_key: suffix of the members with the class in shards of other tools; null: they have no labels,
            and each image gets class 0, for ``UnLabelTrain``.
        on_error: ``raise``, or ``skip``: images that cannot be read or do not have their checksum are left
            out, counted and named.
        class_num: labels must lie in 0..class_num-1; by default that of the network.

    Raises:
        DataError: if shards are missing, cut off or do not fit the index, or labels or names do not fit.
    """

    has_class_names = True

    def __init__(
        self,
        path: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        class_names: list[str] | None = None,
        label_key: str | None = "cls",
        on_error: OnError = "raise",
        class_num: int | None = None,
    ) -> None:
        super().__init__(path, transform_ops, batch_transform_ops, on_error)
        if _has_index(path):
            self._index = ShardIndex(path)
        else:
            self._index = index_of(find_shards(path), label_key)
        self._index.check_shards()
        self._files = _OpenFiles([shard.path for shard in self._index.shards])
        self._labels = np.array(self._index.rows["label"], np.int64)
        self._renumbered = False
        self.class_names = self._index.class_names
        if class_names is not None and self.class_names is not None:
            self._number_by(self.class_names, [shown_name(str(name)) for name in class_names])
        elif class_names is not None:
            self.class_names = [shown_name(str(name)) for name in class_names]
        self._check_labels(class_num)

    def _number_by(self, own: list[str], wanted: list[str]) -> None:
        """Give each image the number that its class has in `wanted`."""
        used = np.unique(self._labels)
        match_classes([own[label] for label in used], wanted, self.name)
        if own != wanted:
            numbers = np.full(len(own), -1)
            for label in used:
                numbers[label] = wanted.index(own[label])
            self._renumbered = bool((numbers[used] != used).any())
            self._labels = numbers[self._labels]
        self.class_names = wanted

    def _check_labels(self, class_num: int | None) -> None:
        if class_num is not None and self.class_names is not None and len(self.class_names) != class_num:
            raise DataError(
                f"{self.name}: {len(self.class_names)} classes, but class_num is {class_num}; change "
                "class_num, or name all classes in class_names if some have no images here"
            )
        bad = self._labels < 0
        if class_num is not None:
            bad |= self._labels >= class_num
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            bound = "at least 0" if class_num is None else f"in 0..{class_num - 1} (class_num {class_num})"
            raise DataError(
                f"{self.path(first)}: the label must be {bound}, got {self._labels[first]}; "
                f"{int(bad.sum())} of {len(bad)} labels are not"
            )

    @classmethod
    def find_class_names(cls, options: Options) -> list[str] | None:
        """Return the names in ``class_names.txt``; see :meth:`Dataset.find_class_names`."""
        given = options.get("class_names")
        if given is not None:
            return [shown_name(str(name)) for name in given]
        return stored_class_names(str(options.get("path")))

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> str:
        """Return the shard, the key and the name of an image."""
        shard = self._index.shards[self._index.rows["shard"][index]]
        return f"{shard.path}: {self._index.key(index)}, {self._index.name(index)}"

    def paths_with(self, text: str) -> Iterator[str]:
        """Yield the shards whose paths contain `text`."""
        return (path for shard in self._index.shards if text in (path := str(shard.path)))

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return int(self._labels[index])

    def relative_paths(self) -> Iterator[str]:
        """Return the names of all images in the data that the shards were made from."""
        return self._index.names()

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of these images: that of the same data as files."""
        known = self._index.fingerprint
        if known is not None and not self._renumbered:
            return Fingerprint(self.name, known.count, known.digest)
        return fingerprint_of(self.name, self.relative_paths(), self._labels)

    def read(self, index: int) -> bytes:
        """Return the bytes of an image.

        Raises:
            ImageError: if they cannot be read, or do not have their checksum.
        """
        shard, length, offset, _, _, checksum, _ = self._index.rows[index].item()
        try:
            content = self._files.read(shard, length, offset)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror or error}") from error
        if len(content) < length:
            raise ImageError(f"the shard was cut off: {len(content)} of {length} bytes are there")
        if not content:
            raise ImageError("the file is empty")
        if self._index.has_checksums and zlib.crc32(content) != checksum:
            raise ImageError("damaged: the bytes do not have the checksum in the index; copy the shard again")
        return content


def stored_class_names(path: str) -> list[str] | None:
    """Return the names of the classes that ``ppcls shard`` stored with its shards; None without names."""
    folder = Path(path)
    if not (_has_index(path) and (folder / CLASSES).is_file()):
        return None
    return read_fitting_names(folder.absolute() / CLASSES, None)


def _has_index(path: str) -> bool:
    return os.path.isfile(os.path.join(path, INDEX))


class _OpenFile:
    """A file that is read at any place by several threads; it is closed when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        self._handle = -1
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()

    def read(self, length: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._handle, length, offset)
        with self._lock:  # Windows
            os.lseek(self._handle, offset, os.SEEK_SET)
            return os.read(self._handle, length)

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


class _OpenFiles:
    """The shards that were read last, opened."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._opened: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, number: int, length: int, offset: int) -> bytes:
        """Return up to `length` bytes from `offset` of a file."""
        with self._lock:
            file = self._opened.get(number)
            if file is None:
                file = self._opened[number] = _OpenFile(self._paths[number])
                if len(self._opened) > _MOST_OPEN:
                    self._opened.popitem(last=False)
            else:
                self._opened.move_to_end(number)
        return file.read(length, offset)

    def __reduce__(self) -> tuple[type[_OpenFiles], tuple[list[Path]]]:
        return _OpenFiles, (self._paths,)  # another process opens the files itself
