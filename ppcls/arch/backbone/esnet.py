"""ESNet: ShuffleNetV2 with squeeze and excitation and light ghost blocks (Yu et al., "PP-PicoDet: A Better
Real-Time Object Detector on Mobile Devices", arXiv 2111.00902, section 3.2).
"""

from __future__ import annotations

from paddle import Tensor, concat, nn

from ppcls.arch.backbone.layers import ConvBN, SEModule, conv, dropout, interleave, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Channels at scale 1 and blocks of each stage.
_STAGES = ((116, 3), (232, 7), (464, 3))


class ShuffleBlock(nn.Layer):
    """Half of the channels through 1x1, depthwise, squeeze and excitation, 1x1; then both halves shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.pw_1_1 = _conv_bn(half, half, 1, act=True)
        self.dw_1 = _conv_bn(half, half, 3, groups=half)
        self.se = SEModule(channels)
        self.pw_1_2 = _conv_bn(channels, half, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        kept, y = x.split(2, axis=1)
        y = self.pw_1_1(y)
        y = self.pw_1_2(self.se(concat([y, self.dw_1(y)], axis=1)))
        return interleave(kept, y)


class HalvingBlock(nn.Layer):
    """Two branches that halve the image, joined, and a depthwise separable convolution of both."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.dw_1 = _conv_bn(in_channels, in_channels, 3, 2, in_channels)
        self.pw_1 = _conv_bn(in_channels, half, 1, act=True)
        self.pw_2_1 = _conv_bn(in_channels, half, 1, act=True)
        self.dw_2 = _conv_bn(half, half, 3, 2, half)
        self.se = SEModule(half)
        self.pw_2_2 = _conv_bn(half, half, 1, act=True)
        self.concat_dw = _conv_bn(out_channels, out_channels, 3, groups=out_channels, act=True)
        self.concat_pw = _conv_bn(out_channels, out_channels, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / 2, W / 2]."""
        left = self.pw_1(self.dw_1(x))
        right = self.pw_2_2(self.se(self.dw_2(self.pw_2_1(x))))
        return self.concat_pw(self.concat_dw(concat([left, right], axis=1)))


class ESNet(TheseusLayer):
    """ESNet: ``conv1``, ``max_pool``, ``blocks[0]`` ..., ``conv2``, ``avg_pool``, ``last_conv``, ``fc``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        scale: factor on the channel counts of the stages, which are then rounded to multiples of 8.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier; null for none. Dropped in training
            without rescaling and rescaled at inference, as the official weights need it.
        class_expand: features before the classifier.
    """

    stages_pattern = ("blocks[2]", "blocks[9]", "blocks[12]")

    def __init__(
        self,
        *,
        scale: float = 1.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.2,
        class_expand: int = 1280,
    ) -> None:
        super().__init__()
        width = 24
        self.conv1 = _conv_bn(input_image_channel, width, 3, 2, act=True)
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        blocks: list[nn.Layer] = []
        for channels, count in _STAGES:
            out = make_divisible(channels * scale)
            blocks.append(HalvingBlock(width, out))
            blocks += [ShuffleBlock(out) for _ in range(count - 1)]
            width = out
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = _conv_bn(width, 1024, 1, act=True)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = conv(1024, class_expand, 1)
        self.hardswish = nn.Hardswish()
        self.dropout = dropout(dropout_prob, downscale=True)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(class_expand, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.avg_pool(self.conv2(self.blocks(self.max_pool(self.conv1(x)))))
        return self.fc(self.flatten(self.dropout(self.hardswish(self.last_conv(x)))))


def _conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = False
) -> ConvBN:
    hard_swish = nn.Hardswish() if act else None
    return ConvBN(in_channels, out_channels, kernel, stride, groups, hard_swish, decay_bn=False)


ESNet_x0_25 = register_network(ESNet, "ESNet_x0_25", scale=0.25)
ESNet_x0_5 = register_network(ESNet, "ESNet_x0_5", scale=0.5)
ESNet_x0_75 = register_network(ESNet, "ESNet_x0_75", scale=0.75)
ESNet_x1_0 = register_network(ESNet, "ESNet_x1_0", scale=1.0)
