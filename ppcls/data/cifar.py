"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from their files for Python."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppcls.class_names import shown_name
from ppcls.config.nodes import Options
from ppcls.data.dataset import Dataset
from ppcls.errors import DataError
from ppcls.registry import DATASETS
from ppcls.texts import near_path

Part = Literal["train", "test"]


class _Cifar(Dataset):
    """Images of 32x32 pixels in memory, uint8 [32, 32, 3] in RGB: chains have no DecodeImage.

    Attributes:
        classes: number of classes.
        label_key: key of the labels in a file.
        meta: name of the file with the class names.
        names_key: key of the names in that file.
    """

    has_class_names = True
    classes: int
    label_key: bytes
    meta: str
    names_key: bytes

    def __init__(
        self,
        data_file: str,
        files: list[str],
        transform_ops: list[Any] | None,
        batch_transform_ops: list[Any] | None,
        class_num: int | None,
    ) -> None:
        super().__init__(data_file, transform_ops, batch_transform_ops, "raise")
        classes = self.classes
        if class_num is not None and class_num != classes:
            raise DataError(f"{data_file}: {classes} classes, but class_num is {class_num}")
        parts = [_load(Path(data_file), name, self.label_key) for name in files]
        self._images = np.concatenate([images for images, _ in parts])
        self._labels = np.concatenate([labels for _, labels in parts])
        self._places = [
            f"{data_file}/{name}#{n}"
            for name, (_, at) in zip(files, parts, strict=True)
            for n in range(len(at))
        ]
        bad = np.flatnonzero((self._labels < 0) | (self._labels >= classes))
        if len(bad):
            raise DataError(
                f"{self.path(int(bad[0]))}: the label is {self._labels[bad[0]]}, not in 0..{classes - 1}"
            )
        self.class_names = self.find_class_names({"data_file": data_file})

    @classmethod
    def find_class_names(cls, options: Options) -> list[str] | None:
        """Return the names in the file ``meta``; see :meth:`Dataset.find_class_names`."""
        source = Path(str(options.get("data_file")))
        if not source.exists():
            return None
        names = _names(source, source.stat().st_mtime_ns, cls.meta, cls.names_key)
        return list(names) if names is not None and len(names) == cls.classes else None

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> str:
        """Return the file that holds an image and its position there."""
        return self._places[index]

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return int(self._labels[index])

    def relative_paths(self) -> Iterator[str]:
        """Return the position of each image in its file."""
        start = len(self.name) + 1
        return (place[start:] for place in self._places)

    def read(self, index: int) -> np.ndarray:
        """Return the image, uint8 [32, 32, 3] in RGB."""
        return self._images[index].reshape(3, 32, 32).transpose(1, 2, 0).copy()


@DATASETS.register()
class Cifar10(_Cifar):
    """CIFAR-10: 50,000 and 10,000 images of 10 classes.

    Args:
        data_file: ``cifar-10-python.tar.gz``, or the folder that it unpacks to.
        transform_ops: transforms of an image, which is already decoded, in RGB.
        batch_transform_ops: transforms of a batch.
        mode: ``train`` or ``test``; by default the part that training or evaluation uses.
        class_num: classes of the network.

    Raises:
        DataError: if a file is missing or damaged, or `class_num` is not 10.
    """

    classes = 10
    label_key = b"labels"
    meta = "batches.meta"
    names_key = b"label_names"

    def __init__(
        self,
        data_file: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        mode: Part = "train",
        class_num: int | None = None,
    ) -> None:
        files = ["test_batch"] if mode == "test" else [f"data_batch_{n}" for n in range(1, 6)]
        super().__init__(data_file, files, transform_ops, batch_transform_ops, class_num)


@DATASETS.register()
class Cifar100(_Cifar):
    """CIFAR-100: 50,000 and 10,000 images of 100 classes (the fine labels).

    Args:
        data_file: ``cifar-100-python.tar.gz``, or the folder that it unpacks to.
        transform_ops: transforms of an image, which is already decoded, in RGB.
        batch_transform_ops: transforms of a batch.
        mode: ``train`` or ``test``; by default the part that training or evaluation uses.
        class_num: classes of the network.

    Raises:
        DataError: if a file is missing or damaged, or `class_num` is not 100.
    """

    classes = 100
    label_key = b"fine_labels"
    meta = "meta"
    names_key = b"fine_label_names"

    def __init__(
        self,
        data_file: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        mode: Part = "train",
        class_num: int | None = None,
    ) -> None:
        super().__init__(data_file, [mode], transform_ops, batch_transform_ops, class_num)


def _load(source: Path, name: str, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the images uint8 [N, 3072] and labels int64 [N] of one file."""
    from ppcls.weights.unpickle import MALFORMED, RefusedError, load_plain  # imports Paddle

    where = f"{source}/{name}"
    try:
        content = load_plain(io.BytesIO(_content(source, name)), encoding="bytes")
        images = content[b"data"]
        labels = np.asarray(content[label_key], np.int64)
    except RefusedError as error:
        raise DataError(f"{where}: refused, the file asks for {error}") from None
    except MALFORMED as error:
        raise DataError(
            f"{where}: not a file of CIFAR for Python ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(images, np.ndarray) or images.shape != (len(labels), 3072) or images.dtype != np.uint8:
        raise DataError(f"{where}: expected uint8 images [{len(labels)}, 3072], got {np.shape(images)}")
    return images, labels


@cache
def _names(source: Path, changed: int, name: str, key: bytes) -> tuple[str, ...] | None:
    """Return the class names of a file ``meta``; None if there is none that can be read.

    Args:
        source: the archive or folder.
        changed: time of its last change, so that a changed file is read again.
        name: name of the file.
        key: key of the names in the file.
    """
    from ppcls.weights.unpickle import MALFORMED, RefusedError, load_plain

    try:
        listed = load_plain(io.BytesIO(_content(source, name)), encoding="bytes")[key]
        return tuple(shown_name(text.decode("utf-8", "backslashreplace")) for text in listed)
    except (DataError, RefusedError, AttributeError, *MALFORMED):
        return None


def _content(source: Path, name: str) -> bytes:
    if not source.exists():
        raise DataError(f"data_file {source}: no such file or folder.{near_path(source)}")
    try:
        if source.is_dir():
            return (source / name).read_bytes()
        with tarfile.open(source) as archive:
            member = next((m for m in archive if m.isfile() and Path(m.name).name == name), None)
            file = archive.extractfile(member) if member else None
            if file is None:
                raise DataError(f"{source}: the archive holds no {name}")
            return file.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{source}: cannot read {name}: {error}") from error
