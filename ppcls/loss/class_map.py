"""Teachers with other classes: which class of the teacher corresponds to each class of the student."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor

from ppcls.errors import ConfigError


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
