"""ResNet for 224 pixels and its variant vd.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385; the vd variant (three small
convolutions in the stem, average pooling before the short cut's convolution) after He et al., "Bag of Tricks
for Image Classification with Convolutional Neural Networks", arXiv 1812.01187, section 4.
"""

from __future__ import annotations

import itertools

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Uniform

from ppcls.arch.backbone.layers import (
    Add,
    ConvBN,
    PooledConvBN,
    Stride,
    five_strides,
    scale_learning_rates,
)
from ppcls.arch.backbone.resnet_layout import BLOCKS
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions beside a short cut. ``add`` is their sum before the last ReLU."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, stride: Stride, short: nn.Layer, fan_out: bool = False
    ) -> None:
        super().__init__()
        self.conv0 = ConvBN(in_channels, channels, 3, stride, act=nn.ReLU(), fan_out=fan_out)
        self.conv1 = ConvBN(channels, channels, 3, fan_out=fan_out)
        self.short = short
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        return self.relu(self.add(self.conv1(self.conv0(x)), self.short(x)))


class Bottleneck(nn.Layer):
    """1x1, 3x3 and 1x1 convolutions beside a short cut. ``add`` is their sum before the last ReLU."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: Stride, short: nn.Layer) -> None:
        super().__init__()
        self.conv0 = ConvBN(in_channels, channels, 1, act=nn.ReLU())
        self.conv1 = ConvBN(channels, channels, 3, stride, act=nn.ReLU())
        self.conv2 = ConvBN(channels, channels * self.expansion, 1)
        self.short = short
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, 4 * channels, H / stride, W / stride]."""
        return self.relu(self.add(self.conv2(self.conv1(self.conv0(x))), self.short(x)))


class ResNet(TheseusLayer):
    """ResNet: ``stem``, ``max_pool``, ``blocks[0]`` ... ``blocks[n]``, ``avg_pool``, ``flatten``, ``fc``.

    The classifier is initialised uniformly within 1 / sqrt(features), the rest as `ConvBN` says.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        vd: whether to build the variant vd.
        class_num: number of classes.
        input_image_channel: channels of the images.
        max_pool: whether the stem ends with a pooling.
        stride_list: strides of the stem, of its pooling and of the last three stages, each a number or
            [vertical, horizontal] (default: 2 each). Without the pooling the second one is that of the first
            stage (default: 1 then).
        lr_mult_list: factors on the learning rates of the stem and the four stages.
    """

    def __init__(
        self,
        *,
        depth: int,
        vd: bool = False,
        class_num: int = 1000,
        input_image_channel: int = 3,
        max_pool: bool = True,
        stride_list: list[Stride] | None = None,
        lr_mult_list: list[float] | None = None,
    ) -> None:
        super().__init__()
        image = input_image_channel
        usual: list[Stride] = [2, 2 if max_pool else 1, 2, 2, 2]
        first, second, *later = five_strides(usual if stride_list is None else stride_list)
        strides = [1 if max_pool else second, *later]
        sizes = [(image, 32, 3), (32, 32, 3), (32, 64, 3)] if vd else [(image, 64, 7)]
        self.stem = nn.Sequential(
            *(ConvBN(*size, 1 if index else first, act=nn.ReLU()) for index, size in enumerate(sizes))
        )
        self.max_pool = nn.MaxPool2D(3, second, padding=1) if max_pool else nn.Identity()
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        blocks: list[nn.Layer] = []
        stages = []
        width = 64
        for stage, count in enumerate(BLOCKS[depth]):
            channels = _CHANNELS[stage]
            for index in range(count):
                stride = 1 if index else strides[stage]
                # Only the first block of a stage changes shape; the official weights have a convolution on
                # its short cut even where it would not be needed (ResNet18 and 34, first stage).
                pooled = vd and stage > 0
                out = channels * block.expansion
                short = nn.Identity() if index else _short_cut(width, out, stride, pooled)
                blocks.append(block(width, channels, stride, short))
                width = out
            stages.append(f"blocks[{len(blocks) - 1}]")
        self.stages_pattern = tuple(stages)
        self.blocks = nn.Sequential(*blocks)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        bound = width**-0.5
        self.fc = nn.Linear(width, class_num, weight_attr=ParamAttr(initializer=Uniform(-bound, bound)))
        ends = [0, *itertools.accumulate(BLOCKS[depth])]
        parts = [blocks[start:end] for start, end in itertools.pairwise(ends)]
        scale_learning_rates([self.stem, *parts], lr_mult_list)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.blocks(self.max_pool(self.stem(x)))
        return self.fc(self.flatten(self.avg_pool(x)))


def _short_cut(in_channels: int, out_channels: int, stride: Stride, pooled: bool) -> nn.Layer:
    if pooled:
        return PooledConvBN(in_channels, out_channels, stride)
    return ConvBN(in_channels, out_channels, 1, stride)


ResNet18 = register_network(ResNet, "ResNet18", depth=18, vd=False)
ResNet18_vd = register_network(ResNet, "ResNet18_vd", depth=18, vd=True)
ResNet34 = register_network(ResNet, "ResNet34", depth=34, vd=False)
ResNet34_vd = register_network(ResNet, "ResNet34_vd", depth=34, vd=True)
ResNet50 = register_network(ResNet, "ResNet50", depth=50, vd=False)
ResNet50_vd = register_network(ResNet, "ResNet50_vd", depth=50, vd=True)
ResNet101 = register_network(ResNet, "ResNet101", depth=101, vd=False)
ResNet101_vd = register_network(ResNet, "ResNet101_vd", depth=101, vd=True)
ResNet152 = register_network(ResNet, "ResNet152", depth=152, vd=False)
ResNet152_vd = register_network(ResNet, "ResNet152_vd", depth=152, vd=True)
ResNet200_vd = register_network(ResNet, "ResNet200_vd", depth=200, vd=True)
