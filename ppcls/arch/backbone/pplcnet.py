"""PP-LCNet: a small network for CPUs (Cui et al., "PP-LCNet: A Lightweight CPU Convolutional Neural Network",
arXiv 2109.15099).
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import (
    ConvBN,
    SEModule,
    Stride,
    conv,
    dropout,
    five_strides,
    make_divisible,
    scale_learning_rates,
)
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per stage and block: kernel, channels at scale 1, whether with squeeze and excitation. The first block of
# each stage but the first has the stage's stride.
_STAGES: dict[str, list[tuple[int, int, bool]]] = {
    "blocks2": [(3, 32, False)],
    "blocks3": [(3, 64, False)] * 2,
    "blocks4": [(3, 128, False)] * 2,
    "blocks5": [(3, 256, False)] + [(5, 256, False)] * 5,
    "blocks6": [(5, 512, True)] * 2,
}


class DepthwiseSeparable(nn.Layer):
    """Depthwise convolution, optionally squeeze and excitation, and 1x1 convolution, with hard swish."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: Stride, use_se: bool
    ) -> None:
        super().__init__()
        self.dw_conv = ConvBN(
            in_channels, in_channels, kernel, stride, in_channels, nn.Hardswish(), decay_bn=False
        )
        self.se = SEModule(in_channels) if use_se else nn.Identity()
        self.pw_conv = ConvBN(in_channels, out_channels, 1, act=nn.Hardswish(), decay_bn=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self.pw_conv(self.se(self.dw_conv(x)))


class LCNet(TheseusLayer):
    """PP-LCNet: ``conv1``, ``blocks2`` ... ``blocks6``, ``avg_pool``, ``last_conv``, ``fc``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        scale: factor on all channel counts, which are then rounded to multiples of 8.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the classifier; null for none. Dropped in training
            without rescaling and rescaled at inference, as the official weights need it.
        class_expand: features before the classifier.
        use_last_conv: whether a 1x1 convolution makes those features.
        stride_list: strides of the stem and of the stages from ``blocks3`` on, each a number or [vertical,
            horizontal] (default: 2 each).
        lr_mult_list: factors on the learning rates of the stem and of the stages from ``blocks2`` on.
    """

    stages_pattern = tuple(_STAGES)

    def __init__(
        self,
        *,
        scale: float = 1.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.2,
        class_expand: int = 1280,
        use_last_conv: bool = True,
        stride_list: list[Stride] | None = None,
        lr_mult_list: list[float] | None = None,
    ) -> None:
        super().__init__()
        first, *later = five_strides([2] * 5 if stride_list is None else stride_list)
        width = make_divisible(16 * scale)
        self.conv1 = ConvBN(input_image_channel, width, 3, first, act=nn.Hardswish(), decay_bn=False)
        strides = dict(zip(_STAGES, (1, *later), strict=True))
        for name, rows in _STAGES.items():
            blocks = []
            for index, (kernel, channels, use_se) in enumerate(rows):
                out = make_divisible(channels * scale)
                blocks.append(DepthwiseSeparable(width, out, kernel, 1 if index else strides[name], use_se))
                width = out
            self.add_sublayer(name, nn.Sequential(*blocks))
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = conv(width, class_expand, 1) if use_last_conv else nn.Identity()
        self.hardswish = nn.Hardswish() if use_last_conv else nn.Identity()
        self.dropout = dropout(dropout_prob if use_last_conv else None, downscale=True)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(class_expand if use_last_conv else width, class_num)
        stages = [self.blocks2, self.blocks3, self.blocks4, self.blocks5, self.blocks6]
        scale_learning_rates([self.conv1, *stages], lr_mult_list)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv1(x)
        x = self.blocks6(self.blocks5(self.blocks4(self.blocks3(self.blocks2(x)))))
        x = self.dropout(self.hardswish(self.last_conv(self.avg_pool(x))))
        return self.fc(self.flatten(x))


PPLCNet = register_network(LCNet, "PPLCNet")
PPLCNet_x0_25 = register_network(LCNet, "PPLCNet_x0_25", scale=0.25)
PPLCNet_x0_35 = register_network(LCNet, "PPLCNet_x0_35", scale=0.35)
PPLCNet_x0_5 = register_network(LCNet, "PPLCNet_x0_5", scale=0.5)
PPLCNet_x0_75 = register_network(LCNet, "PPLCNet_x0_75", scale=0.75)
PPLCNet_x1_0 = register_network(LCNet, "PPLCNet_x1_0", scale=1.0)
PPLCNet_x1_5 = register_network(LCNet, "PPLCNet_x1_5", scale=1.5)
PPLCNet_x2_0 = register_network(LCNet, "PPLCNet_x2_0", scale=2.0)
PPLCNet_x2_5 = register_network(LCNet, "PPLCNet_x2_5", scale=2.5)
