"""MobileNetV4, the networks of convolutions alone (Qin et al., "MobileNetV4: Universal Models for the Mobile
Ecosystem", arXiv 2404.10518, appendix D).
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBN, drop_path, dropout, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.errors import ConfigError


@dataclass(frozen=True)
class Plain:
    """A convolution: its kernel, stride and channels."""

    kernel: int
    stride: int
    channels: int


@dataclass(frozen=True)
class Fused:
    """A `FusedBottleneck`: kernel and stride of the expansion, its factor, channels of the output."""

    kernel: int
    stride: int
    expand: int
    channels: int


@dataclass(frozen=True)
class Inverted:
    """An `InvertedBottleneck`: the kernels of the two depthwise convolutions (0 for none) and the rest."""

    start: int
    middle: int
    stride: int
    expand: int
    channels: int


_Row = Plain | Fused | Inverted

_ROWS: dict[str, list[_Row]] = {
    "small": [
        *(Plain(3, 2, 32), Plain(1, 1, 32)),
        *(Plain(3, 2, 96), Plain(1, 1, 64)),
        Inverted(5, 5, 2, 3, 96),
        *[Inverted(0, 3, 1, 2, 96)] * 4,
        Inverted(3, 0, 1, 4, 96),
        *(Inverted(3, 3, 2, 6, 128), Inverted(5, 5, 1, 4, 128)),
        *(Inverted(0, 5, 1, 4, 128), Inverted(0, 5, 1, 3, 128)),
        *[Inverted(0, 3, 1, 4, 128)] * 2,
        Plain(1, 1, 960),
    ],
    "medium": [
        Fused(3, 2, 4, 48),
        *(Inverted(3, 5, 2, 4, 80), Inverted(3, 3, 1, 2, 80)),
        *(Inverted(3, 5, 2, 6, 160), *[Inverted(3, 3, 1, 4, 160)] * 2),
        *(Inverted(3, 5, 1, 4, 160), Inverted(3, 3, 1, 4, 160), Inverted(3, 0, 1, 4, 160)),
        *(Inverted(0, 0, 1, 2, 160), Inverted(3, 0, 1, 4, 160)),
        *(Inverted(5, 5, 2, 6, 256), Inverted(5, 5, 1, 4, 256), *[Inverted(3, 5, 1, 4, 256)] * 2),
        *(Inverted(0, 0, 1, 4, 256), Inverted(3, 0, 1, 4, 256), Inverted(3, 5, 1, 2, 256)),
        *(Inverted(5, 5, 1, 4, 256), *[Inverted(0, 0, 1, 4, 256)] * 2, Inverted(5, 0, 1, 2, 256)),
        Plain(1, 1, 960),
    ],
    "large": [
        Fused(3, 2, 4, 48),
        *(Inverted(3, 5, 2, 4, 96), Inverted(3, 3, 1, 4, 96)),
        *(Inverted(3, 5, 2, 4, 192), *[Inverted(3, 3, 1, 4, 192)] * 3, Inverted(3, 5, 1, 4, 192)),
        *(*[Inverted(5, 3, 1, 4, 192)] * 5, Inverted(3, 0, 1, 4, 192)),
        *(Inverted(5, 5, 2, 4, 512), *[Inverted(5, 5, 1, 4, 512)] * 3, Inverted(5, 0, 1, 4, 512)),
        *(Inverted(5, 3, 1, 4, 512), *[Inverted(5, 0, 1, 4, 512)] * 2, Inverted(5, 3, 1, 4, 512)),
        *(Inverted(5, 5, 1, 4, 512), *[Inverted(5, 0, 1, 4, 512)] * 3),
        Plain(1, 1, 960),
    ],
}
_STEMS = {"small": 32, "medium": 32, "large": 24}
_FEATURES = 1280

# The names of the fused bottleneck, which is the first block where there is one.
_BATCH_NORM = ("weight", "bias", "_mean", "_variance")
_FORMER_NAMES = {
    "blocks.0.conv_exp.weight": "blocks.0.conv_exp.conv.weight",
    "blocks.0.conv_pwl.weight": "blocks.0.conv_pwl.conv.weight",
    **{f"blocks.0.bn1.{leaf}": f"blocks.0.conv_exp.bn.{leaf}" for leaf in _BATCH_NORM},
    **{f"blocks.0.bn2.{leaf}": f"blocks.0.conv_pwl.bn.{leaf}" for leaf in _BATCH_NORM},
}


class InvertedBottleneck(nn.Layer):
    """The universal inverted bottleneck: a 1x1 expansion and a 1x1 projection, with up to two depthwise
    convolutions, before the expansion and between; plus the input where the shape stays.

    The last depthwise convolution there is has the stride. In training the branch is dropped for a sample
    with the probability `drop`, where there is a sum with the input.
    """

    def __init__(self, in_channels: int, row: Inverted, drop: float) -> None:
        super().__init__()
        wide = make_divisible(in_channels * row.expand)
        first = 1 if row.middle else row.stride
        same = nn.Identity
        self.dw_start = (
            _conv_bn(in_channels, in_channels, row.start, first, in_channels) if row.start else same()
        )
        self.pw_exp = _conv_bn(in_channels, wide, 1, act=True)
        self.dw_mid = _conv_bn(wide, wide, row.middle, row.stride, wide, True) if row.middle else same()
        self.pw_proj = _conv_bn(wide, row.channels, 1)
        self.drop_path = drop_path(drop)
        self.same = row.stride == 1 and in_channels == row.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return x + self.drop_path(y) if self.same else y


class FusedBottleneck(nn.Layer):
    """The inverted bottleneck whose expansion is a full convolution and needs no depthwise one.

    See `InvertedBottleneck` for `drop`.
    """

    def __init__(self, in_channels: int, row: Fused, drop: float) -> None:
        super().__init__()
        wide = make_divisible(in_channels * row.expand)
        self.conv_exp = _conv_bn(in_channels, wide, row.kernel, row.stride, act=True)
        self.conv_pwl = _conv_bn(wide, row.channels, 1)
        self.drop_path = drop_path(drop)
        self.same = row.stride == 1 and in_channels == row.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self.conv_pwl(self.conv_exp(x))
        return x + self.drop_path(y) if self.same else y


class MobileNetV4(TheseusLayer):
    """MobileNetV4: ``conv_stem``, ``blocks[0]`` ... ``blocks[n]``, ``conv_head``, ``classifier``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        size: small, medium or large.
        class_num: number of classes.
        input_image_channel: channels of the images.
        drop_rate: share of the features dropped before the classifier. (PaddleClas takes the option and does
            not follow it.)
        drop_path_rate: block i of n drops its branch for a sample in training with the probability
            ``drop_path_rate * i / n``, where there is a sum with the input. (PaddleClas also drops the whole
            output of the plain convolutions among the blocks.)
        dropout_prob: another name of `drop_rate`; null for none.
    """

    former_names = _FORMER_NAMES

    def __init__(
        self,
        *,
        size: str,
        class_num: int = 1000,
        input_image_channel: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dropout_prob: float | None = None,
    ) -> None:
        super().__init__()
        if drop_rate and dropout_prob:
            raise ConfigError("drop_rate and dropout_prob are the same; give one")
        rows = _ROWS[size]
        width = _STEMS[size]
        self.conv_stem = _conv_bn(input_image_channel, width, 3, 2, act=True)
        blocks = []
        for index, row in enumerate(rows):
            blocks.append(_block(width, row, drop_path_rate * index / len(rows)))
            width = row.channels
        self.blocks = nn.Sequential(*blocks)
        ends = [index - 1 for index, row in enumerate(rows) if row.stride == 2 and index]
        self.stages_pattern = tuple(f"blocks[{last}]" for last in [*ends, len(rows) - 1])
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv_head = _conv_bn(width, _FEATURES, 1, act=True)
        self.flatten = nn.Flatten()
        self.dropout = dropout(drop_rate or dropout_prob)
        self.classifier = nn.Linear(_FEATURES, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv_head(self.avg_pool(self.blocks(self.conv_stem(x))))
        return self.classifier(self.dropout(self.flatten(x)))


def _block(in_channels: int, row: _Row, drop: float) -> nn.Layer:
    if isinstance(row, Plain):
        return _conv_bn(in_channels, row.channels, row.kernel, row.stride, act=True)
    if isinstance(row, Fused):
        return FusedBottleneck(in_channels, row, drop)
    return InvertedBottleneck(in_channels, row, drop)


def _conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = False
) -> ConvBN:
    relu = nn.ReLU() if act else None
    return ConvBN(in_channels, out_channels, kernel, stride, groups, relu, decay_bn=False)


MobileNetV4_conv_small = register_network(MobileNetV4, "MobileNetV4_conv_small", size="small")
MobileNetV4_conv_medium = register_network(MobileNetV4, "MobileNetV4_conv_medium", size="medium")
MobileNetV4_conv_large = register_network(MobileNetV4, "MobileNetV4_conv_large", size="large")
