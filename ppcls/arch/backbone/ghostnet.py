"""GhostNet: half of the channels from cheap depthwise convolutions of the other half (Han et al., "GhostNet:
More Features from Cheap Operations", arXiv 1911.11907, table 1).
"""

from __future__ import annotations

from paddle import Tensor, concat, nn

from ppcls.arch.backbone.layers import Add, Clip, ConvBN, LinearSE, dropout, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per block: kernel, channels inside and out at scale 1, squeeze and excitation, stride.
_BLOCKS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)


class GhostConvBN(ConvBN):
    """`ConvBN` under older names, whose BatchNorm the optimizer's L2 regularizer leaves alone."""

    names = ("_conv", "_batch_norm")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: nn.Layer | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, groups, act, decay_bn=False)


class GhostModule(nn.Layer):
    """1x1 convolution to half of the channels; a 3x3 depthwise convolution of them makes the other half."""

    def __init__(self, in_channels: int, out_channels: int, relu: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary_conv = GhostConvBN(in_channels, half, 1, act=nn.ReLU() if relu else None)
        self.cheap_operation = GhostConvBN(half, half, 3, groups=half, act=nn.ReLU() if relu else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H, W]."""
        x = self.primary_conv(x)
        return concat([x, self.cheap_operation(x)], axis=1)


class GhostBottleneck(nn.Layer):
    """Ghost module, depthwise convolution if it halves the image, squeeze and excitation, ghost module.

    ``add`` is the sum with the short cut; nothing follows it.
    """

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, kernel: int, stride: int, use_se: bool
    ) -> None:
        super().__init__()
        halve = stride == 2
        self.ghost_module_1 = GhostModule(in_channels, inner, relu=True)
        self.depthwise_conv = GhostConvBN(inner, inner, kernel, 2, inner) if halve else nn.Identity()
        self.se_block = LinearSE(inner, 4, gate=Clip(0.0, 1.0)) if use_se else nn.Identity()
        self.ghost_module_2 = GhostModule(inner, out_channels, relu=False)
        same = not halve and in_channels == out_channels
        self.shortcut_depthwise = (
            nn.Identity() if same else GhostConvBN(in_channels, in_channels, kernel, stride, in_channels)
        )
        self.shortcut_conv = nn.Identity() if same else GhostConvBN(in_channels, out_channels, 1)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y = self.ghost_module_2(self.se_block(self.depthwise_conv(self.ghost_module_1(x))))
        return self.add(y, self.shortcut_conv(self.shortcut_depthwise(x)))


class GhostNet(TheseusLayer):
    """GhostNet: ``conv1``, ``_ghostbottleneck_0`` ..., ``conv_last``, ``avg_pool``, ``fc_0``, ``fc_1``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        scale: factor on all channel counts, which are then rounded to multiples of 4.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier; null for none.
        class_expand: features before the classifier.
    """

    stages_pattern = tuple(f"_ghostbottleneck_{index}" for index in (0, 2, 4, 10, 15))

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
        width = make_divisible(16 * scale, 4)
        self.conv1 = GhostConvBN(input_image_channel, width, 3, 2, act=nn.ReLU())
        self._blocks = [f"_ghostbottleneck_{index}" for index in range(len(_BLOCKS))]
        for name, (kernel, inner, channels, use_se, stride) in zip(self._blocks, _BLOCKS, strict=True):
            wide = make_divisible(inner * scale, 4)
            out = make_divisible(channels * scale, 4)
            self.add_sublayer(name, GhostBottleneck(width, wide, out, kernel, stride, use_se))
            width = out
        last = make_divisible(_BLOCKS[-1][1] * scale, 4)
        self.conv_last = GhostConvBN(width, last, 1, act=nn.ReLU())
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.fc_0 = GhostConvBN(last, class_expand, 1, act=nn.ReLU())
        self.dropout = dropout(dropout_prob)
        self.flatten = nn.Flatten()
        self.fc_1 = nn.Linear(class_expand, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv1(x)
        for name in self._blocks:
            x = getattr(self, name)(x)
        x = self.fc_0(self.avg_pool(self.conv_last(x)))
        return self.fc_1(self.flatten(self.dropout(x)))


GhostNet_x0_5 = register_network(GhostNet, "GhostNet_x0_5", scale=0.5)
GhostNet_x1_0 = register_network(GhostNet, "GhostNet_x1_0", scale=1.0)
GhostNet_x1_3 = register_network(GhostNet, "GhostNet_x1_3", scale=1.3)
