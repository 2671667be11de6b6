"""Datasets: where the images and labels of a run come from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np

from ppcls.class_names import read_fitting_names, shown_name
from ppcls.config.nodes import Options
from ppcls.contracts import Component
from ppcls.data.fingerprint import Fingerprint, fingerprint_of
from ppcls.data.folders import SUFFIXES, FolderSearch, list_class_names, match_classes, shown_names
from ppcls.data.images import Naming, read_file
from ppcls.data.lists import class_mapping, label_names, read_list
from ppcls.data.names import Names
from ppcls.data.rng import sample_rng
from ppcls.data.transforms import Compose, build_transforms
from ppcls.errors import ConfigError, DataError
from ppcls.registry import DATASETS
from ppcls.texts import near_path, sentence

OnError = Literal["raise", "skip"]
OpenSample = Callable[[int, int, int], tuple[Any, int]]  # see Dataset.open_sample
REMEDY = (
    ". Replace the file, take it out of the data, or set on_error: skip in the dataset; "
    "`ppcls check-data` finds all such files"
)


class Dataset(Component, ABC):
    """Base class of datasets: images with labels, and the transforms that prepare them.

    Attributes:
        name: name of the dataset in messages.
        transforms: the chain, see :class:`ppcls.data.transforms.Compose`.
        batch_transform_ops: config of the transforms of whole batches; the loader runs them.
        on_error: ``raise``, or ``skip`` to leave out images that cannot be read.
        class_names: names by class if they are a part of the data; otherwise None.
        has_class_names: whether datasets of this class have names as a part of their data.
        multi_scale: whether :meth:`chain` can give images of any requested size.
        is_stream: whether samples can be read only in the order of an epoch, see :meth:`opener`.
    """

    name: str = "the dataset"
    transforms: Compose = Compose(())
    batch_transform_ops: list[Any] | tuple[()] = ()
    on_error: str = "raise"
    class_names: list[str] | None = None
    has_class_names: bool = False
    multi_scale: bool = False
    is_stream: bool = False

    def __init__(
        self,
        name: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        on_error: str = "raise",
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
        """Return the file of a sample, or another text by which the user can find it."""

    @abstractmethod
    def label(self, index: int) -> int:
        """Return the class of a sample."""

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of this list of samples; it does not depend on the folder of the data."""
        return fingerprint_of(self.name, self.relative_paths(), map(self.label, range(len(self))))

    def paths_with(self, text: str) -> Iterator[str]:
        """Yield the paths of the files that contain `text`; several images may be in one file.

        Datasets of millions of images override it, so that it takes no seconds.
        """
        return (path for path in map(self.path, range(len(self))) if text in path)

    def relative_paths(self) -> Iterable[str]:
        """Return the names of all samples, which do not depend on the folder of the data."""
        return map(self.path, range(len(self)))

    @classmethod
    def find_class_names(cls, options: Options) -> list[str] | None:
        """Return the `class_names` that a dataset with these options would have, without reading images.

        Args:
            options: as in the YAML.

        Returns:
            None if names are not a part of the data, or the data are missing.

        Raises:
            DataError: if the data cannot be read.
        """
        return None

    def read(self, index: int) -> Any:
        """Return the input of the first transform; here the bytes of the file.

        Raises:
            ImageError: if it cannot be read.
        """
        return read_file(self.path(index))

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the input of the first transform, and the label."""
        if not 0 <= index < len(self):  # the iteration protocol ends with this error
            raise IndexError(f"{self.name} has {len(self)} samples, there is no sample {index}")
        return self.read(index), self.label(index)

    def open_sample(self, index: int, epoch: int, seed: int) -> tuple[Any, int]:
        """Return the input of the first transform, and the label, of a sample in an epoch.

        Args:
            index: place in the dataset.
            epoch: number of the epoch.
            seed: seed of the run.

        Raises:
            ImageError: if it cannot be read.
        """
        label = self.label(index)
        return self.read(index), label

    def opener(self, epoch: int, seed: int, wanted: np.ndarray, *, shuffled: bool) -> OpenSample:
        """Return what opens the samples of an epoch; the loader calls it only if `is_stream`.

        Args:
            epoch: number of the epoch.
            seed: seed of the run.
            wanted: the samples that will be opened, nearly in this order, int64 [N].
            shuffled: whether the sampler shuffles.
        """
        return self.open_sample

    def chain(self, size: tuple[int, int] | None) -> Compose:
        """Return the transforms that give images of `size` (width, height); None: as in the recipe.

        Raises:
            ConfigError: if a size is given, because this dataset cannot change it.
        """
        if size is not None:
            raise ConfigError("only MultiScaleDataset gives images of several sizes", path=f"{self.name}")
        return self.transforms

    def sample(
        self,
        index: int,
        epoch: int,
        seed: int,
        out: np.ndarray | None = None,
        repeat: int = 0,
        size: tuple[int, int] | None = None,
    ) -> tuple[np.ndarray, int]:
        """Return a sample as training gets it; the result depends only on the arguments.

        Args:
            index: place in the dataset.
            epoch: number of the epoch; with `seed` it decides the augmentation.
            seed: seed of the run.
            out: an array that may take the image; it does not change the values.
            repeat: how often this sample already occurred in the epoch; each time it is augmented
                differently.
            size: width and height of the image, see :meth:`chain`.

        Returns:
            image [C, H, W], float32 (float16 if a transform gives that), and the label.

        Raises:
            ImageError: naming the file, if it cannot be read or decoded.
            DataError: naming the file, for any other error; with the cause.
        """
        remedy = REMEDY if self.on_error == "raise" else ""
        with Naming(lambda: f"{self.path(index)} (sample {index})", remedy):
            rng = sample_rng(seed, epoch, index, repeat)
            return self.chain(size).chw(self.read(index), rng, out), self.label(index)


@DATASETS.register(aliases=("ClsDataset",))
class ImageNetDataset(Dataset):
    """Images named by a list file, with one line ``path<delimiter>label`` per image.

    Labels are the numbers of classes, or the names of classes.

    Labelled and unlabelled images (label 0, for losses that use no labels) are mixed by joining two lists.

    Args:
        image_root: folder that the paths in the list start from.
        cls_label_path: the list file, UTF-8.
        transform_ops: transforms of an image.
        batch_transform_ops: transforms of a batch.
        delimiter: text between path and label; null means the last tab of a line, otherwise its last blank.
        relabel: a list file whose distinct labels, in ascending order, become classes 0, 1, ...; name the
            training list here for training and evaluation alike.
        on_error: ``raise``, or ``skip``: images that cannot be read are left out, counted and named.
        class_num: labels must lie in 0..class_num-1; by default that of the network.
        class_names: names by class, or a file with one line ``id name`` per class. By default, labels that
            are names are sorted, in evaluation as in training; numbers have no names. Names without a letter
            (0-9, 18+) have to be given.
        labelled: False, as in ``UnLabelTrain``, accepts lines that are paths alone; labels are not read.

    Raises:
        ConfigError: for ``relabel: true``, and ``relabel`` with labels that are names.
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
        class_names: list[str] | str | None = None,
        labelled: bool = True,
    ) -> None:
        super().__init__(cls_label_path, transform_ops, batch_transform_ops, on_error)
        if relabel is True:
            raise ConfigError(
                f"relabel: true would number the classes of {cls_label_path} on its own, and those of "
                "another list differently; name the training list in both: relabel: path/to/train_list.txt"
            )
        self.image_root = image_root
        given = _names_of_classes(class_names)
        by_name = label_names(cls_label_path, delimiter, given) if labelled else None
        if by_name and relabel:
            raise ConfigError(f"relabel is for numbers, but the labels of {cls_label_path} are names")
        mapping = class_mapping(relabel, delimiter) if relabel else None
        names = given or by_name
        if class_num is not None and names is not None and len(names) != class_num:
            if by_name or isinstance(class_names, str):
                raise DataError(
                    f"{cls_label_path}: {len(names)} classes by name, but class_num is {class_num}; change "
                    "class_num, or name all classes in class_names if some have no images here"
                )
            names = None
        self.class_names = names
        self._list = read_list(
            cls_label_path,
            image_root,
            delimiter=delimiter,
            class_num=class_num,
            mapping=mapping,
            class_names=names if by_name else None,
            labelled=labelled,
        )

    @classmethod
    def find_class_names(cls, options: Options) -> list[str] | None:
        """Return the names of the classes, if a list or a file has them; see :meth:`Dataset`."""
        given = _names_of_classes(options.get("class_names"))
        path = str(options.get("cls_label_path"))
        if given is not None or not os.path.isfile(path):
            return given
        return label_names(path, options.get("delimiter"))

    def __len__(self) -> int:
        return len(self._list.names)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self.image_root, self._list.names[index])

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return int(self._list.labels[index])

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of this list; takes a tenth of a second for a million images."""
        return fingerprint_of(self.name, self._list.names, self._list.labels)

    def paths_with(self, text: str) -> Iterator[str]:
        """Yield the paths that contain `text`, which has no separator of folders."""
        if text in self.image_root:
            yield from super().paths_with(text)
            return
        for name in self._list.names:
            if text in name:
                yield os.path.join(self.image_root, name)

    def relative_paths(self) -> Names:
        """Return the paths of all images as the list has them."""
        return self._list.names


@DATASETS.register()
class FolderDataset(Dataset):
    """Images in one folder for each class.

    Classes are in order of the folders' names; names that are whole numbers come first, as numbers: 0, 1, 2,
    10. Hidden files and folders are ignored, and no real folder is searched twice, see
    :class:`ppcls.data.folders.FolderSearch`.

    Args:
        image_root: folder that holds the class folders.
        transform_ops: transforms of an image.
        batch_transform_ops: transforms of a batch.
        class_names: the class folders in order; null means all folders, or in evaluation those of the
            training data. A class without a folder keeps its number; a folder that is not in the list is an
            error.
        on_error: ``raise``, or ``skip``: images that cannot be read are left out, counted and named.
        class_num: number of classes there must be; by default that of the network.
        labelled: False, as in ``UnLabelTrain``, takes all images of `image_root`, in folders and beside them;
            `class_names` then says nothing about the folders.

    Raises:
        DataError: if folders or images are missing, a folder is no class, or there are not `class_num`
            classes.
    """

    class_names: list[str]
    has_class_names = True

    def __init__(
        self,
        image_root: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        class_names: list[str] | None = None,
        on_error: OnError = "raise",
        class_num: int | None = None,
        labelled: bool = True,
    ) -> None:
        super().__init__(image_root, transform_ops, batch_transform_ops, on_error)
        if not os.path.isdir(image_root):
            raise DataError(f"image_root {image_root} is no folder{sentence(near_path(image_root))}")
        search = FolderSearch(image_root)
        folders = search.class_folders()
        if labelled and not folders and not class_names:
            raise DataError(f"{image_root}: holds no folder for each class of images{_skipped(search)}")
        self.class_names = found = shown_names(folders, image_root)
        if class_names is not None:
            self.class_names = shown_names([str(name) for name in class_names], "class_names")
        classes = self.class_names if labelled else found
        by_name = match_classes(folders, classes, image_root)
        if class_num is not None and len(self.class_names) != class_num:
            raise DataError(
                f"{image_root}: {len(self.class_names)} classes, but class_num is {class_num}; change "
                "class_num, or name all classes in class_names if some have no images here"
                f"{_skipped(search)}"
            )
        paths_of = search.images([os.path.join(image_root, folder) for folder in by_name.values()])
        images = dict(zip(by_name, paths_of, strict=True))
        self._samples = [
            (path, number) for number, name in enumerate(classes) for path in images.get(name, ())
        ]
        if not labelled:
            self._samples += [(path, 0) for path in search.loose_images()]
        search.report()
        if not self._samples:
            where = "no class folder holds an image" if labelled else "the folder holds no image"
            raise DataError(f"{image_root}: {where} ({' '.join(sorted(SUFFIXES))})")

    @classmethod
    def find_class_names(cls, options: Options) -> list[str] | None:
        """Return the names of the class folders; see :meth:`Dataset.find_class_names`."""
        given = options.get("class_names")
        root = str(options.get("image_root"))
        if given is not None:
            return [shown_name(str(name)) for name in given]
        return (list_class_names(root) or None) if os.path.isdir(root) else None

    def __len__(self) -> int:
        return len(self._samples)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self._samples[index][0]

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return self._samples[index][1]

    def relative_paths(self) -> Iterator[str]:
        """Return the paths of all images from their folder on."""
        return (os.path.relpath(path, self.name).replace(os.sep, "/") for path, _ in self._samples)


def _names_of_classes(given: list[str] | str | None) -> list[str] | None:
    """Return names by class that are given as a list or in a file."""
    if isinstance(given, str):
        return read_fitting_names(given, None)
    return None if given is None else shown_names([str(name) for name in given], "class_names")


def _skipped(search: FolderSearch) -> str:
    left_out = [os.path.basename(path) for path in (*search.hidden, *search.again) if os.path.isdir(path)]
    return f" (folders that are hidden or links do not count: {', '.join(left_out[:5])})" if left_out else ""
