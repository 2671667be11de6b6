"""Feature distillation through an ensemble of projectors."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._tensors import check_one_of, cosine
from ppcls.loss.base import TensorPairLoss
from ppcls.loss.shapes import found_size, not_prepared
from ppcls.registry import LOSSES


class Projector(nn.Layer):
    """ReLU(x W + b)."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.conv = nn.Linear(features_in, features_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, Cs] to [N, Ct]."""
        return F.relu(self.conv(x))


@LOSSES.register("PEFDLoss")
class PEFDLoss(TensorPairLoss):
    """Chen et al., "Improved feature distillation via projector ensemble" (NeurIPS 2022, arXiv 2210.15274).

    ``mean_n(1 - cos(mean_k P_k(student_n), teacher_n))`` with projectors ``P_k(x) = ReLU(x W_k + b_k)``,
    which start from different random values. The scale of the features has no effect. If all
    projections of a sample are zero, its cosine counts as 0, without gradient.

    Use it as ``DistillationPairLoss: {base_loss_name: PEFDLoss, ...}``.

    Args:
        student_channel: features of the student, after `mode`; null: found by a dry forward.
        teacher_channel: features of the teacher, after `mode`; null: found by a dry forward.
        num_projectors: size of the ensemble.
        mode: how feature maps [N, C, H, W] become vectors: ``flatten``, for pooled features, or ``gap``: the
            mean over H, W.
    """

    part = "loss"  # the name in PaddleClas

    def __init__(
        self,
        student_channel: int | None = None,
        teacher_channel: int | None = None,
        num_projectors: int = 3,
        mode: Literal["flatten", "gap"] = "flatten",
    ) -> None:
        super().__init__()
        check_one_of("PEFDLoss", "mode", mode, ("flatten", "gap"))
        if num_projectors < 1:
            raise ConfigError(f"got {num_projectors}, expected at least 1", path="PEFDLoss.num_projectors")
        self.student_channel = student_channel
        self.teacher_channel = teacher_channel
        self.num_projectors = num_projectors
        self.mode = mode
        self.projectors: nn.LayerList | None = None
        if student_channel is not None and teacher_channel is not None:
            self._create(student_channel, teacher_channel)

    def _create(self, student: int, teacher: int) -> None:
        self.projectors = nn.LayerList([Projector(student, teacher) for _ in range(self.num_projectors)])

    def _vector(self, x: Tensor) -> Tensor:
        if self.mode == "gap" and x.ndim == 4:
            return x.mean([2, 3])
        return x.flatten(1)

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Create the projectors, or check the given sizes, from features of any shape [N, ...].

        Raises:
            ConfigError: if a given size differs from the network's.
        """
        student_size = self._vector(student).shape[1]
        teacher_size = self._vector(teacher).shape[1]
        student_size = found_size("PEFDLoss.student_channel", self.student_channel, student_size)
        teacher_size = found_size("PEFDLoss.teacher_channel", self.teacher_channel, teacher_size)
        if self.projectors is None:
            self._create(student_size, teacher_size)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, ...]."""
        if self.projectors is None:
            raise not_prepared("PEFDLoss", "student_channel, teacher_channel")
        x = self._vector(student)
        projected = paddle.stack([projector(x) for projector in self.projectors]).mean(0)
        return (1 - cosine(projected, self._vector(teacher))).mean()
