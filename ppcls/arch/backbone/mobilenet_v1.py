"""MobileNet: depthwise separable convolutions (Howard et al., "MobileNets: Efficient Convolutional Neural
Networks for Mobile Vision Applications", arXiv 1704.04861, table 1).
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBN
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Channels at scale 1 and stride of each block.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class DepthwiseSeparable(nn.Layer):
    """3x3 depthwise and 1x1 convolution, both with ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBN(in_channels, in_channels, 3, stride, in_channels, nn.ReLU())
        self.pointwise_conv = ConvBN(in_channels, out_channels, 1, act=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self.pointwise_conv(self.depthwise_conv(x))


class MobileNet(TheseusLayer):
    """MobileNet: ``conv``, ``blocks[0]`` ... ``blocks[12]``, ``avg_pool``, ``flatten``, ``fc``.

    Args:
        scale: factor on all channel counts.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = ("blocks[0]", "blocks[2]", "blocks[4]", "blocks[10]", "blocks[12]")

    def __init__(self, *, scale: float = 1.0, class_num: int = 1000, input_image_channel: int = 3) -> None:
        super().__init__()
        width = int(32 * scale)
        self.conv = ConvBN(input_image_channel, width, 3, 2, act=nn.ReLU())
        blocks = []
        for channels, stride in _BLOCKS:
            out = int(channels * scale)
            blocks.append(DepthwiseSeparable(width, out, stride))
            width = out
        self.blocks = nn.Sequential(*blocks)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        return self.fc(self.flatten(self.avg_pool(self.blocks(self.conv(x)))))


MobileNetV1_x0_25 = register_network(MobileNet, "MobileNetV1_x0_25", scale=0.25)
MobileNetV1_x0_5 = register_network(MobileNet, "MobileNetV1_x0_5", scale=0.5)
MobileNetV1_x0_75 = register_network(MobileNet, "MobileNetV1_x0_75", scale=0.75)
MobileNetV1 = register_network(MobileNet, "MobileNetV1", scale=1.0)
