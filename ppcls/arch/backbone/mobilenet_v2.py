"""MobileNetV2: inverted residuals (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
arXiv 1801.04381, table 2).
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBatchNorm
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per stage, from conv2 on: expansion, channels at scale 1, number of blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Layer):
    """1x1 convolution that widens, 3x3 depthwise and 1x1 convolution that narrows, with ReLU6 but at the end.

    ``add`` is the sum with the input; the first block of a stage has none.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, first: bool) -> None:
        super().__init__()
        wide = in_channels * expansion
        self._expand_conv = ConvBatchNorm(in_channels, wide, 1, act=nn.ReLU6())
        self._bottleneck_conv = ConvBatchNorm(wide, wide, 3, stride, wide, nn.ReLU6())
        self._linear_conv = ConvBatchNorm(wide, out_channels, 1)
        self.add = None if first else Add()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y = self._linear_conv(self._bottleneck_conv(self._expand_conv(x)))
        return y if self.add is None else self.add(y, x)


class MobileNet(TheseusLayer):
    """MobileNetV2: ``conv1``, the stages ``conv2`` ... ``conv8``, ``conv9``, ``avg_pool``, ``out``.

    The blocks of stage n are ``conv<n>._first_block``, ``conv<n>.conv<n>_2`` and so on.

    Args:
        scale: factor on all channel counts; the last 1280 grow with it but do not shrink.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = ("conv2", "conv3", "conv4", "conv6", "conv8")

    def __init__(self, *, scale: float = 1.0, class_num: int = 1000, input_image_channel: int = 3) -> None:
        super().__init__()
        width = int(32 * scale)
        self.conv1 = ConvBatchNorm(input_image_channel, width, 3, 2, act=nn.ReLU6())
        for number, (expansion, channels, count, stride) in enumerate(_STAGES, 2):
            out = int(channels * scale)
            blocks = [("_first_block", InvertedResidual(width, out, stride, expansion, first=True))]
            for index in range(2, count + 1):
                block = InvertedResidual(out, out, 1, expansion, first=False)
                blocks.append((f"conv{number}_{index}", block))
            self.add_sublayer(f"conv{number}", nn.Sequential(*blocks))
            width = out
        last = int(1280 * max(scale, 1.0))
        self.conv9 = ConvBatchNorm(width, last, 1, act=nn.ReLU6())
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.out = nn.Linear(last, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv4(self.conv3(self.conv2(self.conv1(x))))
        x = self.conv9(self.conv8(self.conv7(self.conv6(self.conv5(x)))))
        return self.out(self.flatten(self.avg_pool(x)))


MobileNetV2_x0_25 = register_network(MobileNet, "MobileNetV2_x0_25", scale=0.25)
MobileNetV2_x0_5 = register_network(MobileNet, "MobileNetV2_x0_5", scale=0.5)
MobileNetV2_x0_75 = register_network(MobileNet, "MobileNetV2_x0_75", scale=0.75)
MobileNetV2 = register_network(MobileNet, "MobileNetV2", scale=1.0)
MobileNetV2_x1_5 = register_network(MobileNet, "MobileNetV2_x1_5", scale=1.5)
MobileNetV2_x2_0 = register_network(MobileNet, "MobileNetV2_x2_0", scale=2.0)
