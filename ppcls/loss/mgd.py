"""Masked generative distillation."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls import distributed
from ppcls.errors import ConfigError
from ppcls.loss._tensors import check_positive
from ppcls.loss.shapes import SizedPairLoss
from ppcls.registry import LOSSES


def _conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2D:
    init = nn.initializer.KaimingNormal()
    return nn.Conv2D(channels_in, channels_out, kernel, padding=kernel // 2, weight_attr=init)


@LOSSES.register("MGDLoss")
class MGDLoss(SizedPairLoss):
    """Yang et al., "Masked generative distillation" (ECCV 2022, arXiv 2205.01529), for classification.

    ``alpha_mgd * mean((G(M * A(student)) - teacher)^2)``: whole channels of the student's features are
    dropped at random (M), and two 3x3 convolutions with a ReLU between them (G) generate the
    teacher's features from the remaining channels. A is a 1x1 convolution, present only if the channel counts
    differ. The paper sums over C, H, W and multiplies by 7e-5, which is ``alpha_mgd = 7e-5 * C * H * W``:
    1.756 for 512 x 7 x 7. In eval mode nothing is dropped.

    Use it as ``DistillationPairLoss: {base_loss_name: MGDLoss, ...}``.

    Args:
        student_channels: channels of the student's features; null: found by a dry forward.
        teacher_channels: channels of the teacher's features; null: found by a dry forward.
        alpha_mgd: factor of the loss, above 0.
        lambda_mgd: probability with which a channel is dropped, 0 to below 1.
    """

    part = "loss"  # the name in PaddleClas

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        alpha_mgd: float = 1.756,
        lambda_mgd: float = 0.15,
    ) -> None:
        super().__init__(student_channels, teacher_channels)
        check_positive("MGDLoss", alpha_mgd=alpha_mgd)
        if not 0 <= lambda_mgd < 1:
            raise ConfigError(
                f"got {lambda_mgd}, expected a number from 0 to below 1", path="MGDLoss.lambda_mgd"
            )
        self.alpha = alpha_mgd
        self.drop = lambda_mgd
        self.create_if_known()

    def create(self, student: int, teacher: int) -> None:
        """Create the convolutions."""
        self.align = _conv(student, teacher, 1) if student != teacher else None
        self.generation = nn.Sequential(_conv(teacher, teacher, 3), nn.ReLU(), _conv(teacher, teacher, 3))

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Create the convolutions, or check the given channel counts, from features [N, C, H, W].

        Raises:
            ConfigError: if counts or spatial sizes do not fit.
        """
        _check_maps(student, teacher)
        super().prepare(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, Cs, H, W] and [N, Ct, H, W]."""
        self.require_layers()
        _check_maps(student, teacher)
        x = student if self.align is None else self.align(student)
        if self.training and self.drop > 0:
            x = x * self._mask(*x.shape[:2]).astype(x.dtype)
        return F.mse_loss(self.generation(x), teacher) * self.alpha

    def _mask(self, samples: int, channels: int) -> Tensor:
        """Return which channels are kept, [N, C, 1, 1].

        It is drawn for the samples of all processes, so that several processes mask as a single one would.
        """
        part, parts = distributed.part_of_batch()
        first = part * samples
        drawn = paddle.rand([parts * samples, channels, 1, 1])
        return drawn[first : first + samples] >= self.drop


def _check_maps(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 4 or teacher.ndim != 4 or list(student.shape[2:]) != list(teacher.shape[2:]):
        raise ConfigError(
            f"MGDLoss: features of shapes {list(student.shape)} and {list(teacher.shape)}, expected "
            "[N, C, H, W] with equal H and W; choose other layers with s_key and t_key"
        )
