"""Wasserstein distances for knowledge distillation."""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._tensors import check_positive
from ppcls.loss.shapes import SizedPairLoss
from ppcls.registry import LOSSES

_EPS = 1e-5  # added to the variance, as published


def gaussian_distance(student: Tensor, teacher: Tensor, ratio: float = 2.0) -> Tensor:
    """Squared 2-Wasserstein distance of two feature maps, with each channel as a normal distribution.

    Lv et al., "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation" (NeurIPS
    2024, arXiv 2412.08139), WKD-F: ``ratio * |mu_s - mu_t|^2 + |sigma_s - sigma_t|^2``, summed over the
    channels, mean over the batch; mu and ``sigma = sqrt(var + 1e-5)`` are the mean and the (unbiased)
    standard deviation over the positions of a map.

    Args:
        student: feature map, [N, C, H, W].
        teacher: feature map, [N, C, H', W'].
        ratio: weight of the means.

    Returns:
        A scalar, zero where means and deviations agree.
    """
    (mean_s, deviation_s) = _moments(student)
    (mean_t, deviation_t) = _moments(teacher)
    means = (mean_s - mean_t).square().sum(-1)
    deviations = (deviation_s - deviation_t).square().sum(-1)
    return (ratio * means + deviations).mean()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over the positions, [N, C] each."""
    flat = x.flatten(2)
    mean = flat.mean(-1)
    variance = (flat - mean.unsqueeze(-1)).square().sum(-1) / max(flat.shape[-1] - 1, 1)
    return mean, (variance + _EPS).sqrt()


@LOSSES.register("WKDFeatureLoss")
class WKDFeatureLoss(SizedPairLoss):
    """Wasserstein distance of feature maps whose channels are taken as normal distributions (WKD-F).

    The :func:`gaussian_distance` of the teacher's map and the student's, the latter after a 1x1 convolution,
    BatchNorm and ReLU.

    Use it as ``DistillationPairLoss: {base_loss_name: WKDFeatureLoss, ...}``.

    Args:
        student_channels: channels of the student's features; null: found by a dry forward.
        teacher_channels: channels of the teacher's features; null: found by a dry forward.
        ratio: weight of the means, above 0; the weight of the deviations is 1.
    """

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        ratio: float = 2.0,
    ) -> None:
        super().__init__(student_channels, teacher_channels)
        check_positive("WKDFeatureLoss", ratio=ratio)
        self.ratio = ratio
        self.create_if_known()

    def create(self, student: int, teacher: int) -> None:
        """Create the projector."""
        conv = nn.Conv2D(student, teacher, 1, weight_attr=nn.initializer.KaimingNormal(), bias_attr=False)
        self.projector = nn.Sequential(conv, nn.BatchNorm2D(teacher), nn.ReLU())

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Create the projector, or check the given channel counts, from features [N, C, H, W].

        Raises:
            ConfigError: if a count differs from the network's, or a tensor is not a feature map.
        """
        _check_maps(student, teacher)
        super().prepare(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, Cs, H, W] and [N, Ct, H', W']."""
        self.require_layers()
        _check_maps(student, teacher)
        return gaussian_distance(self.projector(student), teacher, self.ratio)


def _check_maps(student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 4 or teacher.ndim != 4:
        raise ConfigError(
            f"WKDFeatureLoss: features of shapes {list(student.shape)} and {list(teacher.shape)}, expected "
            "[N, C, H, W]; choose other layers with s_key and t_key"
        )
