"""Attention-based feature distillation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._select import check_pairs, network_output, select
from ppcls.loss._tensors import to_float
from ppcls.loss.base import Loss
from ppcls.loss.dropping import counted
from ppcls.loss.pair import weighted
from ppcls.loss.shapes import not_prepared
from ppcls.registry import LOSSES

LOGGER = logging.getLogger(__name__)


def attention(key: Tensor, query: Tensor, position_s: Tensor, position_t: Tensor) -> Tensor:
    """Return how much each teacher feature attends to each student feature: Ji et al.

    ``softmax_s((key_st . query_t + position_s . position_t) / sqrt(d))``

    Args:
        key: bilinear keys, [N, S, T, d].
        query: [N, T, d].
        position_s: [S, d].
        position_t: [T, d].

    Returns:
        [N, T, S]; sums to one over S.
    """
    similarity = (key * query.unsqueeze(1)).sum(-1).transpose([0, 2, 1])
    return F.softmax((similarity + position_t @ position_s.t()) / math.sqrt(query.shape[-1]), -1)


def attended_distance(weights: Tensor, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """``sum_t sum_s a_ts * mean((value_s - value_t)^2)``, mean over the batch: Ji et al.

    Args:
        weights: attention, [N, T, S].
        student: for each teacher feature the values of all student features at its size, [N, S, H * W].
        teacher: for each teacher feature its values, [N, H * W].

    Returns:
        A scalar.
    """
    per_sample = [
        (weights[:, t] * (s - v.unsqueeze(1)).square().mean(-1)).sum(-1)
        for t, (s, v) in enumerate(zip(student, teacher, strict=True))
    ]
    return sum(per_sample).mean()


def values_per_teacher(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """Return for each teacher feature the student's values at its size.

    The student has one tensor of values for each size that occurs among the teacher's features, in any order,
    or one for each teacher feature.

    Raises:
        ConfigError: if a size is missing.
    """
    if len(student) == len(teacher):
        found = list(student)
    else:
        by_size = {value.shape[-1]: value for value in student}
        found = [by_size.get(value.shape[-1]) for value in teacher]
    for i, (s, t) in enumerate(zip(found, teacher, strict=True)):
        if s is None or s.shape[-1] != t.shape[-1]:
            raise ConfigError(
                f"AFDLoss: no student values with {t.shape[-1]} positions for teacher feature {i}; "
                "the t_shapes of LinearTransformStudent must be those of the teacher"
            )
    return found


class Attention(nn.Layer):
    """Positional encodings of the features: `p_t` [T, d] and `p_s` [S, d]."""

    def __init__(self, n_teacher: int, n_student: int, qk_dim: int) -> None:
        super().__init__()
        init = nn.initializer.XavierNormal()
        self.p_t = self.create_parameter([n_teacher, qk_dim], default_initializer=init)
        self.p_s = self.create_parameter([n_student, qk_dim], default_initializer=init)

    def forward(self, key: Tensor, query: Tensor) -> Tensor:
        """Return attention [N, T, S] of keys [N, S, T, d] and queries [N, T, d]."""
        return attention(key, query, self.p_s, self.p_t)


@LOSSES.register("AFDLoss")
class AFDLoss(Loss):
    """Ji et al., "Show, attend and distill: attention-based feature matching" (AAAI 2021, arXiv 2102.02973).

    Every student feature map learns from every teacher feature map, weighted by an attention that is trained
    with the student (:func:`attention`, :func:`attended_distance`). Keys, queries and values come from
    LinearTransformStudent and LinearTransformTeacher: a value is a map's channel mean of squares, pooled to
    the teacher's size, flattened to length one. The transforms that make the teacher's queries are trained,
    so gradient passes through its outputs, too.
    Part: `name`.

    Args:
        model_name_pair: student and teacher.
        student_keys: outputs of the student that hold keys [N, S, T, d] and values; null: bilinear_key and
            value, as LinearTransformStudent returns them.
        teacher_keys: outputs of the teacher that hold queries [N, T, d] and values; null: query and value.
        s_shapes: [C, H, W] of the student's features, for their number; null: found by a dry forward.
        t_shapes: [C, H, W] of the teacher's features; null: found by a dry forward.
        qk_dim: d; null: found by a dry forward, or 128 if the shapes are given.
        name: name of the part.
    """

    label_free = True

    def __init__(
        self,
        model_name_pair: list[str],
        student_keys: list[str] | None = None,
        teacher_keys: list[str] | None = None,
        s_shapes: list[list[int]] | None = None,
        t_shapes: list[list[int]] | None = None,
        qk_dim: int | None = None,
        name: str = "loss_afd",
    ) -> None:
        super().__init__()
        ((self.student, self.teacher),) = check_pairs("AFDLoss", [model_name_pair])
        student_keys = ["bilinear_key", "value"] if student_keys is None else student_keys
        teacher_keys = ["query", "value"] if teacher_keys is None else teacher_keys
        if len(student_keys) != 2 or len(teacher_keys) != 2:
            raise ConfigError(
                'AFDLoss: expected two student_keys such as ["bilinear_key", "value"] and two teacher_keys '
                f'such as ["query", "value"], got {student_keys} and {teacher_keys}'
            )
        self.student_keys = list(student_keys)
        self.teacher_keys = list(teacher_keys)
        self.part = name
        self.n_student = None if s_shapes is None else len(s_shapes)
        self.n_teacher = None if t_shapes is None else len(t_shapes)
        self.positions = None if t_shapes is None else [math.prod(shape[1:]) for shape in t_shapes]
        self.qk_dim = qk_dim
        self.attention: Attention | None = None
        if self.n_student is not None and self.n_teacher is not None:
            self.attention = Attention(self.n_teacher, self.n_student, qk_dim or 128)

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset((self.student, self.teacher))

    def _keys_queries_values(self, outputs: Mapping[str, Any]) -> list[Any]:
        """Return key, student values, query, teacher values as float32."""
        found = []
        for network, keys in ((self.student, self.student_keys), (self.teacher, self.teacher_keys)):
            output = network_output(outputs, network, "AFDLoss")
            given = [select(output, key, "AFDLoss", network) for key in keys]
            found += [to_float(given[0]), [to_float(v) for v in given[1]]]
        return found

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Create the positional encodings, or check the given shapes, from one dry forward.

        Raises:
            ConfigError: if numbers of features or dimensions differ.
        """
        key, student, query, teacher = self._keys_queries_values(outputs)
        _, n_student, n_teacher, dim = key.shape
        values_per_teacher(student, teacher)
        if list(query.shape[1:]) != [n_teacher, dim] or len(teacher) != n_teacher:
            raise ConfigError(
                f"AFDLoss: keys {list(key.shape)} and queries {list(query.shape)} do not fit; t_shapes and "
                "qk_dim of LinearTransformStudent and LinearTransformTeacher must agree"
            )
        if self.attention is None:
            LOGGER.info(
                "AFDLoss: found %d student and %d teacher features, dimension %d", n_student, n_teacher, dim
            )
        used = {
            "s_shapes": (self.n_student, n_student),
            "t_shapes": (self.n_teacher, n_teacher),
            "qk_dim": (self.qk_dim, dim),
        }
        for option, (given, found) in used.items():
            if given is not None and given != found:
                raise ConfigError(
                    f"the config has {given}, the networks have {found}", path=f"AFDLoss.{option}"
                )
        positions = [value.shape[-1] for value in teacher]
        if self.positions not in (None, positions):
            raise ConfigError(
                f"H * W are {self.positions} in the config and {positions} in the network; "
                "without t_shapes it is found by a dry forward",
                path="AFDLoss.t_shapes",
            )
        if self.attention is None or self.attention.p_t.shape[1] != dim:
            self.attention = Attention(n_teacher, n_student, dim)

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``{name: value}``."""
        if self.attention is None:
            raise not_prepared("AFDLoss", "s_shapes, t_shapes")
        key, student, query, teacher = self._keys_queries_values(outputs)
        weights = self.attention(key, query)
        value = attended_distance(weights, values_per_teacher(student, teacher), teacher)
        return {self.part: weighted(value, counted(1.0, self.teacher))}
