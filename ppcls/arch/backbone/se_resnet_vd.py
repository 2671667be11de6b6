"""ResNet vd with squeeze and excitation (Hu et al., "Squeeze-and-Excitation Networks", arXiv 1709.01507)."""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBatchNorm, LinearSE
from ppcls.arch.backbone.resnet_layout import BLOCKS, GroupedBottleneck, ResNetLayout
from ppcls.arch.network import register_network

_REDUCTION = 16


class SEBasicBlock(nn.Layer):
    """Two 3x3 convolutions, whose output ``scale`` weighs, beside a short cut; ``add`` is their sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, short: nn.Layer) -> None:
        super().__init__()
        self.conv0 = ConvBatchNorm(in_channels, channels, 3, stride, act=nn.ReLU())
        self.conv1 = ConvBatchNorm(channels, channels, 3)
        self.scale = LinearSE(channels, _REDUCTION)
        self.short = short
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        return self.relu(self.add(self.scale(self.conv1(self.conv0(x))), self.short(x)))


class SEResNet(ResNetLayout):
    """SE-ResNet vd: ``conv1_1`` ... ``conv1_3``, ``bb_0_0`` ... ``bb_3_2``, ``avg_pool``, ``out``.

    Args:
        depth: 18, 34 or 50.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(self, *, depth: int, class_num: int = 1000, input_image_channel: int = 3) -> None:
        expansion = 1 if depth < 50 else 4
        widths = [64 * 2**stage * expansion for stage in range(4)]

        def block(wide: int, stage: int, _index: int, stride: int, short: nn.Layer) -> nn.Layer:
            out = widths[stage]
            if expansion == 1:
                return SEBasicBlock(wide, out, stride, short)
            return GroupedBottleneck(wide, out // 4, out, stride, short, scale=LinearSE(out, _REDUCTION))

        super().__init__(
            counts=BLOCKS[depth],
            widths=widths,
            block=block,
            vd=True,
            stem="conv1",
            class_num=class_num,
            input_image_channel=input_image_channel,
        )


SE_ResNet18_vd = register_network(SEResNet, "SE_ResNet18_vd", depth=18)
SE_ResNet34_vd = register_network(SEResNet, "SE_ResNet34_vd", depth=34)
SE_ResNet50_vd = register_network(SEResNet, "SE_ResNet50_vd", depth=50)
