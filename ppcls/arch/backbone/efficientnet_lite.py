"""EfficientNet-Lite: EfficientNet for small devices (Liu, "Higher accuracy on vision models with
EfficientNet-Lite", TensorFlow blog, March 2020; the structure after arXiv 1905.11946).

Squeeze and excitation are left out, ReLU6 takes the place of swish, and the stem, the number of blocks of the
first and the last stage and the features before the classifier are the same in all variants.
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.efficientnet import STAGES, StageSpec, batch_norm, deepened, same_conv
from ppcls.arch.backbone.layers import drop_path, dropout, make_divisible
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Width (factor on the channel counts), depth (factor on the number of blocks), dropout before the classifier.
_SIZES = {0: (1.0, 1.0, 0.2), 1: (1.0, 1.1, 0.2), 2: (1.1, 1.2, 0.3)}
_STEM = 32
_FEATURES = 1280


class LiteBlock(nn.Layer):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, 1x1 projection.

    The input is added where the shape stays; see `ppcls.arch.backbone.efficientnet.MBConv` for `drop`.
    """

    def __init__(self, in_channels: int, spec: StageSpec, stride: int, channels: int, drop: float) -> None:
        super().__init__()
        wide = in_channels * spec.expand
        self.expands = spec.expand > 1
        if self.expands:
            self._expand_conv = same_conv(in_channels, wide, 1)
            self._bn0 = batch_norm(wide)
            self._relu0 = nn.ReLU6()
        self._depthwise_conv = same_conv(wide, wide, spec.kernel, stride, wide)
        self._bn1 = batch_norm(wide)
        self._relu1 = nn.ReLU6()
        self._project_conv = same_conv(wide, channels, 1)
        self._bn2 = batch_norm(channels)
        self.drop_path = drop_path(drop)
        self.same = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, H / stride, W / stride]."""
        y = self._relu0(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu1(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + self.drop_path(y) if self.same else y


class EfficientNetLite(TheseusLayer):
    """EfficientNet-Lite: ``_conv_stem``, ``_blocks[0]`` ... ``_blocks[n]``, ``_conv_head``, ``_fc``.

    Parameters are named as in the public PyTorch weights, but for BatchNorm's ``_mean`` and ``_variance``.

    Args:
        size: 0, 1 or 2.
        dropout_prob: share of the features dropped before the classifier (default: 0.2; 0.3 for Lite2).
        drop_connect_rate: probability of dropping the last block; that of the others falls to 0 at the first.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        size: int,
        dropout_prob: float | None = None,
        drop_connect_rate: float = 0.2,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        width, depth, share = _SIZES[size]
        self._conv_stem = same_conv(input_image_channel, _STEM, 3, 2)
        self._bn0 = batch_norm(_STEM)
        self._relu0 = nn.ReLU6()
        channels = _STEM
        rows: list[tuple[StageSpec, int, int]] = []
        ends = []
        for spec in STAGES:
            if spec.stride == 2:
                ends.append(len(rows) - 1)
            edge = spec in (STAGES[0], STAGES[-1])
            count = spec.repeats if edge else deepened(spec.repeats, depth)
            rows += [
                (spec, 1 if i else spec.stride, make_divisible(spec.channels * width)) for i in range(count)
            ]
        self._blocks = nn.LayerList()
        for index, (spec, stride, out) in enumerate(rows):
            rate = drop_connect_rate * index / len(rows)
            self._blocks.append(LiteBlock(channels, spec, stride, out, rate))
            channels = out
        self.stages_pattern = tuple(f"_blocks[{last}]" for last in [*ends, len(rows) - 1])
        self._conv_head = same_conv(channels, _FEATURES, 1)
        self._bn1 = batch_norm(_FEATURES)
        self._relu1 = nn.ReLU6()
        self._pool = nn.AdaptiveAvgPool2D(1)
        self._flatten = nn.Flatten()
        self._dropout = dropout(share if dropout_prob is None else dropout_prob)
        self._fc = nn.Linear(_FEATURES, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self._relu0(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self._pool(self._relu1(self._bn1(self._conv_head(x))))
        return self._fc(self._dropout(self._flatten(x)))


EfficientNetLite0 = register_network(EfficientNetLite, "EfficientNetLite0", size=0)
EfficientNetLite1 = register_network(EfficientNetLite, "EfficientNetLite1", size=1)
EfficientNetLite2 = register_network(EfficientNetLite, "EfficientNetLite2", size=2)
