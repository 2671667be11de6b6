"""StarNet (Ma et al., "Rewrite the Stars", arXiv 2403.19967)."""

from __future__ import annotations

import math

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant, KaimingUniform

from ppcls.arch.backbone.layers import drop_path
from ppcls.arch.backbone.transformer import linear, rising
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Channels of the first stage, which double from stage to stage, and blocks of the stages.
_SIZES = {
    "S1": (24, (2, 2, 8, 3)),
    "S2": (32, (1, 2, 6, 2)),
    "S3": (32, (2, 2, 8, 4)),
    "S4": (32, (3, 3, 12, 5)),
}
_STEM = 32
_WIDER = 4  # what the two factors have more channels than a map


class StarBlock(nn.Layer):
    """7x7 depthwise convolution, the product of two 1x1 convolutions (the "star"), of which one passes an
    activation, a 1x1 convolution back and another depthwise one; plus the input.
    """

    def __init__(self, channels: int, drop: float) -> None:
        super().__init__()
        wide = _WIDER * channels
        self.dwconv = conv(channels, channels, 7, groups=channels)
        self.f1 = conv(channels, wide, 1, norm=False)
        self.act = nn.ReLU6()
        self.f2 = conv(channels, wide, 1, norm=False)
        self.g = conv(wide, channels, 1)
        self.dwconv2 = conv(channels, channels, 7, groups=channels, norm=False)
        self.drop_path = drop_path(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        y = self.dwconv(x)
        y = self.act(self.f1(y)) * self.f2(y)
        return x + self.drop_path(self.dwconv2(self.g(y)))


class StarNet(TheseusLayer):
    """StarNet: ``stem``, ``stages[0]`` ... ``stages[3]``, ``norm``, ``head``.

    Args:
        size: S1, S2, S3 or S4.
        drop_path_rate: probability of dropping the last block's branch for a sample in training; that of the
            others falls to 0 at the first.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = tuple(f"stages[{stage}]" for stage in range(4))

    def __init__(
        self, *, size: str, drop_path_rate: float = 0.0, class_num: int = 1000, input_image_channel: int = 3
    ) -> None:
        super().__init__()
        first, depths = _SIZES[size]
        rates = iter(rising(drop_path_rate, sum(depths)))
        self.stem = nn.Sequential(conv(input_image_channel, _STEM, 3, 2), nn.ReLU6())
        stages = []
        before = _STEM
        for stage, depth in enumerate(depths):
            width = first * 2**stage
            down = conv(before, width, 3, 2)
            stages.append(nn.Sequential(down, *(StarBlock(width, next(rates)) for _ in range(depth))))
            before = width
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2D(before)
        self.avgpool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.head = linear(before, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.norm(self.stages(self.stem(x)))
        return self.head(self.flatten(self.avgpool(x)))


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, norm: bool = True
) -> nn.Sequential:
    """Return a convolution with a bias as ``conv`` and, if asked for, BatchNorm as ``bn``.

    Weights are initialised evenly between plus and minus 1 / sqrt(fan-in): larger ones would grow from block
    to block, because nothing normalises the branch behind its last convolution.
    """
    layers: list[tuple[str, nn.Layer]] = [
        (
            "conv",
            Conv2D(
                in_channels,
                out_channels,
                kernel,
                stride=stride,
                padding=kernel // 2,
                groups=groups,
                weight_attr=ParamAttr(
                    initializer=KaimingUniform(negative_slope=math.sqrt(5), nonlinearity="leaky_relu")
                ),
                bias_attr=ParamAttr(initializer=Constant(0.0)),
            ),
        )
    ]
    if norm:
        layers.append(("bn", nn.BatchNorm2D(out_channels)))
    return nn.Sequential(*layers)


StarNet_S1 = register_network(StarNet, "StarNet_S1", size="S1")
StarNet_S2 = register_network(StarNet, "StarNet_S2", size="S2")
StarNet_S3 = register_network(StarNet, "StarNet_S3", size="S3")
StarNet_S4 = register_network(StarNet, "StarNet_S4", size="S4")
