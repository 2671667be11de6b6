"""Knowledge review: the student's deeper maps are compared with the teacher's shallower maps."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss.base import TensorPairLoss
from ppcls.loss.shapes import check_falling, check_sizes, found_size, not_prepared
from ppcls.registry import LOSSES

_LEVELS = (4, 2, 1)


def hierarchical_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Chen et al., "Distilling knowledge via knowledge review" (CVPR 2021, arXiv 2104.09044), HCL.

    The weighted mean of the mean squared differences of the maps and of the maps pooled to sides of 4, 2 and
    1, with weights 1, 1/2, 1/4 and 1/8. A side that is not smaller than the map's height is left out, and the
    next one gets its weight.

    Args:
        student: feature map, [N, C, H, W].
        teacher: feature map, [N, C, H, W].

    Returns:
        A scalar, zero where both agree.
    """
    total = F.mse_loss(student, teacher)
    weights = 1.0
    weight = 1.0
    for side in _LEVELS:
        if side < student.shape[2]:
            weight /= 2
            pooled = [F.adaptive_avg_pool2d(x, side) for x in (student, teacher)]
            total = total + weight * F.mse_loss(*pooled)
            weights += weight
    return total / weights


class Fusion(nn.Layer):
    """Attention-based fusion of one map of the student with the fused deeper maps.

    Args:
        channels: number of channels of the student's map.
        width: number of channels of the fused map that is passed to the next level.
        teacher_channels: number of channels of the teacher's map.
        deepest: whether this is the deepest map.
    """

    def __init__(self, channels: int, width: int, teacher_channels: int, deepest: bool) -> None:
        super().__init__()
        self.reduce = _conv_bn(channels, width, 1)
        self.gates = None if deepest else nn.Conv2D(2 * width, 2, 1)
        self.expand = _conv_bn(width, teacher_channels, 3)

    def forward(self, x: Tensor, deeper: Tensor | None, size: list[int]) -> tuple[Tensor, Tensor]:
        """Fuse two maps.

        Args:
            x: the student's map, [N, C, H, W].
            deeper: the fused map of the next deeper level, [N, width, h, w]; None for the deepest.
            size: height and width of the teacher's map.

        Returns:
            The map to compare with the teacher's, and the fused map for the next level.
        """
        x = self.reduce(x)
        if self.gates is not None and deeper is not None:
            deeper = _resize(deeper, x.shape[2:])
            gates = F.sigmoid(self.gates(paddle.concat([x, deeper], 1)))
            x = x * gates[:, :1] + deeper * gates[:, 1:]
        x = _resize(x, size)
        return self.expand(x), x


def _conv_bn(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    init = nn.initializer.KaimingUniform(negative_slope=1.0, nonlinearity="leaky_relu")
    conv = nn.Conv2D(
        channels_in, channels_out, kernel, padding=kernel // 2, weight_attr=init, bias_attr=False
    )
    return nn.Sequential(conv, nn.BatchNorm2D(channels_out))


def _resize(x: Tensor, size: list[int]) -> Tensor:
    return x if list(x.shape[2:]) == list(size) else F.interpolate(x, size, mode="nearest")


@LOSSES.register("ReviewKDLoss")
class ReviewKDLoss(TensorPairLoss):
    """Chen et al., "Distilling knowledge via knowledge review" (CVPR 2021, arXiv 2104.09044).

    From the deepest map to the shallowest, each map of the student is fused with the deeper ones
    (:class:`Fusion`) and compared with the teacher's map of its level (:func:`hierarchical_distance`). The
    value is the sum over the levels.

    Use it as ``DistillationPairLoss: {base_loss_name: ReviewKDLoss, s_key: [...], t_key: [...]}`` with the
    outputs of both networks from the shallowest to the deepest. Pooled features [N, C] count as maps of one
    position.

    Args:
        student_channels: for each map; null: found by a dry forward.
        teacher_channels: for each map; null: found by a dry forward.
        max_width: largest number of channels of the fused maps; the student's deepest map decides if it has
            fewer.
    """

    several_maps = True

    def __init__(
        self,
        student_channels: list[int] | None = None,
        teacher_channels: list[int] | None = None,
        max_width: int = 512,
    ) -> None:
        super().__init__()
        if max_width < 1:
            raise ConfigError(f"got {max_width}, expected at least 1", path="ReviewKDLoss.max_width")
        if student_channels and teacher_channels and len(student_channels) != len(teacher_channels):
            raise ConfigError(
                f"ReviewKDLoss: {len(student_channels)} student_channels and {len(teacher_channels)} "
                "teacher_channels, expected equal numbers"
            )
        check_sizes("ReviewKDLoss.student_channels", student_channels or [])
        check_sizes("ReviewKDLoss.teacher_channels", teacher_channels or [])
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.max_width = max_width
        self.fusions: nn.LayerList | None = None
        if student_channels and teacher_channels:
            self._create(student_channels, teacher_channels)

    def _create(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        width = min(self.max_width, student[-1])
        last = len(student) - 1
        channels = enumerate(zip(student, teacher, strict=True))
        self.fusions = nn.LayerList([Fusion(s, width, t, deepest=i == last) for i, (s, t) in channels])

    def prepare(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """Create the fusions, or check the given channel counts, from the maps of both networks.

        Raises:
            ConfigError: if numbers of maps or counts do not fit, or the maps are in another order.
        """
        maps = _maps(student), _maps(teacher)
        for option, found in zip(("s_key", "t_key"), maps, strict=True):
            check_falling(f"ReviewKDLoss.{option}", found)
        own, theirs = (
            _channels(f"ReviewKDLoss.{side}_channels", given, [x.shape[1] for x in found])
            for side, given, found in (
                ("student", self.student_channels, maps[0]),
                ("teacher", self.teacher_channels, maps[1]),
            )
        )
        if self.fusions is None:
            self._create(own, theirs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the scalar loss of maps [N, C, H, W] from the shallowest to the deepest."""
        if self.fusions is None:
            raise not_prepared("ReviewKDLoss", "student_channels, teacher_channels")
        total = 0.0
        deeper = None
        levels = zip(self.fusions, _maps(student), _maps(teacher), strict=True)
        for fusion, x, target in reversed(list(levels)):
            compared, deeper = fusion(x, deeper, target.shape[2:])
            total = total + hierarchical_distance(compared, target)
        return total


def _channels(option: str, given: list[int] | None, found: list[int]) -> list[int]:
    if given is not None and len(given) != len(found):
        raise ConfigError(f"got {len(given)} numbers for {len(found)} maps", path=option)
    return [found_size(f"{option}.{i}", given[i] if given else None, count) for i, count in enumerate(found)]


def _maps(tensors: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return feature maps [N, C, H, W]; pooled features [N, C] as maps of one position.

    Raises:
        ConfigError: if it is a single tensor, or one of the tensors has another shape.
    """
    if not isinstance(tensors, list | tuple):
        raise ConfigError("ReviewKDLoss compares several maps: give lists of outputs as s_key and t_key")
    maps = [x.reshape([*x.shape, 1, 1]) if x.ndim == 2 else x for x in tensors]
    for i, x in enumerate(maps):
        if x.ndim != 4:
            raise ConfigError(
                f"ReviewKDLoss: output {i} of shape {list(x.shape)}, expected [N, C, H, W] or [N, C]"
            )
    return maps
