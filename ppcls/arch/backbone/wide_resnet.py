"""Wide ResNet for images of about 32 pixels (Zagoruyko and Komodakis, arXiv 1605.07146).

Parameters at 100 classes and three channels: wrn_16_1 0.18 M, wrn_16_2 0.70 M, wrn_40_1 0.57 M, wrn_40_2
2.26 M.
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, conv, scaled
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer


class PreActBlock(nn.Layer):
    """BatchNorm, ReLU and convolution, twice, beside a short cut; nothing follows the sum.

    Where the channel count changes, the short cut is a 1x1 convolution of the activated input; elsewhere it
    is the input itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2D(in_channels)
        self.relu0 = nn.ReLU()
        self.conv0 = conv(in_channels, channels, 3, stride, fan_out=True)
        self.bn1 = nn.BatchNorm2D(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv(channels, channels, 3, fan_out=True)
        self.same = in_channels == channels
        self.short = nn.Identity() if self.same else conv(in_channels, channels, 1, stride, fan_out=True)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        active = self.relu0(self.bn0(x))
        main = self.conv1(self.relu1(self.bn1(self.conv0(active))))
        return self.add(main, self.short(x if self.same else active))


class WideResNet(TheseusLayer):
    """Wide ResNet of depth 6 n + 4: ``stem``, ``blocks[0]`` ... ``blocks[3n - 1]``, ``bn``, ``relu``, ``fc``.

    The features before a ReLU at the end of a stage are the outputs of ``bn0`` in the first block of the next
    stage and of ``bn``. Convolutions are initialised from a normal distribution of variance 2 / fan-out, the
    classifier by Xavier's rule.

    Args:
        depth: number of layers with weights.
        widen: factor on the channels of the three stages (16, 32, 64).
        class_num: number of classes.
        input_image_channel: channels of the images.
        width: factor on all channel counts, for students of any size.
    """

    def __init__(
        self,
        *,
        depth: int,
        widen: int = 1,
        class_num: int = 1000,
        input_image_channel: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        count = (depth - 4) // 6
        wide = scaled(16, width)
        self.stem = conv(input_image_channel, wide, 3, fan_out=True)
        blocks: list[nn.Layer] = []
        for stage in range(3):
            out = scaled(16 * 2**stage * widen, width)
            for index in range(count):
                blocks.append(PreActBlock(wide, out, 2 if stage and not index else 1))
                wide = out
        self.blocks = nn.Sequential(*blocks)
        self.stages_pattern = tuple(f"blocks[{count * (stage + 1) - 1}]" for stage in range(3))
        self.bn = nn.BatchNorm2D(wide)
        self.relu = nn.ReLU()
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(wide, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.relu(self.bn(self.blocks(self.stem(x))))
        return self.fc(self.flatten(self.avg_pool(x)))


wrn_16_1 = register_network(WideResNet, "wrn_16_1", depth=16, widen=1)
wrn_16_2 = register_network(WideResNet, "wrn_16_2", depth=16, widen=2)
wrn_40_1 = register_network(WideResNet, "wrn_40_1", depth=40, widen=1)
wrn_40_2 = register_network(WideResNet, "wrn_40_2", depth=40, widen=2)
