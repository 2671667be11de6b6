"""Teachers with other classes: which class of the teacher stands for each class of the student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import paddle
from paddle import Tensor

from ppcls.errors import ConfigError, DataError
from ppcls.texts import read_text


def read_class_map(path: str) -> list[int]:
    """Read which teacher class stands for each student class.

    One line per student class: ``student_class teacher_class``, in any order; blank lines and lines that
    begin with ``#`` are skipped.

    Returns:
        Teacher classes in the order of student classes 0, 1, ...

    Raises:
        DataError: with file and line, if the file is missing or a line is wrong or a class is missing.
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
            raise DataError(f"{path}:{number}: student class {student} stands there twice")
        found[student] = teacher
    missing = next((c for c in range(len(found)) if c not in found), None)
    if missing is not None or not found:
        raise DataError(f"{path}: no line for student class {missing or 0}")
    return [found[c] for c in range(len(found))]


def match_classes(student: Tensor, teacher: Tensor, class_map: Sequence[int] | None, loss: str) -> Tensor:
    """Return the teacher's logits in the order of the student's classes.

    Args:
        student: [N, Cs].
        teacher: [N, Ct].
        class_map: for each student class its teacher class; None if the classes are the same.
        loss: name used in messages.

    Raises:
        ConfigError: if the class counts do not fit.
    """
    mine, theirs = student.shape[-1], teacher.shape[-1]
    if class_map is None:
        if mine != theirs:
            raise ConfigError(
                f"{loss}: the student has {mine} classes and the teacher {theirs}; give `class_map`, a file "
                "with one line `student_class teacher_class` for each student class"
            )
        return teacher
    if len(class_map) != mine or max(class_map) >= theirs:
        raise ConfigError(
            f"maps {len(class_map)} classes to teacher classes up to {max(class_map)}, but "
            f"the student has {mine} classes and the teacher {theirs}",
            path=f"{loss}.class_map",
        )
    return paddle.index_select(teacher, paddle.to_tensor(list(class_map), dtype="int64"), axis=-1)
