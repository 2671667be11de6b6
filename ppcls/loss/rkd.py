"""Relational knowledge distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.distributed import gather_rows
from ppcls.errors import ConfigError
from ppcls.loss._select import check_pairs
from ppcls.loss.base import Loss, free_name
from ppcls.loss.dropping import counted
from ppcls.loss.pair import check_pair_weights, pair_tensors, weighted
from ppcls.registry import LOSSES

_SAME = 1e-12  # squared distance below which two embeddings are the same point


def _differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x_j - x_i [N, N, D], its length and its inverse length [N, N], both 0 for equal points."""
    difference = x.unsqueeze(0) - x.unsqueeze(1)
    square = difference.square().sum(-1)
    apart = square > _SAME
    # The square root is taken of 1 where points coincide: a gradient through sqrt(0) would be NaN.
    length = paddle.where(apart, square, paddle.ones_like(square)).sqrt()
    mask = apart.astype(x.dtype)
    return difference, length * mask, mask / length


def relations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two potentials of embeddings [N, D].

    Returns:
        angles: cosine of the angle at i between j and k, [N, N, N]; 0 where points coincide.
        distances: divided by their mean over the N * (N - 1) distinct pairs, [N, N].
    """
    n = x.shape[0]
    difference, length, inverse = _differences(x)
    unit = difference * inverse.unsqueeze(-1)
    mean = length.sum() / max(n * (n - 1), 1)
    return paddle.bmm(unit, unit.transpose([0, 2, 1])), length / mean.clip(min=_SAME)


def relational(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Park et al., "Relational knowledge distillation" (CVPR 2019, arXiv 1904.05068).

    The Huber function (corner at 1) of the difference of student's and teacher's angles and distances, mean
    over all N^3 triples and N^2 pairs. Both are 0 for a batch of one, which has no relations.

    Memory grows with N^2 * D.

    Args:
        student: embeddings, [N, D].
        teacher: embeddings, [N, E]; E may differ from D.

    Returns:
        The angle loss and the distance loss, scalars.
    """
    angle_s, distance_s = relations(student)
    angle_t, distance_t = relations(teacher)
    return F.smooth_l1_loss(angle_s, angle_t), F.smooth_l1_loss(distance_s, distance_t)


def embed(x: Tensor, target_size: int | None) -> Tensor:
    """Return [N, D]: feature maps [N, C, H, W] pooled to `target_size` if one is given, then flattened."""
    if target_size is not None and x.ndim == 4:
        x = F.adaptive_avg_pool2d(x, target_size)
    return x.flatten(1)


@LOSSES.register("DistillationRKDLoss")
class DistillationRKDLoss(Loss):
    """Relations between the images of a batch, distances and angles, for named outputs (:func:`relational`).

    Parts: ``loss_angle_<i>_<student>_<teacher>`` and ``loss_dist_<i>_<student>_<teacher>``.

    Args:
        model_name_pairs: pairs of sub-network names, student first.
        student_keepkeys: outputs of the student; the first is compared with the first of the teacher, and so
            on.
        teacher_keepkeys: outputs of the teacher.
        target_size: side to which feature maps are pooled first; null keeps them; no effect on vectors.
        distance_weight: factor of the distance loss; 25 is usual on class-balanced batches.
        angle_weight: factor of the angle loss; 50 is usual.
        gather: treat the samples of all processes as one batch.
        pair_weights: a factor for each pair.
    """

    label_free = True
    one_way = True

    def __init__(
        self,
        model_name_pairs: list[list[str]],
        student_keepkeys: list[str],
        teacher_keepkeys: list[str],
        target_size: int | None = None,
        distance_weight: float = 1.0,
        angle_weight: float = 1.0,
        gather: bool = False,
        pair_weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        loss = "DistillationRKDLoss"
        self.pairs = check_pairs(loss, model_name_pairs)
        if not student_keepkeys or len(student_keepkeys) != len(teacher_keepkeys):
            raise ConfigError(
                f"{loss}: {len(student_keepkeys)} student_keepkeys and {len(teacher_keepkeys)} "
                "teacher_keepkeys, expected equal numbers, at least 1"
            )
        if target_size is not None and target_size < 1:
            raise ConfigError(f"got {target_size}, expected at least 1 or null", path=f"{loss}.target_size")
        self.keys = list(zip(student_keepkeys, teacher_keepkeys, strict=True))
        self.target_size = target_size
        self.gather = gather
        self.factors = (angle_weight, distance_weight)
        self.pair_weights = check_pair_weights(loss, pair_weights, len(self.pairs))

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset(name for pair in self.pairs for name in pair)

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names and keys against the outputs of one dry forward."""
        for pair in self.pairs:
            for keys in self.keys:
                pair_tensors(outputs, pair, keys, "DistillationRKDLoss")

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return an angle and a distance part for each key and pair."""
        parts: dict[str, Tensor] = {}
        for pair, pair_weight in zip(self.pairs, self.pair_weights, strict=True):
            for i, keys in enumerate(self.keys):
                first, second = pair_tensors(outputs, pair, keys, "DistillationRKDLoss")
                embeddings = embed(first, self.target_size), embed(second.detach(), self.target_size)
                if self.gather:
                    embeddings = gather_rows(embeddings[0]), gather_rows(embeddings[1])
                values = relational(*embeddings)
                for kind, value, factor in zip(("angle", "dist"), values, self.factors, strict=True):
                    name = free_name(f"loss_{kind}_{i}_{pair[0]}_{pair[1]}", parts)
                    parts[name] = weighted(value, counted(factor * pair_weight, pair[1]))
        return parts
