"""PP-HGNet: a network for GPUs (PaddleClas, "PP-HGNet", 2022), whose blocks gather the outputs of all their
convolutions as in VoVNet (Lee et al., "CenterMask", arXiv 1911.06667, section 3.3).
"""

from __future__ import annotations

from paddle import Tensor, concat, nn

from ppcls.arch.backbone.layers import Add, ConvBN, Sigmoid, conv, dropout
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per stage: channels inside and out, blocks, whether it begins with a convolution of stride 2.
_Stages = tuple[tuple[int, int, int, bool], ...]
_TINY: _Stages = ((96, 224, 1, False), (128, 448, 1, True), (160, 512, 2, True), (192, 768, 1, True))
_SMALL: _Stages = ((128, 256, 1, False), (160, 512, 1, True), (192, 768, 2, True), (224, 1024, 1, True))
_BASE: _Stages = ((192, 320, 1, False), (224, 640, 2, True), (256, 960, 3, True), (288, 1280, 2, True))


class EffectiveSE(nn.Layer):
    """Squeeze and excitation of one convolution (Lee et al., arXiv 1911.06667, equation 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv = Conv2D(channels, channels, 1)
        self.sigmoid = Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scale [N, channels, H, W] channel by channel."""
        return x * self.sigmoid(self.conv(self.avg_pool(x)))


class HGBlock(nn.Layer):
    """3x3 convolutions in a row, a 1x1 convolution of the input and all their outputs, effective SE.

    ``add`` is the sum with the input; the first block of a stage has none.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int, layers: int, first: bool) -> None:
        super().__init__()
        widths = [in_channels] + [inner] * layers
        self.layers = nn.LayerList(_conv_bn(wide, inner, 3) for wide in widths[:-1])
        self.aggregation_conv = _conv_bn(sum(widths), out_channels, 1)
        self.att = EffectiveSE(out_channels)
        self.add = None if first else Add()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H, W]."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        y = self.att(self.aggregation_conv(concat(maps, axis=1)))
        return y if self.add is None else self.add(y, x)


class HGStage(nn.Layer):
    """``downsample``, a depthwise convolution of stride 2, and ``blocks``."""

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, count: int, layers: int, halve: bool
    ) -> None:
        super().__init__()
        self.downsample = (
            ConvBN(in_channels, in_channels, 3, 2, in_channels, decay_bn=False) if halve else nn.Identity()
        )
        widths = [in_channels] + [out_channels] * (count - 1)
        self.blocks = nn.Sequential(
            *(HGBlock(wide, inner, out_channels, layers, not index) for index, wide in enumerate(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / 2, W / 2] or, not halving, to the same size."""
        return self.blocks(self.downsample(x))


class HGNet(TheseusLayer):
    """PP-HGNet: ``stem``, ``max_pool``, ``stages[0]`` ... ``stages[3]``, ``avg_pool``, ``last_conv``, ``fc``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        stem: channels of the three convolutions of the stem.
        stages: channels inside and out of each stage, its blocks, whether it halves the image.
        layers: 3x3 convolutions of a block.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier; null for none. Dropped in training
            without rescaling and rescaled at inference, as the official weights need it.
        class_expand: features before the classifier.
        use_last_conv: whether a 1x1 convolution makes those features.
    """

    stages_pattern = ("stages[0]", "stages[1]", "stages[2]", "stages[3]")

    def __init__(
        self,
        *,
        stem: tuple[int, ...],
        stages: tuple[tuple[int, int, int, bool], ...],
        layers: int,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.0,
        class_expand: int = 2048,
        use_last_conv: bool = True,
    ) -> None:
        super().__init__()
        widths = (input_image_channel, *stem)
        self.stem = nn.Sequential(
            *(_conv_bn(widths[i], widths[i + 1], 3, stride=1 if i else 2) for i in range(len(stem)))
        )
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        width = stem[-1]
        made = []
        for inner, out, count, halve in stages:
            made.append(HGStage(width, inner, out, count, layers, halve))
            width = out
        self.stages = nn.Sequential(*made)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = conv(width, class_expand, 1) if use_last_conv else nn.Identity()
        self.act = nn.ReLU() if use_last_conv else nn.Identity()
        self.dropout = dropout(dropout_prob if use_last_conv else None, downscale=True)
        self.former_answer = "dropout_prob: 0" if dropout_prob and use_last_conv else ""
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(class_expand if use_last_conv else width, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.avg_pool(self.stages(self.max_pool(self.stem(x))))
        return self.fc(self.flatten(self.dropout(self.act(self.last_conv(x)))))


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> ConvBN:
    return ConvBN(in_channels, out_channels, kernel, stride, act=nn.ReLU(), decay_bn=False)


PPHGNet_tiny = register_network(HGNet, "PPHGNet_tiny", stem=(48, 48, 96), stages=_TINY, layers=5)
PPHGNet_small = register_network(HGNet, "PPHGNet_small", stem=(64, 64, 128), stages=_SMALL, layers=6)
PPHGNet_base = register_network(
    HGNet, "PPHGNet_base", defaults={"dropout_prob": 0.2}, stem=(96, 96, 160), stages=_BASE, layers=7
)
