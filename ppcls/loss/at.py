"""Attention transfer."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor

from ppcls.errors import ConfigError
from ppcls.loss._tensors import norm
from ppcls.loss.base import TensorPairLoss
from ppcls.loss.shapes import on_smaller_grid
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
    pooled = on_smaller_grid(student, teacher)
    return (attention_map(pooled[0]) - attention_map(pooled[1])).square().mean()


@LOSSES.register("ATLoss")
class ATLoss(TensorPairLoss):
    """Attention transfer of one feature map, or of several, usually the last of each stage.

    The sum of :func:`attention_transfer` over the maps.

    Its weight in the literature is 1000. Use it as ``DistillationPairLoss: {base_loss_name: ATLoss, ...}``
    with an output, or a list of outputs, as `s_key` and as `t_key`.
    """

    several_maps = True

    def prepare(self, student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor]) -> None:
        """Check the shapes of the feature maps.

        Raises:
            ConfigError: if one is not a feature map [N, C, H, W].
        """
        for student_map, teacher_map in _map_pairs(student, teacher):
            if student_map.ndim != 4 or teacher_map.ndim != 4:
                raise ConfigError(
                    f"ATLoss: features of shapes {list(student_map.shape)} and {list(teacher_map.shape)}, "
                    "expected [N, C, H, W]; choose other layers with s_key and t_key"
                )

    def forward(self, student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the scalar loss of feature maps [N, C, H, W]."""
        self.prepare(student, teacher)
        return sum(
            attention_transfer(student_map, teacher_map)
            for student_map, teacher_map in _map_pairs(student, teacher)
        )


def _map_pairs(
    student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    if isinstance(student, list) and isinstance(teacher, list):
        return list(zip(student, teacher, strict=True))
    return [(student, teacher)]
