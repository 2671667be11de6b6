"""Find image files and read their bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from ppcls.data.folders import SUFFIXES, FolderSearch, is_hidden
from ppcls.errors import DataError, PpclsError
from ppcls.texts import is_windows_path, lines_of, near_path, other_spelling, read_text


class ImageError(DataError):
    """An image that cannot be read or decoded; ``on_error: skip`` leaves such images out."""


class Naming:
    """Adds the name of the image to errors that occur in a ``with`` block.

    This covers errors of all types, because transforms may come from plug-ins.

    Args:
        name: returns the file of the image, or another text by which the user can find it.
        remedy: sentence at the end of the message for an image that cannot be read.

    Raises:
        ImageError: for an image that cannot be read or decoded.
        DataError: for any other error.
    """

    def __init__(self, name: Callable[[], str], remedy: str = "") -> None:
        self._name = name
        self._remedy = remedy

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return  # SystemExit and the like would end a thread without a message
        text = str(error) if isinstance(error, PpclsError) else f"{type(error).__name__}: {error}"
        if isinstance(error, ImageError):
            raise ImageError(f"{self._name()}: {text}{self._remedy}") from error
        raise DataError(f"{self._name()}: {text}") from error


def read_file(path: str | Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: if it cannot be read or is empty.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise ImageError("the file is empty")
    return content


def list_images(source: str | Path | Sequence[str | Path], *, skip_missing: bool = False) -> list[str]:
    """Return the image files that `source` names.

    Args:
        source: an image file; a folder, searched with all folders below it for files that end in
            :data:`ppcls.data.folders.SUFFIXES` in any case, in order of their paths, see
            :class:`ppcls.data.folders.FolderSearch`; a ``.txt`` file with one path per line, relative to
            the working directory or to the list (a label after the path is ignored); or a list of these.
        skip_missing: keep the paths of a list that do not exist; whoever reads them reports them.

    Raises:
        DataError: if a file is missing or nothing is found.
    """
    if not isinstance(source, str | Path):
        found = [name for part in source for name in list_images(part, skip_missing=skip_missing)]
        if not found:
            raise DataError("no images: the list is empty")
        return found
    if not str(source):
        raise DataError("images: an empty path; name an image, a folder or a list ('.' is the folder here)")
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise DataError(f"{source}: no such file or folder.{near_path(path)}")
    return _in_list(path, skip_missing) if path.suffix.lower() == ".txt" else [str(source)]


def matching(pattern: str) -> list[str]:
    """Return the files that a pattern such as ``photos/**/*.jpg`` matches, sorted.

    Hidden files are left out, and a file that appears twice because of links is returned once.
    """
    found: dict[tuple[str, str], str] = {}
    for path in sorted(glob.glob(pattern, recursive=True), key=lambda path: (path.count(os.sep), path)):
        folder, name = os.path.split(path)
        if not is_hidden(name) and not os.path.isdir(path):
            found.setdefault((os.path.realpath(folder), name), path)
    return sorted(found.values())


def _in_folder(folder: Path) -> list[str]:
    search = FolderSearch(folder)
    (found,) = search.images([str(folder)])
    search.report()
    if not found:
        raise DataError(f"{folder}: the folder holds no image ({' '.join(sorted(SUFFIXES))})")
    return found


def _in_list(path: Path, skip_missing: bool) -> list[str]:
    found = []
    for number, line in enumerate(lines_of(read_text(path)), 1):
        name = line.strip()
        if not name:
            continue
        readings = [name, *name.rsplit(None, 1)[:1], name.rpartition("\t")[0].strip()]
        candidates = [c for text in filter(None, readings) for c in (text, str(path.parent / text))]
        hit = next((c for c in candidates if os.path.isfile(c)), None)
        if hit is None and skip_missing:
            labelled = name.rsplit(None, 1)[-1].isdecimal()
            found.append(readings[2] or (readings[1] if labelled else name))
            continue
        if hit is None:
            turned = [c.replace("\\", "/") for c in candidates if is_windows_path(name)]
            known = next((c for c in turned if os.path.isfile(c)), None)
            remedy = "" if known is None else f"; it is a path of Windows: write {known}, which exists"
            if not (remedy or is_windows_path(name) or os.path.isabs(name)):
                remedy = "; paths start from the folder of the list or the folder in which the command runs"
            other = next(filter(None, (other_spelling(c) for c in candidates)), None)
            remedy = remedy if other is None else f". {other}"
            raise DataError(f"{path}:{number}: no such file: {name}{remedy}")
        found.append(hit)
    if not found:
        raise DataError(f"{path}: the list is empty")
    return found
