"""MobileNetV3: inverted residuals with squeeze and excitation (Howard et al., "Searching for MobileNetV3",
arXiv 1905.02244, tables 1 and 2).
"""

from __future__ import annotations

from typing import Literal

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBN, Hardsigmoid, SEModule, conv, dropout, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per block: kernel, channels inside and out at scale 1, squeeze and excitation, hard swish, stride.
_Block = tuple[int, int, int, bool, bool, int]
_LARGE: tuple[_Block, ...] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_SMALL: tuple[_Block, ...] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
_BLOCKS = {"large": _LARGE, "small": _SMALL}


class ResidualUnit(nn.Layer):
    """1x1 convolution that widens, depthwise convolution, squeeze and excitation, 1x1 that narrows.

    ``add`` is the sum with the input, where the shapes are the same.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        kernel: int,
        stride: int,
        use_se: bool,
        hard_swish: bool,
    ) -> None:
        super().__init__()
        act = nn.Hardswish if hard_swish else nn.ReLU
        self.expand_conv = ConvBN(in_channels, inner, 1, act=act(), decay_bn=False)
        self.bottleneck_conv = ConvBN(inner, inner, kernel, stride, inner, act(), decay_bn=False)
        self.mid_se = SEModule(inner, gate=Hardsigmoid(0.2)) if use_se else nn.Identity()
        self.linear_conv = ConvBN(inner, out_channels, 1, decay_bn=False)
        self.add = Add() if stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y = self.linear_conv(self.mid_se(self.bottleneck_conv(self.expand_conv(x))))
        return y if self.add is None else self.add(x, y)


class MobileNet(TheseusLayer):
    """MobileNetV3: ``conv``, ``blocks[0]`` ..., ``last_second_conv``, ``avg_pool``, ``last_conv``, ``fc``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        size: large or small.
        scale: factor on all channel counts, which are then rounded to multiples of 8.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier; null for none. Dropped in training
            without rescaling and rescaled at inference, as the official weights need it.
        class_expand: features before the classifier.
    """

    def __init__(
        self,
        *,
        size: Literal["large", "small"],
        scale: float = 1.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.2,
        class_expand: int = 1280,
    ) -> None:
        super().__init__()
        width = make_divisible(16 * scale)
        self.conv = ConvBN(input_image_channel, width, 3, 2, act=nn.Hardswish(), decay_bn=False)
        rows = _BLOCKS[size]
        blocks = []
        for kernel, inner, channels, use_se, hard_swish, stride in rows:
            wide = make_divisible(inner * scale)
            out = make_divisible(channels * scale)
            blocks.append(ResidualUnit(width, wide, out, kernel, stride, use_se, hard_swish))
            width = out
        self.blocks = nn.Sequential(*blocks)
        ends = [index - 1 for index, row in enumerate(rows) if index and row[-1] == 2] + [len(rows) - 1]
        self.stages_pattern = tuple(f"blocks[{index}]" for index in ends)
        last = make_divisible(rows[-1][1] * scale)
        self.last_second_conv = ConvBN(width, last, 1, act=nn.Hardswish(), decay_bn=False)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = conv(last, class_expand, 1)
        self.hardswish = nn.Hardswish()
        self.dropout = dropout(dropout_prob, downscale=True)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(class_expand, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.avg_pool(self.last_second_conv(self.blocks(self.conv(x))))
        return self.fc(self.flatten(self.dropout(self.hardswish(self.last_conv(x)))))


MobileNetV3_small_x0_35 = register_network(MobileNet, "MobileNetV3_small_x0_35", size="small", scale=0.35)
MobileNetV3_small_x0_5 = register_network(MobileNet, "MobileNetV3_small_x0_5", size="small", scale=0.5)
MobileNetV3_small_x0_75 = register_network(MobileNet, "MobileNetV3_small_x0_75", size="small", scale=0.75)
MobileNetV3_small_x1_0 = register_network(MobileNet, "MobileNetV3_small_x1_0", size="small", scale=1.0)
MobileNetV3_small_x1_25 = register_network(MobileNet, "MobileNetV3_small_x1_25", size="small", scale=1.25)
MobileNetV3_large_x0_35 = register_network(MobileNet, "MobileNetV3_large_x0_35", size="large", scale=0.35)
MobileNetV3_large_x0_5 = register_network(MobileNet, "MobileNetV3_large_x0_5", size="large", scale=0.5)
MobileNetV3_large_x0_75 = register_network(MobileNet, "MobileNetV3_large_x0_75", size="large", scale=0.75)
MobileNetV3_large_x1_0 = register_network(MobileNet, "MobileNetV3_large_x1_0", size="large", scale=1.0)
MobileNetV3_large_x1_25 = register_network(MobileNet, "MobileNetV3_large_x1_25", size="large", scale=1.25)
