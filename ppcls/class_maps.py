"""Teachers with other classes: files that say which class of the teacher is which class of the student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.errors import ConfigError, DataError
from ppcls.texts import read_text

if TYPE_CHECKING:
    from paddle import Tensor


def read_class_map(path: str) -> list[int]:
    """Read which teacher class corresponds to each student class.

    One line per student class: ``student_class teacher_class``, in any order; blank lines and lines that
    begin with ``#`` are skipped.

    Returns:
        Teacher classes in the order of student classes 0, 1, ...

    Raises:
        DataError: if the file is missing, or a line is wrong, or a class is missing; it names file and line.
    """
    lines = read_text(Path(path), "class_map").splitlines()
    found: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 2 or not all(f.isdecimal() and len(f) < 10 for f in fields):
            raise DataError(f"{path}:{number}: got {line!r}, expected `student_class teacher_class`")
        student, teacher = map(int, fields)
        if student in found:
            raise DataError(f"{path}:{number}: student class {student} is listed twice")
        found[student] = teacher
    missing = next((c for c in range(len(found)) if c not in found), None)
    if missing is not None or not found:
        raise DataError(f"{path}: there is no line for student class {missing or 0}")
    return [found[c] for c in range(len(found))]


def in_students_order(logits: Tensor, class_map: Sequence[int] | None) -> Tensor:
    """Return a teacher's logits [N, Ct] in the order of the student's classes, [N, Cs].

    Raises:
        ConfigError: if the map names a class that the teacher does not have.
    """
    if class_map is None:
        return logits
    if max(class_map) >= logits.shape[-1]:
        text = f"maps to the teacher's class {max(class_map)}, but it has {logits.shape[-1]} classes, from 0"
        raise ConfigError(text, path="class_map")
    import paddle

    return paddle.index_select(logits, paddle.to_tensor(list(class_map), dtype="int64"), axis=-1)
