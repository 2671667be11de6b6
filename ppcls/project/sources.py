"""What a user's data are: class folders, lists or shards, with or without a part for validation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.class_names import read_fitting_names
from ppcls.data import Dataset, FolderDataset, ImageNetDataset, ShardDataset
from ppcls.data.folders import SUFFIXES, FolderSearch
from ppcls.data.shard_index import INDEX
from ppcls.errors import ConfigError, DataError
from ppcls.texts import near_path, sentence

# Names of the folders and lists of the parts, in lower case, the best one first.
TRAIN_NAMES = ("train", "training", "train_set", "training_set", "trainset")
VAL_NAMES = (
    *("val", "valid", "validation", "val_set", "validation_set", "valset", "dev", "eval"),
    *("test", "testing", "test_set", "testing_set", "testset"),
)
# Files beside lists that may hold the names of the classes.
_NAMES = ("class_names.txt", "label_list.txt", "labels.txt", "classes.txt", "names.txt")
_LISTS = (".txt", ".csv", ".tsv", ".lst", ".list")
_SHOWN = 5


@dataclass
class Part:
    """A part of the data: some samples of a dataset.

    Attributes:
        dataset: reads the images.
        indices: which of its samples belong to the part, ascending, int64.
        options: options of the dataset in a recipe; None if a list of the samples has to be written.
    """

    dataset: Dataset
    indices: np.ndarray
    options: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """The class of each sample, int64 [N]."""
        return np.array([self.dataset.label(index) for index in self.indices.tolist()], np.int64)

    def path(self, place: int) -> str:
        """Return the file of a sample, or another text by which a user finds it."""
        return self.dataset.path(int(self.indices[place]))


@dataclass
class Source:
    """What was found at a path.

    Attributes:
        kind: ``class folders``, ``a list`` or ``shards``, for messages.
        root: folder that paths in lists start from.
        train: the images of training, or all images.
        val: those of validation; None if the data have no such part.
        class_names: names by class; None if the data have numbers alone.
        notes: what the user should know, as sentences.
        files: lists and files of names that belong to the data, which nothing may replace.
    """

    kind: str
    root: Path
    train: Part
    val: Part | None = None
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    files: tuple[Path, ...] = ()


def whole(dataset: Dataset, options: dict[str, Any] | None = None) -> Part:
    """Return all samples of a dataset as a part."""
    return Part(dataset, np.arange(len(dataset)), options)


def find_source(path: str | Path, image_root: str | Path | None = None) -> Source:
    """Find out what a path holds.

    Args:
        path: a folder of class folders, of parts with class folders, of lists or of shards; or a list file.
        image_root: folder that the paths in a list start from; by default that of the list.

    Raises:
        DataError: if nothing is there that can be trained on, with what was expected.
    """
    if not str(path):
        raise DataError("DATA: an empty path; name a folder of class folders, a list or shards")
    data = Path(os.path.expanduser(path))
    if data.is_file():
        return _of_lists(data, None, image_root)
    if not data.is_dir():
        raise DataError(f"DATA: {path}: no such folder or list{sentence(near_path(data))}")
    data = Path(os.path.abspath(data))
    if (data / INDEX).is_file() or _shard_parts(data):
        if image_root is not None:
            raise DataError(f"image_root is for lists, but {data} holds shards, which contain their images")
        return _of_shards(data)
    lists = _find_lists(data)
    if lists is not None:
        return _of_lists(*lists, image_root if image_root is not None else data)
    if image_root is not None:
        raise DataError(f"image_root is for lists, but {data} is a folder of images")
    return _of_folders(data)


def require_outside(source: Source, folder: str | Path) -> None:
    """Raise ConfigError if a folder that is to be written lies among class folders."""
    out = Path(os.path.abspath(os.path.expanduser(folder)))
    root = source.root
    if source.kind == "class folders" and (out == root or root in out.parents):
        beside = root.parent / f"{root.name}-{'project' if out == root else out.name}"
        raise ConfigError(
            f"out: {out} lies in {root}, where it would be taken for a class; choose another, such as "
            f"--out {os.path.relpath(beside)}"
        )


def _named(entries: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the entry with the first of the names, in upper or lower case."""
    lower = {entry.lower(): entry for entry in reversed(entries)}
    return next((lower[name] for name in names if name in lower), None)


def _instead(kind: str, name: str) -> str:
    return f"There is no {kind} named val, so {name} is used for validation: the best epoch is chosen on it."


# ---------------------------------------------------------------------- class folders


def _of_folders(root: Path) -> Source:
    folders = FolderSearch(root).class_folders()
    train, val = _named(folders, TRAIN_NAMES), _named(folders, VAL_NAMES)
    if train is not None and _has_folders(root / train) and (val is not None or len(folders) == 1):
        return _of_parts(root, train, val, folders)
    if train is not None and _has_folders(root / train):
        others = ", ".join(name for name in folders if name != train)
        raise DataError(
            f"{root}: {train} has class folders, so it looks like a part for training, but no folder "
            f"beside it ({others}) is named as a part for validation, such as val; rename it, or name "
            f"{root / train}"
        )
    _require_classes(root, folders)
    dataset = FolderDataset(str(root))
    source = Source("class folders", root, whole(dataset), class_names=dataset.class_names)
    loose = len(FolderSearch(root).loose_images())
    if loose:
        source.notes.append(
            f"Not used: {loose} {'image' if loose == 1 else 'images'} right in {root}, in no class folder."
        )
    _note_empty(source, source.train, dataset.class_names, "")
    return source


def _of_parts(root: Path, train: str, val: str | None, folders: list[str]) -> Source:
    _require_classes(root / train, FolderSearch(root / train).class_folders())
    training = FolderDataset(str(root / train))
    names = training.class_names
    options = {"name": "FolderDataset", "image_root": str(root / train)}
    source = Source("class folders", root / train, whole(training, options), class_names=names)
    others = [name for name in folders if name not in (train, val)]
    if val is None:
        source.train.options = None
    else:
        held = FolderDataset(str(root / val), class_names=names)
        source.val = whole(held, {"name": "FolderDataset", "image_root": str(root / val)})
        if val.lower().startswith("test"):
            source.notes.append(_instead("folder", val))
        _note_empty(source, source.val, names, f" in {val}")
    if others:
        source.notes.append(f"Not used: {', '.join(others[:_SHOWN])} (beside {train} and {val or 'no val'}).")
    _note_empty(source, source.train, names, f" in {train}")
    return source


def _require_classes(root: Path, folders: list[str]) -> None:
    """Refuse folders that are not class folders of two classes or more."""
    if not folders:
        loose = len(FolderSearch(root).loose_images())
        held = f"holds {loose} images, but" if loose else "holds"
        raise DataError(
            f"{root}: {held} no class folders; expected one folder of images for each class, "
            "such as DATA/cat/1.jpg and DATA/dog/1.jpg, or a list with lines 'path label'"
        )
    if len(folders) == 1:
        inner = FolderSearch(root / folders[0]).class_folders()
        remedy = f" Or are the classes in {root / folders[0]} ({', '.join(inner[:3])})?" if inner else ""
        raise DataError(
            f"{root}: only one class folder, {folders[0]!r}; a classifier needs two classes or more.{remedy}"
        )


def _note_empty(source: Source, part: Part, names: Sequence[str], where: str) -> None:
    counts = np.bincount(part.labels, minlength=len(names))
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        remedy = "remove the folders if they are left over"
        if source.kind == "a list":
            remedy = "classes count from 0, so check the numbers of the list if this is not intended"
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        source.notes.append(
            f"{len(empty)} {'class has' if len(empty) == 1 else 'classes have'} no images{where}: "
            f"{', '.join(empty[:_SHOWN])}{more}. They stay classes; {remedy}."
        )


def _has_folders(folder: Path) -> bool:
    return bool(FolderSearch(folder).class_folders())


# ---------------------------------------------------------------------- lists


def _find_lists(folder: Path) -> tuple[Path, Path | None] | None:
    """Return the lists of training and validation in a folder, such as train_list.txt and val_list.txt."""
    files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    stems = {
        os.path.splitext(name)[0].lower().removesuffix("_list"): name
        for name in files
        if os.path.splitext(name)[1].lower() in _LISTS
    }
    train, val = _named(list(stems), TRAIN_NAMES), _named(list(stems), VAL_NAMES)
    if train is None:
        return None
    return folder / stems[train], None if val is None else folder / stems[val]


def _of_lists(train: Path, val: Path | None, image_root: str | Path | None) -> Source:
    train = Path(os.path.abspath(train))
    if train.suffix.lower() in SUFFIXES:
        raise DataError(f"DATA: {train} is one image; expected a folder of class folders, a list or shards")
    root = Path(os.path.abspath(os.path.expanduser(image_root or train.parent)))
    delimiter = {".csv": ",", ".tsv": "\t"}.get(train.suffix.lower())
    more = {} if delimiter is None else {"delimiter": delimiter}
    parts: list[Part] = []
    names = None
    for file in (train, val):
        if file is not None:
            dataset = ImageNetDataset(str(root), str(file), delimiter=delimiter, class_names=names)
            names = names or dataset.class_names
            options = {
                "name": "ImageNetDataset",
                "image_root": str(root),
                "cls_label_path": str(file),
                **more,
            }
            parts.append(whole(dataset, options))
    source = Source("a list", root, parts[0], parts[1] if val is not None else None, names)
    beside = [train.parent / name for name in _NAMES]
    source.files = tuple(file for file in (train, val, *beside) if file is not None and file.is_file())
    if names is None:
        _find_names(source, train.parent)
    count = max(int(part.labels.max()) for part in parts) + 1
    _note_empty(source, source.train, source.class_names or [str(number) for number in range(count)], "")
    if val is None:
        source.train.options = None
    elif val.stem.lower().startswith("test"):
        source.notes.append(_instead("list", val.name))
    return source


def _find_names(source: Source, folder: Path) -> None:
    """Use a file of names beside lists whose labels are numbers, if it has one name for each class."""
    parts = [part for part in (source.train, source.val) if part is not None]
    count = max(int(part.labels.max()) for part in parts) + 1
    for file in (folder / name for name in _NAMES):
        if not file.is_file():
            continue
        try:
            source.class_names = read_fitting_names(file, count)
        except DataError as error:
            source.notes.append(f"Not used as names of the {count} classes: {error}.")
        else:
            source.notes.append(f"The names of the classes come from {file}.")
            return


# ---------------------------------------------------------------------- shards


def _shard_parts(folder: Path) -> dict[str, Path]:
    """Return the folders of shards right below a folder, by their names in lower case."""
    return {
        entry.name.lower(): Path(entry.path)
        for entry in os.scandir(folder)
        if (Path(entry.path) / INDEX).is_file()
    }


def _of_shards(folder: Path) -> Source:
    parts = _shard_parts(folder)
    names = list(parts)
    train, val = _named(names, TRAIN_NAMES), _named(names, VAL_NAMES)
    if train is None or val is None:
        found = ", ".join(sorted(names)) or "one set of shards alone"
        raise DataError(
            f"{folder}: shards of training and of validation are needed, found {found}; expected the folders "
            "Train and Eval, as `ppcls shard -c recipe OUT` writes them. Split the images before they are "
            "packed: `ppcls split DATA`"
        )
    training = ShardDataset(str(parts[train]))
    held = ShardDataset(str(parts[val]))
    return Source(
        "shards",
        folder,
        whole(training, {"name": "ShardDataset", "path": str(parts[train])}),
        whole(held, {"name": "ShardDataset", "path": str(parts[val])}),
        class_names=training.class_names,
    )
