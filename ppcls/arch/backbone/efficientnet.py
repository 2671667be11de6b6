"""EfficientNet (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
arXiv 1905.11946).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import KaimingNormal

from ppcls.arch.backbone.layers import Sigmoid, drop_path, dropout, make_divisible
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer, bracketed

# The constants of BatchNorm of the original implementation; 0.99 is its own, not Paddle's, default.
BN_EPSILON = 1e-3
BN_MOMENTUM = 0.99


@dataclass(frozen=True)
class StageSpec:
    """One stage of the baseline network B0: how often which block."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


# Table 1 of the paper.
STAGES = (
    StageSpec(1, 3, 1, 1, 16),
    StageSpec(2, 3, 2, 6, 24),
    StageSpec(2, 5, 2, 6, 40),
    StageSpec(3, 3, 2, 6, 80),
    StageSpec(3, 5, 1, 6, 112),
    StageSpec(4, 5, 2, 6, 192),
    StageSpec(1, 3, 1, 6, 320),
)


# Width (factor on the channel counts), depth (factor on the number of blocks), dropout before the classifier,
# side of the images.
_SIZES = {
    "B0": (1.0, 1.0, 0.2, 224),
    "B1": (1.0, 1.1, 0.2, 240),
    "B2": (1.1, 1.2, 0.3, 260),
    "B3": (1.2, 1.4, 0.3, 300),
    "B4": (1.4, 1.8, 0.4, 380),
    "B5": (1.6, 2.2, 0.4, 456),
    "B6": (1.8, 2.6, 0.5, 528),
    "B7": (2.0, 3.1, 0.5, 600),
}


def batch_norm(channels: int) -> nn.BatchNorm2D:
    """Return a BatchNorm with the constants of these networks."""
    return nn.BatchNorm2D(channels, momentum=BN_MOMENTUM, epsilon=BN_EPSILON)


def same_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    side: int | None = None,
) -> Conv2D:
    """Return a convolution without bias, padded by TensorFlow's rule "SAME".

    At stride 2 and an even size it pads less at the beginning than at the end; the weights were trained so.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, odd.
        stride: 1 or 2.
        groups: groups of the convolution.
        side: pad at the beginning as on maps of this side, and enough at the end for maps of any side;
            None to go by each map.
    """
    padding: str | list[int] = "SAME"
    if stride == 2 and side is not None:
        before = (kernel - 1) // 2 if side % 2 else (kernel - 2) // 2
        after = before if side % 2 else before + 2
        padding = [before, after, before, after]
    return Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        weight_attr=ParamAttr(initializer=KaimingNormal()),
        bias_attr=False,
    )


def deepened(repeats: int, depth: float) -> int:
    """Return a stage's number of blocks times a depth, rounded up."""
    return math.ceil(repeats * depth)


def _halved(side: int | None) -> int | None:
    return None if side is None else -(-side // 2)


def stage_ends(depth: float, deepen: Callable[[int, float], int] = deepened) -> list[int]:
    """Return the indices of the last block before each halving of the map and of the last of all."""
    ends = []
    count = 0
    for spec in STAGES:
        if spec.stride == 2:
            ends.append(count - 1)
        count += deepen(spec.repeats, depth)
    return [*ends, count - 1]


class Nested(nn.Layer):
    """A layer one level down under the name ``_conv``, where the official weights have it."""

    def __init__(self, layer: nn.Layer) -> None:
        super().__init__()
        self._conv = layer

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer."""
        return self._conv(x)


class ConvNorm(nn.Layer):
    """`same_conv`, BatchNorm (made by `norm`) and an activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: nn.Layer | None = None,
        side: int | None = None,
        norm: Callable[[int], nn.Layer] = batch_norm,
    ) -> None:
        super().__init__()
        self._conv = Nested(same_conv(in_channels, out_channels, kernel, stride, groups, side))
        self._bn = norm(out_channels)
        self._act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self._act(self._bn(self._conv(x)))


class SqueezeExcitation(nn.Layer):
    """Squeeze and excitation (Hu et al., arXiv 1709.01507) with swish between and a sigmoid as gate."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self._avg_pool = nn.AdaptiveAvgPool2D(1)
        self._conv1 = Nested(Conv2D(channels, reduced, 1))
        self._swish = nn.Swish()
        self._conv2 = Nested(Conv2D(reduced, channels, 1))
        self._sigmoid = Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scale [N, channels, H, W] channel by channel."""
        return x * self._sigmoid(self._conv2(self._swish(self._conv1(self._avg_pool(x)))))


class MBConv(nn.Layer):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, squeeze and excitation, 1x1 projection.

    Where the shape stays, the input is added, and in training the rest is dropped for a sample with the
    probability `drop` (stochastic depth, Huang et al., arXiv 1603.09382). See `same_conv` for `side`.
    """

    def __init__(
        self,
        in_channels: int,
        spec: StageSpec,
        stride: int,
        channels: int,
        drop: float,
        side: int | None = None,
        norm: Callable[[int], nn.Layer] = batch_norm,
    ) -> None:
        super().__init__()
        wide = in_channels * spec.expand
        self._ecn: nn.Layer = nn.Identity()
        if spec.expand > 1:
            self._ecn = Nested(ConvNorm(in_channels, wide, 1, act=nn.Swish(), norm=norm))
        self._dcn = Nested(ConvNorm(wide, wide, spec.kernel, stride, wide, nn.Swish(), side, norm))
        self._se = SqueezeExcitation(wide, max(1, in_channels // 4))
        self._pcn = Nested(ConvNorm(wide, channels, 1, norm=norm))
        self.drop_path = drop_path(drop)
        self.same = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self._pcn(self._se(self._dcn(self._ecn(x))))
        return x + self.drop_path(y) if self.same else y


class Features(nn.Layer):
    """Stem and blocks. The first block of a stage is called ``_blocks.<i>.``, the others ``block.<i>.``.

    See `same_conv` for `side`, here that of the images. `stem` is the width of the stem, if `width` does not
    scale it; `deepen` returns a stage's number of blocks times a depth.
    """

    def __init__(
        self,
        image: int,
        width: float,
        depth: float,
        drop: float,
        side: int | None,
        *,
        stem: int | None = None,
        deepen: Callable[[int, float], int] = deepened,
        norm: Callable[[int], nn.Layer] = batch_norm,
    ) -> None:
        super().__init__()
        self.channels = make_divisible(32 * width) if stem is None else stem
        self._conv_stem = Nested(ConvNorm(image, self.channels, 3, 2, act=nn.Swish(), side=side, norm=norm))
        side = _halved(side)
        self.path: list[str] = []
        total = sum(deepen(spec.repeats, depth) for spec in STAGES)
        for spec in STAGES:
            out = make_divisible(spec.channels * width)
            for index in range(deepen(spec.repeats, depth)):
                self.path.append(f"{'block' if index else '_blocks'}.{len(self.path)}.")
                rate = drop * (len(self.path) - 1) / total
                stride = 1 if index else spec.stride
                block = MBConv(self.channels, spec, stride, out, rate, side, norm)
                self.add_sublayer(self.path[-1], block)
                self.channels = out
                side = _halved(side) if stride == 2 else side

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, C, H, W] to [N, channels, H / 32, W / 32]."""
        x = self._conv_stem(x)
        for name in self.path:
            x = getattr(self, name)(x)
        return x


class EfficientNet(TheseusLayer):
    """EfficientNet: ``_ef._conv_stem``, ``_ef._blocks[0].``, ``_ef._blocks[1].``, ``_ef.block[2].``, ...,
    ``_conv``, ``_fc``. Descriptors of blocks end with a dot, as the official names do.

    Args:
        size: B0 to B7.
        dropout_prob: share of the features dropped before the classifier (default: 0.2 for B0 to 0.5 for B7).
        drop_connect_rate: probability of dropping the last block; that of the others falls to 0 at the first.
        fixed_padding: pad images of any size as those of the size that the network was published for (224
            for B0, 240, 260, 300, 380, 456, 528, 600 for B7), as the official weights of Paddle need it.
            TensorFlow's and PyTorch's networks use the real size, so their weights need False; for
            images of the published size both are the same.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        size: str,
        dropout_prob: float | None = None,
        drop_connect_rate: float = 0.2,
        fixed_padding: bool = True,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        width, depth, share, side = _SIZES[size]
        self.fixed_padding = fixed_padding
        self.former_answer = "fixed_padding: False" if fixed_padding else ""
        self._ef = Features(
            input_image_channel, width, depth, drop_connect_rate, side if fixed_padding else None
        )
        self.stages_pattern = tuple(bracketed(f"_ef.{self._ef.path[i]}") for i in stage_ends(depth))
        features = make_divisible(1280 * width)
        self._conv = ConvNorm(self._ef.channels, features, 1, act=nn.Swish())
        self._pool = nn.AdaptiveAvgPool2D(1)
        self._flatten = nn.Flatten()
        self._drop = dropout(share if dropout_prob is None else dropout_prob)
        self._fc = nn.Linear(features, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self._pool(self._conv(self._ef(x)))
        return self._fc(self._drop(self._flatten(x)))


EfficientNetB0 = register_network(EfficientNet, "EfficientNetB0", size="B0")
EfficientNetB1 = register_network(EfficientNet, "EfficientNetB1", size="B1")
EfficientNetB2 = register_network(EfficientNet, "EfficientNetB2", size="B2")
EfficientNetB3 = register_network(EfficientNet, "EfficientNetB3", size="B3")
EfficientNetB4 = register_network(EfficientNet, "EfficientNetB4", size="B4")
EfficientNetB5 = register_network(EfficientNet, "EfficientNetB5", size="B5")
EfficientNetB6 = register_network(EfficientNet, "EfficientNetB6", size="B6")
EfficientNetB7 = register_network(EfficientNet, "EfficientNetB7", size="B7")
