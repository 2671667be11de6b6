"""Write the lists of a split without a project: ``ppcls split``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ppcls.class_names import format_class_names
from ppcls.errors import ConfigError
from ppcls.files import FileSet
from ppcls.project.layout import NAMES, TRAIN_LIST, VAL_LIST
from ppcls.project.sources import Source, find_source
from ppcls.project.summary import check_split, parts_of
from ppcls.project.writing import check_files, list_text, require_other_files

_FILES = (TRAIN_LIST, VAL_LIST, NAMES)


@dataclass(frozen=True)
class WrittenSplit:
    """The lists of a split.

    Attributes:
        source: the data.
        train: the list of training.
        val: the list of validation.
        counts: number of images of both.
        class_names: file with one line ``id name`` per class; None if the data have numbers alone.
    """

    source: Source
    train: Path
    val: Path
    counts: tuple[int, int]
    class_names: Path | None


def split_data(
    path: str | Path,
    folder: str | Path = ".",
    *,
    val: float = 0.2,
    seed: int = 0,
    image_root: str | Path | None = None,
    overwrite: bool = False,
) -> WrittenSplit:
    """Split images into training and validation, and write a list of each.

    Args:
        path: a folder of class folders, a folder with class folders in ``train``, or a list.
        folder: where to write.
        val: share of each class for validation.
        seed: of the split.
        image_root: folder that the paths in a list start from; by default that of the list.
        overwrite: replace lists that are there.

    Raises:
        ConfigError: for a share that is none, data with a part for validation, or a folder that cannot be
            written or holds such files.
        DataError: if the data cannot be read or split.
    """
    check_split(val, seed)
    out = Path(os.path.abspath(os.path.expanduser(folder)))
    check_files(out, _FILES, overwrite=overwrite)
    source = find_source(path, image_root)
    require_other_files(source, out, _FILES)
    if source.val is not None:
        raise ConfigError(
            f"{path}: has {len(source.val)} images for validation already; name the part to split, such as "
            f"{source.root}"
        )
    train, held = parts_of(source, val, seed)
    texts = {TRAIN_LIST: list_text(train, source.root), VAL_LIST: list_text(held, source.root)}
    if source.class_names is not None:
        texts[NAMES] = format_class_names(source.class_names)
    try:
        with FileSet(out, "split", _FILES).replacing() as stage:
            for name, text in texts.items():
                (stage / name).write_text(text, encoding="utf-8", errors="strict")
    except OSError as error:
        raise ConfigError(f"out: cannot write to {out}: {error.strerror or error}") from error
    names = out / NAMES if NAMES in texts else None
    return WrittenSplit(source, out / TRAIN_LIST, out / VAL_LIST, (len(train), len(held)), names)
