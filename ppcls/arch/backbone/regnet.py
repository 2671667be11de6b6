"""RegNet: networks whose widths grow along a line, quantised to four stages (Radosavovic et al., "Designing
Network Design Spaces", arXiv 2003.13678); RegNetY is RegNetX with squeeze and excitation.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBatchNorm, LinearSE
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_STEM = 32
_SE_SHARE = 4  # the gate of RegNetY has a quarter of the channels that enter the block

Stages = tuple[int, int, int, int]


@dataclass(frozen=True)
class RegNetSize:
    """Blocks and channels of the four stages, and the channels of a group of the 3x3 convolutions."""

    blocks: Stages
    widths: Stages
    group_width: int


# The paper's appendix; larger ones as in the weights of Goyal et al., arXiv 2103.01988. Those called tv are
# torchvision's, which rounds widths to multiples of the group width in another way.
_X = {
    "200MF": RegNetSize((1, 1, 4, 7), (24, 56, 152, 368), 8),
    "400MF": RegNetSize((1, 2, 7, 12), (32, 64, 160, 384), 16),
    "400MF_tv": RegNetSize((1, 2, 7, 12), (32, 64, 160, 400), 16),
    "600MF": RegNetSize((1, 3, 5, 7), (48, 96, 240, 528), 24),
    "800MF": RegNetSize((1, 3, 7, 5), (64, 128, 288, 672), 16),
    "1600MF": RegNetSize((2, 4, 10, 2), (72, 168, 408, 912), 24),
    "3200MF": RegNetSize((2, 6, 15, 2), (96, 192, 432, 1008), 48),
    "4GF": RegNetSize((2, 5, 14, 2), (80, 240, 560, 1360), 40),
    "6400MF": RegNetSize((2, 4, 10, 1), (168, 392, 784, 1624), 56),
    "8GF": RegNetSize((2, 5, 15, 1), (80, 240, 720, 1920), 120),
    "12GF": RegNetSize((2, 5, 11, 1), (224, 448, 896, 2240), 112),
    "16GF": RegNetSize((2, 6, 13, 1), (256, 512, 896, 2048), 128),
    "32GF": RegNetSize((2, 7, 13, 1), (336, 672, 1344, 2520), 168),
}
_Y = {
    "200MF": RegNetSize((1, 1, 4, 7), (24, 56, 152, 368), 8),
    "400MF": RegNetSize((1, 3, 6, 6), (48, 104, 208, 440), 8),
    "600MF": RegNetSize((1, 3, 7, 4), (48, 112, 256, 608), 16),
    "800MF": RegNetSize((1, 3, 8, 2), (64, 128, 320, 768), 16),
    "800MF_tv": RegNetSize((1, 3, 8, 2), (64, 144, 320, 784), 16),
    "1600MF": RegNetSize((2, 6, 17, 2), (48, 120, 336, 888), 24),
    "3200MF": RegNetSize((2, 5, 13, 1), (72, 216, 576, 1512), 24),
    "4GF": RegNetSize((2, 6, 12, 2), (128, 192, 512, 1088), 64),
    "6400MF": RegNetSize((2, 7, 14, 2), (144, 288, 576, 1296), 72),
    "8GF": RegNetSize((2, 4, 10, 1), (168, 448, 896, 2016), 56),
    "8GF_tv": RegNetSize((2, 4, 10, 1), (224, 448, 896, 2016), 56),
    "12GF": RegNetSize((2, 5, 11, 1), (224, 448, 896, 2240), 112),
    "16GF": RegNetSize((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
    "32GF": RegNetSize((2, 5, 12, 1), (232, 696, 1392, 3712), 232),
    "64GF": RegNetSize((2, 5, 12, 1), (328, 984, 1968, 4920), 328),
    "128GF": RegNetSize((2, 7, 17, 1), (528, 1056, 2904, 7392), 264),
}


class RegNetBlock(nn.Layer):
    """1x1, grouped 3x3 and 1x1 convolutions of one width, beside a short cut.

    In RegNetY ``scale`` weighs the channels of the 3x3 convolution. ``add`` is the sum before the last ReLU.

    Args:
        in_channels: channels of the input.
        channels: channels of the convolutions and of the output.
        stride: stride of the 3x3 convolution and of the short cut.
        group_width: channels of a group of the 3x3 convolution; a narrower block is one group.
        squeeze: whether the block has squeeze and excitation.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, group_width: int, squeeze: bool) -> None:
        super().__init__()
        groups = max(1, channels // group_width)
        self.conv0 = ConvBatchNorm(in_channels, channels, 1, act=nn.ReLU())
        self.conv1 = ConvBatchNorm(channels, channels, 3, stride, groups, nn.ReLU())
        self.scale = LinearSE(channels, hidden=in_channels // _SE_SHARE) if squeeze else nn.Identity()
        self.conv2 = ConvBatchNorm(channels, channels, 1)
        same = stride == 1 and in_channels == channels
        self.short = nn.Identity() if same else ConvBatchNorm(in_channels, channels, 1, stride)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self.conv2(self.scale(self.conv1(self.conv0(x))))
        return self.relu(self.add(y, self.short(x)))


class RegNet(TheseusLayer):
    """RegNet: ``conv``, blocks as attributes ``s<stage>_b<index>`` counted from 1, ``avg_pool``, ``out``.

    Args:
        size: blocks and widths.
        squeeze: whether to build RegNetY.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        size: RegNetSize,
        squeeze: bool,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        self.conv = ConvBatchNorm(input_image_channel, _STEM, 3, 2, act=nn.ReLU())
        self._blocks: list[str] = []
        stages = []
        wide = _STEM
        for stage, (count, out) in enumerate(zip(size.blocks, size.widths, strict=True), 1):
            for index in range(1, count + 1):
                stride = 2 if index == 1 else 1
                self._blocks.append(f"s{stage}_b{index}")
                block = RegNetBlock(wide, out, stride, size.group_width, squeeze)
                self.add_sublayer(self._blocks[-1], block)
                wide = out
            stages.append(self._blocks[-1])
        self.stages_pattern = tuple(stages)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.out = nn.Linear(wide, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv(x)
        for name in self._blocks:
            x = getattr(self, name)(x)
        return self.out(self.flatten(self.avg_pool(x)))


RegNetX_200MF = register_network(RegNet, "RegNetX_200MF", size=_X["200MF"], squeeze=False)
RegNetX_400MF = register_network(RegNet, "RegNetX_400MF", size=_X["400MF"], squeeze=False)
RegNetX_400MF_tv = register_network(RegNet, "RegNetX_400MF_tv", size=_X["400MF_tv"], squeeze=False)
RegNetX_600MF = register_network(RegNet, "RegNetX_600MF", size=_X["600MF"], squeeze=False)
RegNetX_800MF = register_network(RegNet, "RegNetX_800MF", size=_X["800MF"], squeeze=False)
RegNetX_1600MF = register_network(RegNet, "RegNetX_1600MF", size=_X["1600MF"], squeeze=False)
RegNetX_3200MF = register_network(RegNet, "RegNetX_3200MF", size=_X["3200MF"], squeeze=False)
RegNetX_4GF = register_network(RegNet, "RegNetX_4GF", size=_X["4GF"], squeeze=False)
RegNetX_6400MF = register_network(RegNet, "RegNetX_6400MF", size=_X["6400MF"], squeeze=False)
RegNetX_8GF = register_network(RegNet, "RegNetX_8GF", size=_X["8GF"], squeeze=False)
RegNetX_12GF = register_network(RegNet, "RegNetX_12GF", size=_X["12GF"], squeeze=False)
RegNetX_16GF = register_network(RegNet, "RegNetX_16GF", size=_X["16GF"], squeeze=False)
RegNetX_32GF = register_network(RegNet, "RegNetX_32GF", size=_X["32GF"], squeeze=False)
RegNetY_200MF = register_network(RegNet, "RegNetY_200MF", size=_Y["200MF"], squeeze=True)
RegNetY_400MF = register_network(RegNet, "RegNetY_400MF", size=_Y["400MF"], squeeze=True)
RegNetY_600MF = register_network(RegNet, "RegNetY_600MF", size=_Y["600MF"], squeeze=True)
RegNetY_800MF = register_network(RegNet, "RegNetY_800MF", size=_Y["800MF"], squeeze=True)
RegNetY_800MF_tv = register_network(RegNet, "RegNetY_800MF_tv", size=_Y["800MF_tv"], squeeze=True)
RegNetY_1600MF = register_network(RegNet, "RegNetY_1600MF", size=_Y["1600MF"], squeeze=True)
RegNetY_3200MF = register_network(RegNet, "RegNetY_3200MF", size=_Y["3200MF"], squeeze=True)
RegNetY_4GF = register_network(RegNet, "RegNetY_4GF", size=_Y["4GF"], squeeze=True)
RegNetY_6400MF = register_network(RegNet, "RegNetY_6400MF", size=_Y["6400MF"], squeeze=True)
RegNetY_8GF = register_network(RegNet, "RegNetY_8GF", size=_Y["8GF"], squeeze=True)
RegNetY_8GF_tv = register_network(RegNet, "RegNetY_8GF_tv", size=_Y["8GF_tv"], squeeze=True)
RegNetY_12GF = register_network(RegNet, "RegNetY_12GF", size=_Y["12GF"], squeeze=True)
RegNetY_16GF = register_network(RegNet, "RegNetY_16GF", size=_Y["16GF"], squeeze=True)
RegNetY_32GF = register_network(RegNet, "RegNetY_32GF", size=_Y["32GF"], squeeze=True)
RegNetY_64GF = register_network(RegNet, "RegNetY_64GF", size=_Y["64GF"], squeeze=True)
RegNetY_128GF = register_network(RegNet, "RegNetY_128GF", size=_Y["128GF"], squeeze=True)
