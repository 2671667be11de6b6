"""The layout of ResNet under the layer names of older official weights, for the families built on it.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385; the variant vd after He et al.,
"Bag of Tricks for Image Classification with Convolutional Neural Networks", arXiv 1812.01187, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import Add, ConvBatchNorm, PooledConvBatchNorm
from ppcls.arch.theseus import TheseusLayer

# (channels of the input, stage, index in the stage, stride, short cut) -> block
MakeBlock = Callable[[int, int, int, int, nn.Layer], nn.Layer]

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}


class GroupedBottleneck(nn.Layer):
    """1x1, grouped 3x3 and 1x1 convolutions, whose output is scaled, beside a short cut.

    ``add`` is the sum before the last ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        stride: int,
        short: nn.Layer,
        groups: int = 1,
        scale: nn.Layer | None = None,
    ) -> None:
        super().__init__()
        self.conv0 = ConvBatchNorm(in_channels, channels, 1, act=nn.ReLU())
        self.conv1 = ConvBatchNorm(channels, channels, 3, stride, groups, nn.ReLU())
        self.conv2 = ConvBatchNorm(channels, out_channels, 1)
        self.scale = nn.Identity() if scale is None else scale
        self.short = short
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y = self.scale(self.conv2(self.conv1(self.conv0(x))))
        return self.relu(self.add(y, self.short(x)))


class ResNetLayout(TheseusLayer):
    """Stem, ``max_pool``, blocks as attributes ``bb_<stage>_<index>``, ``avg_pool``, ``flatten``, ``out``.

    The stem is one 7x7 convolution, or ``conv1_1``, ``conv1_2``, ``conv1_3`` in the variant vd.

    Args:
        counts: blocks of each stage.
        widths: output channels of each stage.
        block: makes a block.
        vd: whether to build the variant vd.
        stem: name of the 7x7 convolution.
        class_num: number of classes.
        input_image_channel: channels of the images.
        stem_width: channels of the stem; the first two convolutions of the variant vd have half of them.
    """

    def __init__(
        self,
        *,
        counts: Sequence[int],
        widths: Sequence[int],
        block: MakeBlock,
        vd: bool,
        stem: str,
        class_num: int,
        input_image_channel: int,
        stem_width: int = 64,
    ) -> None:
        super().__init__()
        if vd:
            half = stem_width // 2
            sizes = [(input_image_channel, half, 3, 2), (half, half, 3, 1), (half, stem_width, 3, 1)]
            self._stem = ["conv1_1", "conv1_2", "conv1_3"]
        else:
            sizes = [(input_image_channel, stem_width, 7, 2)]
            self._stem = [stem]
        for name, size in zip(self._stem, sizes, strict=True):
            self.add_sublayer(name, ConvBatchNorm(*size, act=nn.ReLU()))
        self.max_pool = nn.MaxPool2D(3, 2, padding=1)
        self._blocks: list[str] = []
        stages = []
        wide = stem_width
        for stage, (count, out) in enumerate(zip(counts, widths, strict=True)):
            for index in range(count):
                stride = 2 if stage and not index else 1
                short = nn.Identity() if index else short_cut(wide, out, stride, vd)
                self._blocks.append(f"bb_{stage}_{index}")
                self.add_sublayer(self._blocks[-1], block(wide, stage, index, stride, short))
                wide = out
            stages.append(self._blocks[-1])
        self.stages_pattern = tuple(stages)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.out = nn.Linear(wide, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        for name in self._stem:
            x = getattr(self, name)(x)
        x = self.max_pool(x)
        for name in self._blocks:
            x = getattr(self, name)(x)
        return self.out(self.flatten(self.avg_pool(x)))


def short_cut(in_channels: int, out_channels: int, stride: int, vd: bool) -> nn.Layer:
    """Return the short cut of the first block of a stage; that of others is the input itself."""
    if vd and stride == 2:
        return PooledConvBatchNorm(in_channels, out_channels)
    return ConvBatchNorm(in_channels, out_channels, 1, stride)
