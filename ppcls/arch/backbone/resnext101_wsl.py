"""ResNeXt101 as trained on images with weak labels (Mahajan et al., "Exploring the Limits of Weakly
Supervised Pretraining", arXiv 1805.00932): the network of ResNeXt at widths from 32x8d to 32x48d.
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBN
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_COUNTS = (3, 4, 23, 3)
_GROUPS = 32


class WSLConvBN(ConvBN):
    """`ConvBN` under the names of these weights."""

    names = ("_conv", "_bn")


class ShortCut(nn.Layer):
    """1x1 convolution and BatchNorm on the short cut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self._conv = WSLConvBN(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self._conv(x)


class Bottleneck(nn.Layer):
    """1x1, grouped 3x3 and 1x1 convolutions beside a short cut. ``add`` is their sum before the last ReLU."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, stride: int, first: bool) -> None:
        super().__init__()
        self._conv0 = WSLConvBN(in_channels, channels, 1, act=nn.ReLU())
        self._conv1 = WSLConvBN(channels, channels, 3, stride, _GROUPS, nn.ReLU())
        self._conv2 = WSLConvBN(channels, out_channels, 1)
        self._short = ShortCut(in_channels, out_channels, stride) if first else nn.Identity()
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self.relu(self.add(self._conv2(self._conv1(self._conv0(x))), self._short(x)))


class ResNeXt101WSL(TheseusLayer):
    """ResNeXt101: ``_conv_stem``, ``max_pool``, blocks ``_conv1_0`` ... ``_conv4_2``, ``avg_pool``, ``_out``.

    Args:
        group_width: channels of one of the 32 groups in the first stage; they double from stage to stage.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(self, *, group_width: int, class_num: int = 1000, input_image_channel: int = 3) -> None:
        super().__init__()
        self._conv_stem = WSLConvBN(input_image_channel, 64, 7, 2, act=nn.ReLU())
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        self._blocks: list[str] = []
        stages = []
        wide = 64
        for stage, count in enumerate(_COUNTS):
            inner = _GROUPS * group_width * 2**stage
            out = 256 * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                self._blocks.append(f"_conv{stage + 1}_{index}")
                self.add_sublayer(self._blocks[-1], Bottleneck(wide, inner, out, stride, not index))
                wide = out
            stages.append(self._blocks[-1])
        self.stages_pattern = tuple(stages)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self._out = nn.Linear(wide, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.max_pool(self._conv_stem(x))
        for name in self._blocks:
            x = getattr(self, name)(x)
        return self._out(self.flatten(self.avg_pool(x)))


ResNeXt101_32x8d_wsl = register_network(ResNeXt101WSL, "ResNeXt101_32x8d_wsl", group_width=8)
ResNeXt101_32x16d_wsl = register_network(ResNeXt101WSL, "ResNeXt101_32x16d_wsl", group_width=16)
ResNeXt101_32x32d_wsl = register_network(ResNeXt101WSL, "ResNeXt101_32x32d_wsl", group_width=32)
ResNeXt101_32x48d_wsl = register_network(ResNeXt101WSL, "ResNeXt101_32x48d_wsl", group_width=48)
