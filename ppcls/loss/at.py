"""Attention transfer."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._tensors import norm
from ppcls.registry import LOSSES


def attention_map(x: Tensor) -> Tensor:
    """Return where a feature map [N, C, H, W] is strong: [N, H * W], each row of length 1.

    The mean over the channels of the squares, flattened and divided by its Euclidean norm.
    """
    strength = x.square().mean(1).flatten(1)
    return strength / norm(strength, keepdim=True)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Zagoruyko and Komodakis, "Paying more attention to attention" (ICLR 2017, arXiv 1612.03928).

    The mean squared difference of the two attention maps (:func:`attention_map`), with p = 2. The larger of
    two maps is pooled to the size of the other first.

    Args:
        student: feature map, [N, C, H, W].
        teacher: feature map; channels, height and width may differ.

    Returns:
        A scalar, zero where both are strong at the same places.
    """
    size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    pooled = [x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher)]
    return (attention_map(pooled[0]) - attention_map(pooled[1])).square().mean()


@LOSSES.register("ATLoss")
class ATLoss(nn.Layer):
    """:func:`attention_transfer`, usually of the last maps of all stages, with a weight of 1000.

    Use it as ``DistillationPairLoss: {base_loss_name: ATLoss, ...}``.
    """

    is_pair_loss = True

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Check the shapes of the feature maps.

        Raises:
            ConfigError: if one is no feature map [N, C, H, W].
        """
        if student.ndim != 4 or teacher.ndim != 4:
            raise ConfigError(
                f"ATLoss: features of shapes {list(student.shape)} and {list(teacher.shape)}, expected "
                "[N, C, H, W]; choose other layers with s_key and t_key"
            )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss of features [N, C, H, W]."""
        self.prepare(student, teacher)
        return attention_transfer(student, teacher)
