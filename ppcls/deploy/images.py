"""The images that a user names for prediction: files, folders, patterns, lists, bytes and arrays."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ppcls.data import list_images, matching
from ppcls.errors import DataError

Image = str | os.PathLike[str] | bytes | np.ndarray
_SINGLE = (str, os.PathLike, bytes, np.ndarray)
_EXPECTED = "expected a file, a folder, a list, the bytes of an image file or an array [H, W, C]"


def expand_images(images: Image | Sequence[Image], *, skip_missing: bool = False) -> list[tuple[str, Image]]:
    """Return name and file, bytes or pixels of each image; wrong paths are found before anything is read.

    Args:
        images: a file; a folder, searched with all folders below it; a ``.txt`` list of paths; a pattern such
            as ``photos/**/*.jpg``; the content of an image file; an array [H, W, C]; or a sequence of these.
        skip_missing: keep files that do not exist; whoever reads them reports them.

    Raises:
        DataError: if nothing is found.
    """
    many = [images] if isinstance(images, _SINGLE) else images
    if isinstance(many, Mapping) or not isinstance(many, Iterable):
        raise DataError(f"images: {_EXPECTED}, or a sequence of these, got {type(many).__name__}")
    found: list[tuple[str, Image]] = []
    for number, image in enumerate(many):
        if isinstance(image, np.ndarray):
            found.append((f"array {number}", image))
        elif isinstance(image, bytes):
            found.append((f"image {number}", image))
        elif isinstance(image, _SINGLE):
            found.extend((file, file) for file in _files(str(image), skip_missing))
        else:
            raise DataError(f"image {number}: {_EXPECTED}, got {type(image).__name__}")
    return found


def _files(path: str, skip_missing: bool) -> list[str]:
    exists = os.path.exists(path)
    if not exists and glob.has_magic(path):
        return matching(path) or list_images(path)
    if not exists and skip_missing and path:
        return [path]
    return list_images(path, skip_missing=skip_missing)
