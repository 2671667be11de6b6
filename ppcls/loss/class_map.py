"""Teachers with other classes: which class of the teacher corresponds to each class of the student."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor

from ppcls.class_maps import in_students_order, read_class_map
from ppcls.config import ArchSpec, ComponentSpec
from ppcls.config.schema import LossSpec
from ppcls.errors import ConfigError


def class_map_of(losses: LossSpec, arch: ArchSpec, teacher: str) -> list[int] | None:
    """Return the class of a teacher for each of the student, if a loss or an ensemble has a map for it."""
    for loss in ComponentSpec.read_all(losses.Train, "Loss.Train"):
        learned_from = [pair[1] for pair in loss.options.get("model_name_pairs") or []]
        if teacher in learned_from and loss.options.get("class_map"):
            return read_class_map(loss.options["class_map"])
    for ensemble in (arch.options.get("ensembles") or {}).values():
        maps = ensemble.get("class_maps") or {}
        if teacher in maps:
            return read_class_map(maps[teacher])
    return None


def class_maps_of(losses: LossSpec, arch: ArchSpec) -> dict[str, list[int]]:
    """Return :func:`class_map_of` of all networks that have one, by name."""
    found = {name: class_map_of(losses, arch, name) for name in arch.names}
    return {name: class_map for name, class_map in found.items() if class_map is not None}


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
    return in_students_order(teacher, class_map)
