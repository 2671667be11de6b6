"""PP-LCNetV2: PP-LCNet with depthwise kernels of several sizes that become one (PaddleClas, "PP-LCNetV2",
2022; re-parameterisation after Ding et al., "RepVGG", arXiv 2101.03697, section 3.3).
"""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBN, SEModule, Sigmoid, conv, dropout, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Per stage: channels at scale 1, kernel, whether the 1x1 convolution is split in two, whether the depthwise
# convolution is a sum of several, squeeze and excitation, whether there is a sum with the input.
_STAGES = (
    (128, 3, False, False, False, False),
    (256, 3, False, False, False, False),
    (512, 5, True, True, True, False),
    (1024, 5, False, True, False, True),
)


class RepDepthwiseSeparable(nn.Layer):
    """Depthwise convolution, optionally squeeze and excitation, one or two 1x1 convolutions, with ReLU.

    ``add`` is the sum with the input, where there is one. If `rep` is asked for, the depthwise convolution is
    a sum of convolutions of all odd sizes up to `kernel`; :meth:`reparameterize` turns it into the one
    convolution ``dw_conv``, which does not train and is used from then on.

    Attributes:
        reparameterized: whether the single convolution is used.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        kernel: int = 3,
        split: bool = False,
        rep: bool = False,
        use_se: bool = False,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        # Without several convolutions there is nothing to do.
        self.reparameterized = not rep
        if rep:
            sizes = [size for size in range(kernel, 0, -2) if stride == 1 or size > 1]
            self.dw_conv_list = nn.LayerList(
                ConvBN(in_channels, in_channels, size, stride, in_channels, decay_bn=False) for size in sizes
            )
            self.dw_conv = nn.Conv2D(
                in_channels, in_channels, kernel, stride, padding=kernel // 2, groups=in_channels
            )
            for parameter in self.dw_conv.parameters():
                parameter.stop_gradient = True
            self.act = nn.ReLU()
        else:
            self.dw_conv = ConvBN(in_channels, in_channels, kernel, stride, in_channels, nn.ReLU(), False)
            self.act = nn.Identity()
        self.se = SEModule(in_channels, gate=Sigmoid()) if use_se else nn.Identity()
        inner = int(out_channels * 0.5)
        if split:
            self.pw_conv_1 = ConvBN(in_channels, inner, 1, act=nn.ReLU(), decay_bn=False)
            self.pw_conv_2 = ConvBN(inner, out_channels, 1, act=nn.ReLU(), decay_bn=False)
        else:
            self.pw_conv = ConvBN(in_channels, out_channels, 1, act=nn.ReLU(), decay_bn=False)
        self.split = split
        self.add = Add() if shortcut and stride == 1 and in_channels == out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        if self.reparameterized:
            y = self.dw_conv(x)
        else:
            y = self.dw_conv_list[0](x)
            for layer in self.dw_conv_list[1:]:
                y = y + layer(x)
        y = self.se(self.act(y))
        y = self.pw_conv_2(self.pw_conv_1(y)) if self.split else self.pw_conv(y)
        return y if self.add is None else self.add(y, x)

    @paddle.no_grad()
    def reparameterize(self) -> None:
        """Replace the depthwise convolutions by a single equivalent one, for export in eval mode."""
        if self.reparameterized:
            return
        kernel = 0.0
        bias = 0.0
        side = self.dw_conv.weight.shape[-1]
        for layer in self.dw_conv_list:
            factor = layer.bn.weight / (layer.bn._variance + layer.bn._epsilon).sqrt()
            border = (side - layer.conv.weight.shape[-1]) // 2
            wide = nn.functional.pad(layer.conv.weight, [border] * 4)
            kernel = kernel + wide * factor.reshape([-1, 1, 1, 1])
            bias = bias + layer.bn.bias - layer.bn._mean * factor
        self.dw_conv.weight.set_value(kernel)
        self.dw_conv.bias.set_value(bias)
        self.reparameterized = True


class LCNet(TheseusLayer):
    """PP-LCNetV2: ``stem``, ``stages[0]`` ... ``stages[3]``, ``avg_pool``, ``last_conv``, ``fc``.

    The optimizer's L2 regularizer does not apply to scale and shift of BatchNorm, as in the reference.

    Args:
        scale: factor on all channel counts, which are then rounded to multiples of 8.
        depths: blocks of each stage.
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
        scale: float,
        depths: tuple[int, ...],
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.2,
        class_expand: int = 1280,
        use_last_conv: bool = True,
    ) -> None:
        super().__init__()
        first = make_divisible(32 * scale)
        width = make_divisible(64 * scale)
        self.stem = nn.Sequential(
            ConvBN(input_image_channel, first, 3, 2, act=nn.ReLU(), decay_bn=False),
            RepDepthwiseSeparable(first, width, 1),
        )
        stages = []
        for (channels, kernel, split, rep, use_se, shortcut), depth in zip(_STAGES, depths, strict=True):
            out = make_divisible(channels * scale)
            blocks = []
            for index in range(depth):
                stride = 1 if index else 2
                blocks.append(RepDepthwiseSeparable(width, out, stride, kernel, split, rep, use_se, shortcut))
                width = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.last_conv = conv(width, class_expand, 1) if use_last_conv else nn.Identity()
        self.act = nn.ReLU() if use_last_conv else nn.Identity()
        self.dropout = dropout(dropout_prob if use_last_conv else None, downscale=True)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(class_expand if use_last_conv else width, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.last_conv(self.avg_pool(self.stages(self.stem(x))))
        return self.fc(self.flatten(self.dropout(self.act(x))))


PPLCNetV2_small = register_network(LCNet, "PPLCNetV2_small", scale=0.75, depths=(2, 2, 4, 2))
PPLCNetV2_base = register_network(LCNet, "PPLCNetV2_base", scale=1.0, depths=(2, 2, 6, 2))
PPLCNetV2_large = register_network(LCNet, "PPLCNetV2_large", scale=1.25, depths=(2, 2, 8, 2))
