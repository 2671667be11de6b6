"""ResNeSt: ResNet vd whose 3x3 convolutions are split, with attention over the parts (Zhang et al., "ResNeSt:
Split-Attention Networks", arXiv 2004.08955).
"""

from __future__ import annotations

from paddle import Tensor, nn
from paddle.nn.functional import softmax

from ppcls.arch.backbone.layers import Add, ConvBatchNorm, Sigmoid, conv, norm
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 200: (3, 24, 36, 3), 269: (3, 30, 48, 8)}
_EXPANSION = 4
_REDUCTION = 4
_SMALLEST = 32  # channels that the attention has at least in between


class SplitAttention(nn.Layer):
    """A 3x3 convolution of `radix` parts, each of `channels` channels, and their sum weighted by attention.

    The attention sees the means of the summed parts. Between parts it is a softmax for each channel; for a
    single part it is a sigmoid, as in squeeze and excitation.

    Args:
        channels: channels of the input and of the output.
        radix: number of parts.
    """

    def __init__(self, channels: int, radix: int) -> None:
        super().__init__()
        self.radix = radix
        hidden = max(channels * radix // _REDUCTION, _SMALLEST)
        self.conv1 = ConvBatchNorm(channels, channels * radix, 3, groups=radix, act=nn.ReLU(), decay_bn=False)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv2 = ConvBatchNorm(channels, hidden, 1, act=nn.ReLU(), decay_bn=False)
        self.conv3 = Conv2D(hidden, channels * radix, 1)
        self.gate = Sigmoid() if radix == 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        y = self.conv1(x)
        if self.radix == 1:
            return y * self.gate(self.conv3(self.conv2(self.avg_pool(y))))
        parts = y.split(self.radix, axis=1)
        scores = self.conv3(self.conv2(self.avg_pool(sum(parts[1:], parts[0]))))
        shares = softmax(self.gate(scores).reshape([0, self.radix, -1, 1, 1]), axis=1)
        weighted = [part * shares[:, index] for index, part in enumerate(parts)]
        return sum(weighted[1:], weighted[0])


class ResNeStBottleneck(nn.Layer):
    """1x1 convolution, split attention and 1x1 convolution, beside a short cut.

    Where the map is halved, averages over 3x3 pixels do it: before the split attention in the fast networks,
    after it in the others. ``add`` is the sum before the last ReLU.

    Args:
        in_channels: channels of the input.
        channels: channels of the split attention; the output has four times as many.
        stride: 1 or 2.
        radix: see `SplitAttention`.
        pool_first: whether the map is halved before the split attention.
        count_padding: see `ResNeSt`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        radix: int,
        pool_first: bool,
        count_padding: bool,
    ) -> None:
        super().__init__()
        out_channels = channels * _EXPANSION
        halve = nn.AvgPool2D(3, 2, padding=1, exclusive=not count_padding) if stride == 2 else nn.Identity()
        self.conv1 = ConvBatchNorm(in_channels, channels, 1, act=nn.ReLU(), decay_bn=False)
        self.pool_before = halve if pool_first else nn.Identity()
        self.conv2 = SplitAttention(channels, radix)
        self.pool_after = nn.Identity() if pool_first else halve
        self.conv3 = ConvBatchNorm(channels, out_channels, 1, decay_bn=False)
        self.projects = stride == 2 or in_channels != out_channels
        if self.projects:
            self.avg_pool = nn.AvgPool2D(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
            self.conv4 = conv(in_channels, out_channels, 1)
            self._batch_norm = norm(out_channels, decay=False)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, 4 * channels, H / stride, W / stride]."""
        y = self.conv3(self.pool_after(self.conv2(self.pool_before(self.conv1(x)))))
        short = self._batch_norm(self.conv4(self.avg_pool(x))) if self.projects else x
        return self.relu(self.add(y, short))


class ResNeSt(TheseusLayer):
    """ResNeSt: ``stem``, ``max_pool``, stages ``layer1`` to ``layer4``, ``avg_pool``, ``out``.

    The blocks of a stage are called ``layer1.layer1_bottleneck_0`` and so on.

    Args:
        depth: 50, 101, 200 or 269.
        stem_width: channels of the stem; its first two convolutions have half of them.
        radix: parts that a 3x3 convolution is split into.
        pool_first: whether maps are halved before the split attention.
        count_padding: average over the zeros around a map too where it is halved. The official weights of
            Paddle need False, those of PyTorch's networks True.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        *,
        depth: int,
        stem_width: int,
        radix: int = 2,
        pool_first: bool = False,
        count_padding: bool = False,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        self.count_padding = count_padding
        half = stem_width // 2
        sizes = [(input_image_channel, half, 3, 2), (half, half, 3, 1), (half, stem_width, 3, 1)]
        self.stem = nn.Sequential(
            *(
                (f"conv{index}", ConvBatchNorm(*size, act=nn.ReLU(), decay_bn=False))
                for index, size in enumerate(sizes, 1)
            )
        )
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        wide = stem_width
        for stage, count in enumerate(_BLOCKS[depth]):
            title = f"layer{stage + 1}"
            channels = 64 * 2**stage
            blocks = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                block = ResNeStBottleneck(wide, channels, stride, radix, pool_first, count_padding)
                blocks.append((f"{title}_bottleneck_{index}", block))
                wide = channels * _EXPANSION
            self.add_sublayer(title, nn.Sequential(*blocks))
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.out = nn.Linear(wide, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.max_pool(self.stem(x))
        for stage in self.stages_pattern:
            x = getattr(self, stage)(x)
        return self.out(self.flatten(self.avg_pool(x)))


ResNeSt50_fast_1s1x64d = register_network(
    ResNeSt, "ResNeSt50_fast_1s1x64d", depth=50, stem_width=64, radix=1, pool_first=True
)
ResNeSt50 = register_network(ResNeSt, "ResNeSt50", depth=50, stem_width=64, radix=2, pool_first=False)
ResNeSt101 = register_network(ResNeSt, "ResNeSt101", depth=101, stem_width=128, radix=2, pool_first=False)
ResNeSt200 = register_network(ResNeSt, "ResNeSt200", depth=200, stem_width=128, radix=2, pool_first=False)
ResNeSt269 = register_network(ResNeSt, "ResNeSt269", depth=269, stem_width=128, radix=2, pool_first=False)
