"""Files of class names that come with the package."""

from __future__ import annotations

import os
from pathlib import Path

from ppcls.errors import DataError

FOLDER = Path(__file__).parent


def find_label_file(path: str | os.PathLike[str], where: str = "class_id_map_file") -> Path:
    """Return the file of class names that `path` means: a file of the user's, else the package's own one.

    The package's files are found by name alone, so that recipes work from any folder.

    Raises:
        DataError: if there is no such file.
    """
    given = Path(path).expanduser()
    for candidate in (given, FOLDER / given.name):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.name for p in FOLDER.glob("*.txt")))
    raise DataError(f"{where}: no file {given}; the package has {known}")
