"""Teachers with other classes: which class of the teacher corresponds to each class of the student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import paddle
from paddle import Tensor

from ppcls.errors import ConfigError, DataError
from ppcls.texts import read_text


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
    student_count = student.shape[-1]
    teacher_count = teacher.shape[-1]
    if class_map is None:
        if student_count != teacher_count:
            raise ConfigError(
                f"{loss}: the student has {student_count} classes and the teacher {teacher_count}; give "
                "`class_map`, a file with one line `student_class teacher_class` for each student class"
            )
        return teacher
    if len(class_map) != student_count or max(class_map) >= teacher_count:
        raise ConfigError(
            f"maps {len(class_map)} classes to teacher classes up to {max(class_map)}, but "
            f"the student has {student_count} classes and the teacher {teacher_count}",
            path=f"{loss}.class_map",
        )
    return paddle.index_select(teacher, paddle.to_tensor(list(class_map), dtype="int64"), axis=-1)
