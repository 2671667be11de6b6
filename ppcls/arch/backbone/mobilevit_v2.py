"""MobileViTV2 (Mehta and Rastegari, "Separable Self-attention for Mobile Vision Transformers", arXiv
2206.02680).
"""

from __future__ import annotations

import math

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant, KaimingUniform

from ppcls.arch.backbone.layers import conv, dropout, make_divisible
from ppcls.arch.backbone.mobilevit import PATCH, resized, whole_patches
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_EXPAND = 2
# Of the stages with attention, at width 1: channels, channels of a token, layers.
_ATTENTION = ((256, 128, 2), (384, 192, 4), (512, 256, 3))


def named(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Return a convolution ``conv``, its BatchNorm ``norm`` and, if asked for, SiLU ``act``."""
    layers: list[tuple[str, nn.Layer]] = [
        ("conv", conv(in_channels, out_channels, kernel, stride, groups)),
        ("norm", nn.BatchNorm2D(out_channels)),
    ]
    if act:
        layers.append(("act", nn.Silu()))
    return nn.Sequential(*layers)


def pointwise(in_channels: int, out_channels: int) -> Conv2D:
    """Return a 1x1 convolution with a bias, weights evenly between plus and minus 1 / sqrt(fan-in)."""
    even = KaimingUniform(negative_slope=math.sqrt(5), nonlinearity="leaky_relu")
    return Conv2D(
        in_channels,
        out_channels,
        1,
        weight_attr=ParamAttr(initializer=even),
        bias_attr=ParamAttr(initializer=Constant(0.0)),
    )


class InvertedResidual(nn.Layer):
    """The block of MobileNetV2 with SiLU: expansion, depthwise convolution, projection; plus the input where
    the shape stays.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        wide = make_divisible(in_channels * _EXPAND)
        self.same = stride == 1 and in_channels == out_channels
        self.block = nn.Sequential(
            ("exp_1x1", named(in_channels, wide, 1)),
            ("conv_3x3", named(wide, wide, 3, stride, wide)),
            ("red_1x1", named(wide, out_channels, 1, act=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride], rounded up."""
        y = self.block(x)
        return x + y if self.same else y


class SeparableAttention(nn.Layer):
    """Attention whose cost grows with the number of tokens and not with its square.

    A score for each token gives the mean of the keys; that mean scales the values of all tokens.
    """

    def __init__(self, dim: int, drop: float) -> None:
        super().__init__()
        self.dim = dim
        self.qkv_proj = pointwise(dim, 1 + 2 * dim)
        self.softmax = nn.Softmax()
        self.attn_dropout = dropout(drop)
        self.relu = nn.ReLU()
        self.out_proj = pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, dim, P, L] to the same shape; the L tokens of each of the P places attend to each other."""
        y = self.qkv_proj(x)
        weights = self.attn_dropout(self.softmax(y[:, :1]))
        keys = y[:, 1 : 1 + self.dim].transpose([0, 2, 1, 3])
        context = (keys @ weights.transpose([0, 2, 3, 1])).transpose([0, 2, 1, 3])
        return self.out_proj(self.relu(y[:, 1 + self.dim :]) * context)


class SeparableLayer(nn.Layer):
    """Separable attention and an MLP, each behind a normalisation of all channels and beside a short cut."""

    def __init__(self, dim: int, drop: float, attn_drop: float) -> None:
        super().__init__()
        hidden = 2 * dim // 16 * 16
        self.pre_norm_attn = nn.Sequential(
            nn.GroupNorm(1, dim), SeparableAttention(dim, attn_drop), dropout(drop)
        )
        self.pre_norm_ffn = nn.Sequential(
            nn.GroupNorm(1, dim),
            pointwise(dim, hidden),
            nn.Silu(),
            nn.Identity(),  # official weights count a dropout here
            pointwise(hidden, dim),
            dropout(drop),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, dim, P, L] to the same shape."""
        x = x + self.pre_norm_attn(x)
        return x + self.pre_norm_ffn(x)


class MobileViTV2Block(nn.Layer):
    """Convolutions, layers of separable attention on patches of 2x2 places, and a convolution back."""

    def __init__(self, channels: int, dim: int, depth: int, drop: float, attn_drop: float) -> None:
        super().__init__()
        self.local_rep = nn.Sequential(
            named(channels, channels, 3, groups=channels), nn.Sequential(("conv", conv(channels, dim, 1)))
        )
        layers = [SeparableLayer(dim, drop, attn_drop) for _ in range(depth)]
        self.global_rep = nn.Sequential(*layers, nn.GroupNorm(1, dim))
        self.conv_proj = named(dim, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape, with H and W rounded up to even numbers.

        A map of an odd height or width is resized to the next even one, so that its corners stay.
        """
        whole = whole_patches(x.shape[2:])
        if whole != x.shape[2:]:
            x = resized(x, whole, corners=True)
        y = self.global_rep(split(self.local_rep(x)))
        return self.conv_proj(join(y, whole))


def split(x: Tensor) -> Tensor:
    """Return the pixels of a map [N, C, H, W] of even sides by their place in a patch, [N, C, 4, H W / 4]."""
    _, channels, height, width = x.shape
    x = x.reshape([-1, channels, height // PATCH, PATCH, width // PATCH, PATCH])
    return x.transpose([0, 1, 3, 5, 2, 4]).flatten(4, 5).flatten(2, 3)


def join(x: Tensor, size: list[int]) -> Tensor:
    """Return the map of height and width `size` that `split` made `x` of."""
    height, width = size
    x = x.reshape([-1, x.shape[1], PATCH, PATCH, height // PATCH, width // PATCH])
    return x.transpose([0, 1, 4, 2, 5, 3]).flatten(4, 5).flatten(2, 3)


class MobileViTV2(TheseusLayer):
    """MobileViTV2: ``conv_1``, ``layer_1`` ... ``layer_5``, ``classifier``.

    Published for images of 256 pixels; every size is taken.

    Args:
        width: what the published channels are multiplied by.
        drop_rate: share of the values dropped behind attention and MLP.
        attn_drop_rate: share of the attention weights dropped.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = tuple(f"layer_{stage}" for stage in range(1, 6))

    def __init__(
        self,
        *,
        width: float,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        stem = make_divisible(min(64, max(16, 32 * width)))
        first = make_divisible(64 * width, 16)
        second = make_divisible(128 * width)
        self.conv_1 = named(input_image_channel, stem, 3, 2)
        self.layer_1 = nn.Sequential(InvertedResidual(stem, first, 1))
        self.layer_2 = nn.Sequential(InvertedResidual(first, second, 2), InvertedResidual(second, second, 1))
        before = second
        for stage, (channels, dim, depth) in enumerate(_ATTENTION, 3):
            out = make_divisible(channels * width)
            block = MobileViTV2Block(out, make_divisible(dim * width), depth, drop_rate, attn_drop_rate)
            self.add_sublayer(f"layer_{stage}", nn.Sequential(InvertedResidual(before, out, 2), block))
            before = out
        self.classifier = nn.Sequential(
            ("global_pool", nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Flatten())),
            ("fc", nn.Linear(before, class_num)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv_1(x)
        for name in self.stages_pattern:
            x = getattr(self, name)(x)
        return self.classifier(x)


MobileViTV2_x0_5 = register_network(MobileViTV2, "MobileViTV2_x0_5", width=0.5)
MobileViTV2_x0_75 = register_network(MobileViTV2, "MobileViTV2_x0_75", width=0.75)
MobileViTV2_x1_0 = register_network(MobileViTV2, "MobileViTV2_x1_0", width=1.0)
MobileViTV2_x1_25 = register_network(MobileViTV2, "MobileViTV2_x1_25", width=1.25)
MobileViTV2_x1_5 = register_network(MobileViTV2, "MobileViTV2_x1_5", width=1.5)
MobileViTV2_x1_75 = register_network(MobileViTV2, "MobileViTV2_x1_75", width=1.75)
MobileViTV2_x2_0 = register_network(MobileViTV2, "MobileViTV2_x2_0", width=2.0)
