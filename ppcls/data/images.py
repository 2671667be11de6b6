"""Image files: finding them and reading their bytes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ppcls.data.lists import read_text
from ppcls.errors import DataError, hint
from ppcls.logger import LOGGER

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_NOT_TAKEN = frozenset({".heic", ".heif", ".avif", ".gif", ".jp2", ".psd", ".svg", ".raw", ".dng"})


class ImageError(DataError):
    """An image that cannot be read or decoded: what ``on_error: skip`` may leave out."""


def read_file(path: str | Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: if it cannot be read or is empty.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise ImageError("the file is empty")
    return content


def list_images(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the image files that `source` names.

    Args:
        source: an image file; a folder, searched with all folders below it for files that end in
            .jpg .jpeg .png .bmp .webp .tif .tiff in any case, in order of their paths; a ``.txt`` file
            with one path a line, relative to the working directory or to the list, a label after the
            path is ignored; or a list of these.

    Raises:
        DataError: if a file is missing or nothing is found.
    """
    if not isinstance(source, str | Path):
        found = [name for part in source for name in list_images(part)]
        if not found:
            raise DataError("no images: the list is empty")
        return found
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise DataError(f"{source}: no such file or folder.{_near(path)}")
    return _in_list(path) if path.suffix.lower() == ".txt" else [str(source)]


def images_below(folder: str | Path) -> list[str]:
    """Return the images in a folder and all below it, by their endings, in order of their paths.

    Files that look like images of other kinds are counted in a warning.
    """
    found, others = [], Counter[str]()
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                found.append(os.path.join(parent, name))
            elif suffix in _NOT_TAKEN:
                others[suffix] += 1
    if others:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        LOGGER.warning("%s: not taken from this folder: %s; convert them to JPEG or PNG", folder, counts)
    return sorted(found)


def _in_folder(folder: Path) -> list[str]:
    found = images_below(folder)
    if not found:
        raise DataError(f"{folder}: the folder holds no image ({' '.join(sorted(SUFFIXES))})")
    return found


def _in_list(path: Path) -> list[str]:
    found = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        name = line.strip()
        if not name:
            continue
        readings = [name, *name.rsplit(None, 1)[:1]]
        candidates = [c for text in readings for c in (text, str(path.parent / text))]
        hit = next((c for c in candidates if os.path.isfile(c)), None)
        if hit is None:
            raise DataError(f"{path}:{number}: no such file: {name}")
        found.append(hit)
    if not found:
        raise DataError(f"{path}: the list is empty")
    return found


def _near(path: Path) -> str:
    return hint(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
