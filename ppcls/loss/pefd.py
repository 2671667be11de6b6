"""Feature distillation through an ensemble of projectors."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._tensors import check_one_of, cosine
from ppcls.loss.shapes import VECTOR_MODES, SizedPairLoss, as_vectors
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
class PEFDLoss(SizedPairLoss):
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
    size_options = ("student_channel", "teacher_channel")

    def __init__(
        self,
        student_channel: int | None = None,
        teacher_channel: int | None = None,
        num_projectors: int = 3,
        mode: Literal["flatten", "gap"] = "flatten",
    ) -> None:
        super().__init__(student_channel, teacher_channel)
        check_one_of("PEFDLoss", "mode", mode, VECTOR_MODES)
        if num_projectors < 1:
            raise ConfigError(f"got {num_projectors}, expected at least 1", path="PEFDLoss.num_projectors")
        self.num_projectors = num_projectors
        self.mode = mode
        self.create_if_known()

    def create(self, student: int, teacher: int) -> None:
        """Create the projectors."""
        self.projectors = nn.LayerList([Projector(student, teacher) for _ in range(self.num_projectors)])

    def features(self, x: Tensor) -> Tensor:
        """Return the vectors [N, D] of features of any shape [N, ...]."""
        return as_vectors(x, self.mode)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, ...]."""
        self.require_layers()
        x = self.features(student)
        projected = paddle.stack([projector(x) for projector in self.projectors]).mean(0)
        return (1 - cosine(projected, self.features(teacher))).mean()
