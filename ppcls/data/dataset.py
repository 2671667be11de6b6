"""Datasets: where the images and labels of a run come from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Literal

import numpy as np

from ppcls.data.fingerprint import Fingerprint, fingerprint_of
from ppcls.data.images import SUFFIXES, ImageError, images_below, read_file
from ppcls.data.lists import class_mapping, read_list
from ppcls.data.rng import sample_rng
from ppcls.data.transforms import build_transforms
from ppcls.errors import ConfigError, DataError, PpclsError
from ppcls.registry import DATASETS

OnError = Literal["raise", "skip"]
REMEDY = (
    ". Replace the file, take it out of the data, or set on_error: skip in the dataset; "
    "`ppcls check-data` finds all such files"
)


class Dataset(ABC):
    """Images with labels, and the transforms that prepare them.

    Attributes:
        name: what messages call the dataset.
        transforms: the chain, see :class:`ppcls.data.transforms.Compose`.
        batch_transform_ops: nodes of the transforms of whole batches; the loader runs them.
        on_error: ``raise``, or ``skip`` to leave out images that cannot be read.
    """

    def __init__(
        self,
        name: str,
        transform_ops: list[Any] | None,
        batch_transform_ops: list[Any] | None,
        on_error: str,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"{name}: on_error must be raise or skip, got {on_error!r}")
        self.name = name
        self.transforms = build_transforms(transform_ops, "transform_ops")
        self.batch_transform_ops = batch_transform_ops or []
        self.on_error = on_error

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def path(self, index: int) -> str:
        """Return the file of a sample, or what else tells the user which one it is."""

    @abstractmethod
    def label(self, index: int) -> int:
        """Return the class of a sample."""

    def fingerprint(self) -> Fingerprint:
        """Return what tells this list of samples from another one, wherever the data lies."""
        places = range(len(self))
        return fingerprint_of(self.name, map(self.path, places), map(self.label, places))

    def read(self, index: int) -> Any:
        """Return what the first transform takes; here the bytes of the file.

        Raises:
            ImageError: if it cannot be read.
        """
        return read_file(self.path(index))

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return what the first transform takes, and the label."""
        if not 0 <= index < len(self):  # the iteration protocol ends with this error
            raise IndexError(f"{self.name} has {len(self)} samples, there is no sample {index}")
        return self.read(index), self.label(index)

    def sample(
        self, index: int, epoch: int, seed: int, out: np.ndarray | None = None, repeat: int = 0
    ) -> tuple[np.ndarray, int]:
        """Return a sample as training sees it; a pure function of its arguments.

        Args:
            index: place in the dataset.
            epoch: number of the epoch; with `seed` it decides the augmentation.
            seed: seed of the run.
            out: an array that may take the image; it does not change the values.
            repeat: how often the epoch had this sample before; each time is augmented in its own way.

        Returns:
            image [C, H, W], float32 (float16 if a transform gives that), and the label.

        Raises:
            ImageError: naming the file, if it cannot be read or decoded.
            DataError: naming the file, for whatever else goes wrong on the way; with the cause.
        """
        with _Naming(self, index):
            rng = sample_rng(seed, epoch, index, repeat)
            return self.transforms.chw(self.read(index), rng, out), self.label(index)


class _Naming:
    """Says which sample an error belongs to, whatever its type: transforms may be third-party code."""

    def __init__(self, dataset: Dataset, index: int) -> None:
        self.dataset, self.index = dataset, index

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return  # whatever else is no Exception, such as SystemExit, would end a thread without a word
        text = str(error) if isinstance(error, PpclsError) else f"{type(error).__name__}: {error}"
        unreadable = isinstance(error, ImageError)
        named = ImageError if unreadable else DataError
        remedy = REMEDY if unreadable and self.dataset.on_error == "raise" else ""
        raise named(f"{self.dataset.path(self.index)} (sample {self.index}): {text}{remedy}") from error


@DATASETS.register(aliases=("ClsDataset",))
class ImageNetDataset(Dataset):
    """Images named by a list file with a line ``path<delimiter>label`` each.

    Labelled and unlabelled images (label 0, for losses that use no labels) are mixed by joining two lists.

    Args:
        image_root: folder that the paths in the list start from.
        cls_label_path: the list file, UTF-8.
        transform_ops: transforms of an image.
        batch_transform_ops: transforms of a batch.
        delimiter: between path and label; null is the last blank or tab of a line.
        relabel: a list file whose distinct labels, in ascending order, become classes 0, 1, ...; name the
            training list here for training and evaluation alike.
        on_error: ``raise``, or ``skip``: images that cannot be read are left out, counted and named.
        class_num: labels must lie in 0..class_num-1; by default that of the network.

    Raises:
        ConfigError: for ``relabel: true``.
        DataError: with the first mistakes in the list, each with its line.
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        delimiter: str | None = None,
        relabel: str | bool = False,
        on_error: OnError = "raise",
        class_num: int | None = None,
    ) -> None:
        super().__init__(cls_label_path, transform_ops, batch_transform_ops, on_error)
        if relabel is True:
            raise ConfigError(
                f"relabel: true would number the classes of {cls_label_path} on its own, and those of "
                "another list differently; name the training list in both: relabel: path/to/train_list.txt"
            )
        mapping = class_mapping(relabel, delimiter) if relabel else None
        self.image_root = image_root
        self._list = read_list(
            cls_label_path, image_root, delimiter=delimiter, class_num=class_num, mapping=mapping
        )

    def __len__(self) -> int:
        return len(self._list.names)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self.image_root, self._list.names[index])

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return int(self._list.labels[index])

    def fingerprint(self) -> Fingerprint:
        """Return what tells this list from another one; 0.5 s for a million images."""
        return fingerprint_of(self.name, self._list.names, self._list.labels)


@DATASETS.register()
class FolderDataset(Dataset):
    """Images in one folder for each class, in order of the folders' names.

    Args:
        image_root: folder that holds the class folders.
        transform_ops: transforms of an image.
        batch_transform_ops: transforms of a batch.
        class_names: the class folders in order; null takes all there are. Name them where a dataset, such
            as that of evaluation, lacks a class, so that the others keep their numbers.
        on_error: ``raise``, or ``skip``: images that cannot be read are left out, counted and named.
        class_num: number of classes there must be; by default that of the network.

    Attributes:
        class_names: names by class index.

    Raises:
        DataError: if folders or images are missing, or there are not `class_num` classes.
    """

    def __init__(
        self,
        image_root: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        class_names: list[str] | None = None,
        on_error: OnError = "raise",
        class_num: int | None = None,
    ) -> None:
        super().__init__(image_root, transform_ops, batch_transform_ops, on_error)
        if not os.path.isdir(image_root):
            raise DataError(f"image_root {image_root} is no folder")
        with os.scandir(image_root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir())
        unknown = [] if class_names is None else [name for name in folders if name not in class_names]
        if unknown:
            raise DataError(f"{image_root}: folders that class_names does not name: {', '.join(unknown[:5])}")
        self.class_names = folders if class_names is None else list(class_names)
        if class_num is not None and len(self.class_names) != class_num:
            raise DataError(
                f"{image_root}: {len(self.class_names)} classes, but class_num is {class_num}; change "
                "class_num, or name all classes in class_names if some have no images here"
            )
        self._samples = [
            (path, number)
            for number, name in enumerate(self.class_names)
            for path in images_below(os.path.join(image_root, name))
        ]
        if not self._samples:
            raise DataError(f"{image_root}: no class folder holds an image ({' '.join(sorted(SUFFIXES))})")

    def __len__(self) -> int:
        return len(self._samples)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self._samples[index][0]

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return self._samples[index][1]

    def fingerprint(self) -> Fingerprint:
        """Return what tells these images from others; the folder they lie in does not count."""
        names = (os.path.relpath(path, self.name).replace(os.sep, "/") for path, _ in self._samples)
        return fingerprint_of(self.name, names, (label for _, label in self._samples))
