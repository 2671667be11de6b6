"""PP-HGNetV2: PP-HGNet with a wider stem, light convolutions and learnable affine blocks (PaddleClas,
"PP-HGNetV2", 2023; light networks with affine blocks after Chen et al., "VanillaNet", arXiv 2305.12972).
"""

from __future__ import annotations

from paddle import Tensor, concat, nn
from paddle.nn.initializer import Constant

from ppcls.arch.backbone.layers import (
    Add,
    ConvBN,
    conv,
    dropout,
    scale_learning_rate,
    scale_learning_rates,
)
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per stage: channels inside and out, blocks, whether it begins with a convolution of stride 2, whether its
# convolutions are light, kernel.
_Stage = tuple[int, int, int, bool, bool, int]

# The two numbers of an affine block learn more slowly than the rest of the network.
_AFFINE_LEARNING_RATE = 0.01

_B0: tuple[_Stage, ...] = (
    (16, 64, 1, False, False, 3),
    (32, 256, 1, True, False, 3),
    (64, 512, 2, True, True, 5),
    (128, 1024, 1, True, True, 5),
)
_B1: tuple[_Stage, ...] = (
    (32, 64, 1, False, False, 3),
    (48, 256, 1, True, False, 3),
    (96, 512, 2, True, True, 5),
    (192, 1024, 1, True, True, 5),
)
_B2: tuple[_Stage, ...] = (
    (32, 96, 1, False, False, 3),
    (64, 384, 1, True, False, 3),
    (128, 768, 3, True, True, 5),
    (256, 1536, 1, True, True, 5),
)
_B3: tuple[_Stage, ...] = (
    (32, 128, 1, False, False, 3),
    (64, 512, 1, True, False, 3),
    (128, 1024, 3, True, True, 5),
    (256, 2048, 1, True, True, 5),
)
_B4: tuple[_Stage, ...] = (
    (48, 128, 1, False, False, 3),
    (96, 512, 1, True, False, 3),
    (192, 1024, 3, True, True, 5),
    (384, 2048, 1, True, True, 5),
)


class LearnableAffine(nn.Layer):
    """``scale * x + bias`` with one learnable number each, at a hundredth of the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=Constant(1.0))
        self.bias = self.create_parameter([1], is_bias=True)
        scale_learning_rate(self, _AFFINE_LEARNING_RATE)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in the shape of `x`."""
        return self.scale * x + self.bias


class AffineConvBN(ConvBN):
    """`ConvBN` with ReLU and, if asked for, an affine block behind it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        affine: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups, nn.ReLU(), decay_bn=False)
        self.lab = LearnableAffine() if affine else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self.lab(super().forward(x))


class LightConvBN(nn.Layer):
    """1x1 convolution without activation and depthwise convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, out_channels, 1, decay_bn=False)
        self.conv2 = AffineConvBN(out_channels, out_channels, kernel, groups=out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H, W]."""
        return self.conv2(self.conv1(x))


class Stem(nn.Layer):
    """Convolution of stride 2, two 2x2 convolutions beside a 2x2 pooling, convolution of stride 2, 1x1."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        self.stem1 = AffineConvBN(in_channels, channels, 3, 2, affine=affine)
        self.stem2a = AffineConvBN(channels, channels // 2, 2, affine=affine)
        self.stem2b = AffineConvBN(channels // 2, channels, 2, affine=affine)
        self.pool = nn.MaxPool2D(2, 1, padding="SAME", ceil_mode=True)
        self.stem3 = AffineConvBN(channels * 2, channels, 3, 2, affine=affine)
        self.stem4 = AffineConvBN(channels, out_channels, 1, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / 4, W / 4]."""
        x = self.stem1(x)
        y = self.stem2b(self.stem2a(x))
        return self.stem4(self.stem3(concat([self.pool(x), y], axis=1)))


class HGBlock(nn.Layer):
    """Convolutions in a row; two 1x1 convolutions of the input and all their outputs.

    ``add`` is the sum with the input; the first block of a stage has none.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        kernel: int,
        layers: int,
        light: bool,
        affine: bool,
        first: bool,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [inner] * layers
        make = LightConvBN if light else AffineConvBN
        self.layers = nn.LayerList(make(wide, inner, kernel, affine=affine) for wide in widths[:-1])
        squeezed = out_channels // 2
        self.aggregation_squeeze_conv = AffineConvBN(sum(widths), squeezed, 1, affine=affine)
        self.aggregation_excitation_conv = AffineConvBN(squeezed, out_channels, 1, affine=affine)
        self.add = None if first else Add()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H, W]."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        y = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(concat(maps, axis=1)))
        return y if self.add is None else self.add(y, x)


class HGStage(nn.Layer):
    """``downsample``, a depthwise convolution of stride 2, and ``blocks``."""

    def __init__(self, in_channels: int, row: _Stage, layers: int, affine: bool) -> None:
        super().__init__()
        inner, out, count, halve, light, kernel = row
        self.downsample = (
            ConvBN(in_channels, in_channels, 3, 2, in_channels, decay_bn=False) if halve else nn.Identity()
        )
        widths = [in_channels] + [out] * (count - 1)
        self.blocks = nn.Sequential(
            *(
                HGBlock(wide, inner, out, kernel, layers, light, affine, not index)
                for index, wide in enumerate(widths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / 2, W / 2] or, not halving, to the same size."""
        return self.blocks(self.downsample(x))


class HGNet(TheseusLayer):
    """PP-HGNetV2: ``stem``, ``stages[0]`` ... ``stages[3]``, ``avg_pool``, ``last_conv``, ``fc``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        stem: channels inside and out of the stem.
        stages: channels inside and out of each stage, its blocks, whether it halves the image, whether its
            convolutions are light, kernel.
        layers: convolutions of a block.
        affine: whether learnable affine blocks follow the activations.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier; null for none. Dropped in training
            without rescaling and rescaled at inference, as in the reference.
        class_expand: features before the classifier.
        use_last_conv: whether a 1x1 convolution makes those features.
        lr_mult_list: factors on the learning rates of the stem and the four stages.
    """

    stages_pattern = ("stages[0]", "stages[1]", "stages[2]", "stages[3]")

    def __init__(
        self,
        *,
        stem: tuple[int, int],
        stages: tuple[tuple[int, int, int, bool, bool, int], ...],
        layers: int,
        affine: bool,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.0,
        class_expand: int = 2048,
        use_last_conv: bool = True,
        lr_mult_list: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.stem = Stem(input_image_channel, stem[0], stem[1], affine)
        width = stem[1]
        made = []
        for row in stages:
            made.append(HGStage(width, row, layers, affine))
            width = row[1]
        self.stages = nn.Sequential(*made)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = conv(width, class_expand, 1) if use_last_conv else nn.Identity()
        self.act = nn.ReLU() if use_last_conv else nn.Identity()
        self.lab = LearnableAffine() if affine and use_last_conv else nn.Identity()
        self.dropout = dropout(dropout_prob if use_last_conv else None, downscale=True)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(class_expand if use_last_conv else width, class_num)
        scale_learning_rates([self.stem, *self.stages], lr_mult_list)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.last_conv(self.avg_pool(self.stages(self.stem(x))))
        return self.fc(self.flatten(self.dropout(self.lab(self.act(x)))))


PPHGNetV2_B0 = register_network(HGNet, "PPHGNetV2_B0", stem=(16, 16), stages=_B0, layers=3, affine=True)
PPHGNetV2_B1 = register_network(HGNet, "PPHGNetV2_B1", stem=(24, 32), stages=_B1, layers=3, affine=True)
PPHGNetV2_B2 = register_network(HGNet, "PPHGNetV2_B2", stem=(24, 32), stages=_B2, layers=4, affine=True)
PPHGNetV2_B3 = register_network(HGNet, "PPHGNetV2_B3", stem=(24, 32), stages=_B3, layers=5, affine=True)
PPHGNetV2_B4 = register_network(HGNet, "PPHGNetV2_B4", stem=(32, 48), stages=_B4, layers=6, affine=False)
