"""From probabilities to what a user reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import ConfigError, DataError, hint
from ppcls.registry import POSTPROCESSES

_PACKAGE = Path(__file__).resolve().parents[1]


@POSTPROCESSES.register()
class Topk:
    """The classes with the highest probabilities.

    Args:
        topk: how many; no more than there are classes are given.
        class_id_map_file: names of the classes, a line ``id name`` each, UTF-8. Besides a path of one's own,
            ``ppcls/data/labels/...`` names a list that comes with the package, from any folder.
        delimiter: between id and name; null is the first blank or tab.

    Raises:
        ConfigError: if `topk` is below 1.
        DataError: if the file is missing or a line has no id.
    """

    def __init__(
        self, topk: int = 1, class_id_map_file: str | None = None, delimiter: str | None = None
    ) -> None:
        if topk < 1:
            raise ConfigError(f"Topk: topk must be at least 1, got {topk}")
        self.topk = topk
        self.names = None if class_id_map_file is None else read_class_names(class_id_map_file, delimiter)

    def __call__(
        self, probabilities: np.ndarray, file_names: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return a dict for each row: class_ids, scores, file_name (if given), label_names.

        Args:
            probabilities: [N, C].
            file_names: one for each row.

        Scores are rounded to 5 places; equal ones stay in order of their ids. A class without a name gets
        its number as name; without a file there are no names.
        """
        results = []
        for row, values in enumerate(np.asarray(probabilities)):
            ids = np.argsort(-values, kind="stable")[: self.topk].tolist()
            result: dict[str, Any] = {
                "class_ids": ids,
                "scores": [round(float(values[place]), 5) for place in ids],
            }
            if file_names is not None:
                result["file_name"] = file_names[row]
            names = self.names
            result["label_names"] = [] if names is None else [names.get(n, str(n)) for n in ids]
            results.append(result)
        return results


def find_class_names(path: str | Path) -> Path:
    """Return the file that ``class_id_map_file`` means: as written, or one of the package.

    Raises:
        DataError: if there is none.
    """
    for file in _places(Path(path)):
        if file.is_file():
            return file
    parent = Path(path).parent
    near = hint(Path(path).name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
    raise DataError(f"class_id_map_file {path}: no such file.{near}")


def read_class_names(path: str | Path, delimiter: str | None = None) -> dict[int, str]:
    """Read a file with a line ``id name`` for each class.

    Raises:
        DataError: if it is missing, or naming the line that has no id.
    """
    file = find_class_names(path)
    names = {}
    for number, line in enumerate(file.read_bytes().decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip():
            continue
        key, _, name = line.strip().partition(delimiter) if delimiter else _first_blank(line.strip())
        if not key.strip().isdigit():
            raise DataError(f"{path}:{number}: expected 'id name', got {line!r}")
        names[int(key)] = name.strip()
    return names


def _first_blank(line: str) -> tuple[str, str, str]:
    key, *rest = line.split(None, 1)
    return key, " ", rest[0] if rest else ""


def _places(path: Path) -> list[Path]:
    """Return where a file of class names may be: as written, or in the package."""
    if path.is_absolute():
        return [path]
    return [path, _PACKAGE.parent / path, _PACKAGE / "data" / "labels" / path.name]
