"""MobileNetV4, the networks of convolutions alone (Qin et al., "MobileNetV4: Universal Models for the Mobile
Ecosystem", arXiv 2404.10518, appendix D).
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBN, conv, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer


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


class InvertedBottleneck(nn.Layer):
    """The universal inverted bottleneck: a 1x1 expansion and a 1x1 projection, with up to two depthwise
    convolutions, before the expansion and between; plus the input where the shape stays.

    The last depthwise convolution there is has the stride.
    """

    def __init__(self, in_channels: int, row: Inverted) -> None:
        super().__init__()
        wide = make_divisible(in_channels * row.expand)
        first = 1 if row.middle else row.stride
        same = nn.Identity
        self.dw_start = (
            ConvBN(in_channels, in_channels, row.start, first, in_channels) if row.start else same()
        )
        self.pw_exp = ConvBN(in_channels, wide, 1, act=nn.ReLU())
        self.dw_mid = ConvBN(wide, wide, row.middle, row.stride, wide, nn.ReLU()) if row.middle else same()
        self.pw_proj = ConvBN(wide, row.channels, 1)
        self.same = row.stride == 1 and in_channels == row.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self.pw_proj(self.dw_mid(self.pw_exp(self.dw_start(x))))
        return x + y if self.same else y


class FusedBottleneck(nn.Layer):
    """The inverted bottleneck whose expansion is a full convolution and needs no depthwise one."""

    def __init__(self, in_channels: int, row: Fused) -> None:
        super().__init__()
        wide = make_divisible(in_channels * row.expand)
        self.conv_exp = conv(in_channels, wide, row.kernel, row.stride)
        self.bn1 = nn.BatchNorm2D(wide)
        self.relu = nn.ReLU()
        self.conv_pwl = conv(wide, row.channels, 1)
        self.bn2 = nn.BatchNorm2D(row.channels)
        self.same = row.stride == 1 and in_channels == row.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self.bn2(self.conv_pwl(self.relu(self.bn1(self.conv_exp(x)))))
        return x + y if self.same else y


class MobileNetV4(TheseusLayer):
    """MobileNetV4: ``conv_stem``, ``blocks[0]`` ... ``blocks[n]``, ``conv_head``, ``classifier``.

    Args:
        size: small, medium or large.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier.
    """

    def __init__(
        self,
        *,
        size: str,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        rows, width = _ROWS[size], _STEMS[size]
        self.conv_stem = ConvBN(input_image_channel, width, 3, 2, act=nn.ReLU())
        blocks = []
        for row in rows:
            blocks.append(_block(width, row))
            width = row.channels
        self.blocks = nn.Sequential(*blocks)
        ends = [index - 1 for index, row in enumerate(rows) if row.stride == 2 and index]
        self.stages_pattern = tuple(f"blocks[{last}]" for last in [*ends, len(rows) - 1])
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv_head = ConvBN(width, _FEATURES, 1, act=nn.ReLU())
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout_prob)
        self.classifier = nn.Linear(_FEATURES, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv_head(self.avg_pool(self.blocks(self.conv_stem(x))))
        return self.classifier(self.dropout(self.flatten(x)))


def _block(in_channels: int, row: _Row) -> nn.Layer:
    if isinstance(row, Plain):
        return ConvBN(in_channels, row.channels, row.kernel, row.stride, act=nn.ReLU())
    if isinstance(row, Fused):
        return FusedBottleneck(in_channels, row)
    return InvertedBottleneck(in_channels, row)


MobileNetV4_conv_small = register_network(MobileNetV4, "MobileNetV4_conv_small", size="small")
MobileNetV4_conv_medium = register_network(MobileNetV4, "MobileNetV4_conv_medium", size="medium")
MobileNetV4_conv_large = register_network(MobileNetV4, "MobileNetV4_conv_large", size="large")
