"""A simple recipe for distilling features: a linear projector, batch statistics and a logarithm."""

from __future__ import annotations

from typing import Literal

from paddle import Tensor, nn

from ppcls.loss._tensors import check_one_of
from ppcls.loss.base import TensorPairLoss
from ppcls.loss.shapes import found_size, not_prepared
from ppcls.registry import LOSSES

_TINY = 1e-24  # smallest argument of the logarithm, reached where student and teacher agree


def log_power_distance(student: Tensor, teacher: Tensor, power: float = 4.0) -> Tensor:
    """``log(sum |student - teacher|^power)`` over the whole batch; log(1e-24) where both agree.

    Args:
        student: normalised features, [N, D].
        teacher: normalised features, [N, D].
        power: exponent, above 1.
    """
    return (student - teacher).abs().pow(power).sum().clip(min=_TINY).log()


@LOSSES.register("SRDLoss")
class SRDLoss(TensorPairLoss):
    """Miles and Mikolajczyk, "Understanding the role of the projector in knowledge distillation" (AAAI 2024).

    arXiv 2303.11098: ``log(sum |BN(student W + b) - BN(teacher)|^4)`` over batch and features, with the
    mean and variance of the batch in BN, which has no scale and no shift. The gradient of a logarithm does
    not grow with the distance, so no weight has to be tuned: the paper's total is the cross entropy with
    labels, plus KL at temperature 1, plus two times this loss.

    Use it as ``DistillationPairLoss: {base_loss_name: SRDLoss, ...}``.

    Args:
        student_channel: features of the student, after `mode`; null: found by a dry forward.
        teacher_channel: features of the teacher, after `mode`; null: found by a dry forward.
        mode: how feature maps [N, C, H, W] become vectors: ``gap``: the mean over H, W; ``flatten``, for
            pooled features.
    """

    def __init__(
        self,
        student_channel: int | None = None,
        teacher_channel: int | None = None,
        mode: Literal["gap", "flatten"] = "gap",
    ) -> None:
        super().__init__()
        check_one_of("SRDLoss", "mode", mode, ("gap", "flatten"))
        self.student_channel = student_channel
        self.teacher_channel = teacher_channel
        self.mode = mode
        self.projector: nn.Layer | None = None
        self.norms: nn.LayerList | None = None
        if student_channel is not None and teacher_channel is not None:
            self._create(student_channel, teacher_channel)

    def _create(self, student: int, teacher: int) -> None:
        self.projector = nn.Linear(student, teacher)
        self.norms = nn.LayerList(
            [nn.BatchNorm1D(teacher, epsilon=1e-4, weight_attr=False, bias_attr=False) for _ in range(2)]
        )

    def _vector(self, x: Tensor) -> Tensor:
        return x.mean([2, 3]) if self.mode == "gap" and x.ndim == 4 else x.flatten(1)

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Create the projector, or check the given sizes, from features of any shape [N, ...].

        Raises:
            ConfigError: if a given size differs from the network's.
        """
        student_size = self._vector(student).shape[1]
        teacher_size = self._vector(teacher).shape[1]
        student_size = found_size("SRDLoss.student_channel", self.student_channel, student_size)
        teacher_size = found_size("SRDLoss.teacher_channel", self.teacher_channel, teacher_size)
        if self.projector is None:
            self._create(student_size, teacher_size)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, ...]."""
        if self.projector is None or self.norms is None:
            raise not_prepared("SRDLoss", "student_channel, teacher_channel")
        projected = self.projector(self._vector(student))
        target = self._vector(teacher)
        return log_power_distance(self.norms[0](projected), self.norms[1](target))
