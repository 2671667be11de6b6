"""ShuffleNet V2 (Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
arXiv 1807.11164).
"""

from __future__ import annotations

from types import MappingProxyType

import paddle
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBatchNorm, interleave
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.errors import ConfigError

# By size: channels of the stem, of the three stages and before the classifier.
_CHANNELS = {
    0.25: (24, (24, 48, 96), 512),
    0.33: (24, (32, 64, 128), 512),
    0.5: (24, (48, 96, 192), 1024),
    1.0: (24, (116, 232, 464), 1024),
    1.5: (24, (176, 352, 704), 1024),
    2.0: (24, (244, 488, 976), 2048),
}
_REPEATS = (4, 8, 4)

_FORMER_WIDTH = (
    "\n  The file is of ShuffleNetV2_x2_0 as earlier versions of ppcls built it, with 224 channels in the "
    "first stage instead of the published 244. Set the network's option first_stage to 224 to use it"
)


class KeepUnit(nn.Layer):
    """The unit of stride 1: half of the channels pass by, the others are convolved, then all are shuffled."""

    def __init__(self, channels: int, act: type[nn.Layer]) -> None:
        super().__init__()
        half = channels // 2
        self._conv_pw = ConvBatchNorm(half, half, 1, act=act())
        self._conv_dw = ConvBatchNorm(half, half, 3, groups=half)
        self._conv_linear = ConvBatchNorm(half, half, 1, act=act())

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        kept, x = paddle.split(x, 2, axis=1)
        x = self._conv_linear(self._conv_dw(self._conv_pw(x)))
        return interleave(kept, x)


class ReduceUnit(nn.Layer):
    """The unit of stride 2: two branches see all channels and give half of the output each."""

    def __init__(self, in_channels: int, out_channels: int, act: type[nn.Layer]) -> None:
        super().__init__()
        half = out_channels // 2
        self._conv_dw_1 = ConvBatchNorm(in_channels, in_channels, 3, 2, in_channels)
        self._conv_linear_1 = ConvBatchNorm(in_channels, half, 1, act=act())
        self._conv_pw_2 = ConvBatchNorm(in_channels, half, 1, act=act())
        self._conv_dw_2 = ConvBatchNorm(half, half, 3, 2, half)
        self._conv_linear_2 = ConvBatchNorm(half, half, 1, act=act())

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / 2, W / 2]."""
        first = self._conv_linear_1(self._conv_dw_1(x))
        second = self._conv_linear_2(self._conv_dw_2(self._conv_pw_2(x)))
        return interleave(first, second)


class ShuffleNet(TheseusLayer):
    """ShuffleNet V2: ``_conv1``, ``_max_pool``, ``2_1`` ... ``2_4``, ``3_1`` ..., ``4_4``, ``_last_conv``.

    Args:
        scale: size of the network: 0.25, 0.33, 0.5, 1.0, 1.5 or 2.0.
        act: class of the activations.
        first_stage: channels of the first stage, an even number (default: those of the size). Earlier
            versions of this package built ShuffleNetV2_x2_0 with 224 instead of 244.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = tuple(f"{stage}_{count}" for stage, count in enumerate(_REPEATS, 2))
    former_shapes = MappingProxyType({"2_2._conv_pw._conv.weight": ((112, 112, 1, 1), _FORMER_WIDTH)})

    def __init__(
        self,
        *,
        scale: float,
        act: type[nn.Layer] = nn.ReLU,
        first_stage: int | None = None,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        width, channels, features = _CHANNELS[scale]
        if first_stage is not None:
            if first_stage < 2 or first_stage % 2:
                raise ConfigError(f"first_stage: expected an even number above 0, got {first_stage}")
            channels = (first_stage, *channels[1:])
        self._conv1 = ConvBatchNorm(input_image_channel, width, 3, 2, act=act())
        self._max_pool = nn.MaxPool2D(3, 2, padding=1)
        self._units: list[str] = []
        for stage, (out, count) in enumerate(zip(channels, _REPEATS, strict=True), 2):
            for index in range(count):
                self._units.append(f"{stage}_{index + 1}")
                unit = KeepUnit(out, act) if index else ReduceUnit(width, out, act)
                self.add_sublayer(self._units[-1], unit)
            width = out
        self._last_conv = ConvBatchNorm(width, features, 1, act=act())
        self._avg_pool = nn.AdaptiveAvgPool2D(1)
        self._flatten = nn.Flatten()
        self._fc = nn.Linear(features, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self._max_pool(self._conv1(x))
        for name in self._units:
            x = getattr(self, name)(x)
        return self._fc(self._flatten(self._avg_pool(self._last_conv(x))))


ShuffleNetV2_x0_25 = register_network(ShuffleNet, "ShuffleNetV2_x0_25", scale=0.25, act=nn.ReLU)
ShuffleNetV2_x0_33 = register_network(ShuffleNet, "ShuffleNetV2_x0_33", scale=0.33, act=nn.ReLU)
ShuffleNetV2_x0_5 = register_network(ShuffleNet, "ShuffleNetV2_x0_5", scale=0.5, act=nn.ReLU)
ShuffleNetV2_x1_0 = register_network(ShuffleNet, "ShuffleNetV2_x1_0", scale=1.0, act=nn.ReLU)
ShuffleNetV2_x1_5 = register_network(ShuffleNet, "ShuffleNetV2_x1_5", scale=1.5, act=nn.ReLU)
ShuffleNetV2_x2_0 = register_network(ShuffleNet, "ShuffleNetV2_x2_0", scale=2.0, act=nn.ReLU)
ShuffleNetV2_swish = register_network(ShuffleNet, "ShuffleNetV2_swish", scale=1.0, act=nn.Swish)
