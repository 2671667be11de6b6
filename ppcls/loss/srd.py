"""A simple recipe for distilling features: a linear projector, batch statistics and a logarithm."""

from __future__ import annotations

from typing import Literal

from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._tensors import check_one_of
from ppcls.loss.shapes import VECTOR_MODES, SizedPairLoss, as_vectors, on_smaller_grid
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
class SRDLoss(SizedPairLoss):
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
            pooled features; ``positions``: each position is a sample, so that the student learns what lies
            where. The larger of two maps is averaged to the size of the smaller.
    """

    size_options = ("student_channel", "teacher_channel")

    def __init__(
        self,
        student_channel: int | None = None,
        teacher_channel: int | None = None,
        mode: Literal["gap", "flatten", "positions"] = "gap",
    ) -> None:
        super().__init__(student_channel, teacher_channel)
        check_one_of("SRDLoss", "mode", mode, (*VECTOR_MODES, "positions"))
        self.mode = mode
        self.create_if_known()

    def create(self, student: int, teacher: int) -> None:
        """Create the projector and the BatchNorms of both sides."""
        self.projector = nn.Linear(student, teacher)
        self.norms = nn.LayerList(
            [nn.BatchNorm1D(teacher, epsilon=1e-4, weight_attr=False, bias_attr=False) for _ in range(2)]
        )

    def features(self, x: Tensor) -> Tensor:
        """Return the vectors [N, D] of features of any shape [N, ...]; with ``positions`` [N * H * W, D].

        Raises:
            ConfigError: if ``positions`` gets something else than maps.
        """
        if self.mode != "positions":
            return as_vectors(x, self.mode)
        if x.ndim != 4:
            raise ConfigError(
                f"positions needs feature maps [N, C, H, W], got {list(x.shape)}; vectors need mode: flatten",
                path="SRDLoss.mode",
            )
        return x.transpose([0, 2, 3, 1]).flatten(0, 2)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, ...]."""
        self.require_layers()
        if self.mode == "positions" and student.ndim == teacher.ndim == 4:
            student, teacher = on_smaller_grid(student, teacher)
        projected = self.projector(self.features(student))
        target = self.features(teacher)
        return log_power_distance(self.norms[0](projected), self.norms[1](target))
