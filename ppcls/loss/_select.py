"""Finding the tensor a loss works on among the outputs of several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle
from paddle import Tensor

from ppcls.errors import ConfigError, DataError, hint
from ppcls.texts import read_text


def logits_of(output: Tensor | Mapping[str, Any], loss: str) -> Tensor:
    """Return the logits of one network, which gives a tensor or a mapping with the key ``logits``."""
    return select(output, None, loss, "the network")


def select(output: Tensor | Mapping[str, Any], key: str | None, loss: str, network: str) -> Any:
    """Return ``output[key]`` of one network; without a key, its logits.

    Raises:
        ConfigError: if the network did not give this key; the message lists what it gave.
    """
    wanted = key or "logits"
    if not isinstance(output, Mapping):
        if wanted == "logits":
            return output
        raise ConfigError(
            f"{loss}: {network} gives logits only, expected the key {wanted!r}; add it to the network's "
            "return_patterns"
        )
    if wanted not in output:
        raise ConfigError(
            f"{loss}: {network} gives no {wanted!r}, only {_listing(output)}.{hint(wanted, output)}"
        )
    return output[wanted]


def _listing(outputs: Mapping[str, Any]) -> str:
    return ", ".join(map(str, outputs))


def network_output(
    outputs: Tensor | Mapping[str, Any], network: str, loss: str
) -> Tensor | Mapping[str, Any]:
    """Return the output of one sub-network.

    Raises:
        ConfigError: if there is no such sub-network.
    """
    if not isinstance(outputs, Mapping):
        raise ConfigError(f"{loss}: expected the outputs of several networks, got one without a name")
    if network not in outputs:
        near = hint(network, outputs)
        raise ConfigError(f"{loss}: no sub-network {network!r} in the outputs ({_listing(outputs)}).{near}")
    return outputs[network]


def check_pairs(loss: str, pairs: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return the pairs as tuples.

    Raises:
        ConfigError: if the list is empty, or an entry is not a pair of names, or stands there twice.
    """
    where = f"{loss}.model_name_pairs"
    if not pairs or isinstance(pairs, str):
        raise ConfigError(f'{where}: got {pairs!r}, expected a list such as [["Student", "Teacher"]]')
    found: list[tuple[str, str]] = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(n, str) for n in pair):
            raise ConfigError(f'{where}.{i}: got {pair!r}, expected two names such as ["Student", "Teacher"]')
        if tuple(pair) in found:
            raise ConfigError(f"{where}.{i}: {list(pair)} stands there twice")
        found.append((pair[0], pair[1]))
    return found


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
            f"{loss}.class_map: maps {len(class_map)} classes to teacher classes up to {max(class_map)}, but "
            f"the student has {mine} classes and the teacher {theirs}"
        )
    return paddle.index_select(teacher, paddle.to_tensor(list(class_map), dtype="int64"), axis=-1)
