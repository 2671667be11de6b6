"""Names of classes: read them from files, and check that they fit the classes of a network."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from ppcls.errors import DataError
from ppcls.texts import lines_of, near_path, read_text

_PACKAGE = Path(__file__).resolve().parent
_LABELS = _PACKAGE / "data" / "labels"
_FORM = "expected 'id name'"
_OTHER_DELIMITER = re.compile(r"[0-9]+\s*([,;:|])")
_SHOWN = 5


def find_class_names(path: str | Path) -> Path:
    """Return the file of ``class_id_map_file``: the path as written, or a file of the package.

    Raises:
        DataError: if there is none.
    """
    for file in _places(Path(path)):
        if file.is_file():
            return file
    raise DataError(f"class_id_map_file {path}: no such file.{near_path(path)}")


def _places(path: Path) -> list[Path]:
    """Return the possible places of a file of class names: as written, or in the package."""
    if path.is_absolute():
        return [path]
    return [path, _PACKAGE.parent / path, _LABELS / path.name]


def is_packaged(file: Path) -> bool:
    """Tell whether a file of class names is one of the package, or an unchanged copy of one."""
    ours = _LABELS / file.name
    if not ours.is_file():
        return False
    return ours.samefile(file) or ours.read_bytes() == file.read_bytes()


def read_class_names(path: str | Path, delimiter: str | None = None) -> dict[int, str]:
    """Read a file with one line ``id name`` per class.

    Args:
        path: the file, see :func:`find_class_names`; UTF-8.
        delimiter: text between id and name; None means the first blank or tab.

    Raises:
        DataError: if it is missing or not UTF-8, or a line has no id or repeats one; the message names the
            line.
    """
    names: dict[int, str] = {}
    lines: dict[int, int] = {}
    text = read_text(find_class_names(path), "list of class names")
    for number, raw in enumerate(lines_of(text), 1):
        line = raw.strip()
        if not line:
            continue
        key, name = _split(line, delimiter)
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            other = _OTHER_DELIMITER.match(line)
            remedy = f"set delimiter: '{other[1]}'" if other else "an id counts from 0, as in '0 cat'"
            raise DataError(f"{path}:{number}: {_FORM}, got {line!r}; {remedy}")
        if not name:
            raise DataError(f"{path}:{number}: {_FORM}, got {line!r} without a name")
        if int(key) in names:
            raise DataError(
                f"{path}:{number}: class {int(key)} has a name in line {lines[int(key)]} already "
                f"({names[int(key)]!r}, here {name!r}); give each class one line"
            )
        names[int(key)] = unicodedata.normalize("NFC", name)  # as those of folders
        lines[int(key)] = number
    if not names:
        raise DataError(f"{path}: the file is empty; {_FORM} on a line for each class")
    return names


def _split(line: str, delimiter: str | None) -> tuple[str, str]:
    key, *rest = line.split(delimiter or None, 1)
    return key.strip(), rest[0].strip() if rest else ""


def misfit(names: Mapping[int, str], class_num: int | None = None) -> str | None:
    """Return why names do not fit the classes ``0..class_num-1``; None if each class has one name.

    Args:
        names: names by class, at least one.
        class_num: number of classes; None if unknown: then the last class with a name is the last one.
    """
    count = max(names) + 1 if class_num is None else class_num
    known = "" if class_num is None else f", but class_num is {class_num}"
    if min(names) == 1 and max(names) == len(names):
        return (
            f"its classes are numbered from 1 to {len(names)}{known}. Classes count from 0: "
            f"write them as 0 to {len(names) - 1}"
        )
    beyond = sorted(number for number in names if number >= count)
    lacking = count - (len(names) - len(beyond))
    if not (beyond or lacking):
        return None
    first = list(islice((number for number in range(count) if number not in names), _SHOWN))
    parts = [f"there is no name for class {_first_numbers(first, lacking)}"] if lacking else []
    parts += [f"there is no class {_first_numbers(beyond[:_SHOWN], len(beyond))}"] if beyond else []
    noun = "name" if len(names) == 1 else "names"
    return f"it has {len(names)} {noun}{known}: {' and '.join(parts)}. Each class from 0 on needs one"


def _first_numbers(first: Sequence[int], count: int) -> str:
    more = f" and {count - len(first)} more" if count > len(first) else ""
    return ", ".join(map(str, first)) + more


def read_fitting_names(path: str | Path, class_num: int | None, delimiter: str | None = None) -> list[str]:
    """Return the names of a file in order of their classes.

    Args:
        path: see :func:`find_class_names`.
        class_num: number of classes; None for as many as there are names.
        delimiter: see :func:`read_class_names`.

    Raises:
        DataError: if the file cannot be read, or does not name each class once.
    """
    names = read_class_names(path, delimiter)
    problem = misfit(names, class_num)
    if problem is not None:
        raise DataError(f"class_id_map_file {path}: {problem}")
    return [names[number] for number in range(len(names))]


def shown_name(folder: str) -> str:
    r"""Return the name of a folder as a class name that can be written into a text file, one per line.

    Runs of blanks become one, bytes that are not UTF-8 are written as ``\xb9``, and letters with accents are
    one character each (Unicode's form NFC), for which a Mac writes two.
    """
    text = os.fsencode(folder).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", " ".join(text.split()))


def format_class_names(names: Sequence[str]) -> str:
    """Return the text of a file that :func:`read_class_names` reads."""
    return "".join(f"{number} {name}\n" for number, name in enumerate(names))
