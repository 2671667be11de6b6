"""Teachers with other classes: files that say which class of the teacher is which class of the student."""

from __future__ import annotations

from pathlib import Path

from ppcls.errors import DataError
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
