"""ResNet for images of about 32 pixels, as the distillation literature uses it.

The three-stage network of He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385,
section 4.2. Where the shape changes, the short cut is a convolution (the paper's option B, which the
distillation literature uses) or has no parameters (option A, of the paper's own experiments). The variants
x4 are those of Tian et al., "Contrastive Representation Distillation", arXiv 1910.10699. Parameters at 100
classes and three channels: resnet20 0.28 M, resnet56 0.86 M, resnet8x4 1.23 M, resnet32x4 7.43 M.
"""

from __future__ import annotations

from typing import Literal

import paddle
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBN, scaled
from ppcls.arch.backbone.resnet import BasicBlock
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_PLAIN = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)


class ZeroPaddedShortcut(nn.Layer):
    """The short cut without parameters (option A): every second pixel, and more channels that are zero.

    Half of the new channels come before the old ones and half after them.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        more = channels - in_channels
        self.stride = stride
        self.before, self.after = more // 2, more - more // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        x = x[:, :, :: self.stride, :: self.stride]
        # Not `pad`, because Paddle Inference with oneDNN crashes when it pads along the channels.
        zeros = paddle.zeros_like(x[:, :1])
        return paddle.concat([zeros] * self.before + [x] + [zeros] * self.after, 1)


class CifarResNet(TheseusLayer):
    """ResNet of depth 6 n + 2: ``stem``, ``blocks[0]`` ... ``blocks[3n - 1]``, ``avg_pool``, ``fc``.

    ``blocks[i].add`` is the output of a block before its last ReLU. Convolutions are initialised from a
    normal distribution of variance 2 / fan-out, the classifier by Xavier's rule.

    Args:
        depth: number of layers with weights.
        channels: channels of the stem and the three stages.
        class_num: number of classes.
        input_image_channel: channels of the images.
        width: factor on all channel counts, for students of any size.
        shortcut: what is beside the convolutions of a block where the shape changes: ``B``, a 1x1 convolution
            with BatchNorm, or ``A``, every second pixel and channels of zeros.
    """

    def __init__(
        self,
        *,
        depth: int,
        channels: tuple[int, ...] = _PLAIN,
        class_num: int = 1000,
        input_image_channel: int = 3,
        width: float = 1.0,
        shortcut: Literal["A", "B"] = "B",
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        count = (depth - 2) // 6
        wide, *stages = (scaled(number, width) for number in channels)
        self.stem = ConvBN(input_image_channel, wide, 3, act=nn.ReLU(), fan_out=True)
        blocks: list[nn.Layer] = []
        for stage, out in enumerate(stages):
            for index in range(count):
                stride = 2 if stage and not index else 1
                same = stride == 1 and wide == out
                short: nn.Layer
                if same:
                    short = nn.Identity()
                elif shortcut == "A":
                    short = ZeroPaddedShortcut(wide, out, stride)
                else:
                    short = ConvBN(wide, out, 1, stride, fan_out=True)
                blocks.append(BasicBlock(wide, out, stride, short, fan_out=True))
                wide = out
        self.blocks = nn.Sequential(*blocks)
        self.stages_pattern = tuple(f"blocks[{count * (stage + 1) - 1}]" for stage in range(len(stages)))
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(wide, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        return self.fc(self.flatten(self.avg_pool(self.blocks(self.stem(x)))))


resnet8 = register_network(CifarResNet, "resnet8", depth=8, channels=_PLAIN)
resnet14 = register_network(CifarResNet, "resnet14", depth=14, channels=_PLAIN)
resnet20 = register_network(CifarResNet, "resnet20", depth=20, channels=_PLAIN)
resnet32 = register_network(CifarResNet, "resnet32", depth=32, channels=_PLAIN)
resnet44 = register_network(CifarResNet, "resnet44", depth=44, channels=_PLAIN)
resnet56 = register_network(CifarResNet, "resnet56", depth=56, channels=_PLAIN)
resnet110 = register_network(CifarResNet, "resnet110", depth=110, channels=_PLAIN)
resnet8x4 = register_network(CifarResNet, "resnet8x4", depth=8, channels=_WIDE)
resnet32x4 = register_network(CifarResNet, "resnet32x4", depth=32, channels=_WIDE)
