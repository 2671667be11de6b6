"""DenseNet (Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993)."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBatchNorm, conv, dropout
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# By depth: channels of the stem, channels that a layer adds, layers of the four dense blocks.
_SIZES = {
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
    264: (64, 32, (6, 12, 64, 48)),
}


class BNConv(nn.Layer):
    """BatchNorm, ReLU and convolution, in this order."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self._batch_norm = nn.BatchNorm2D(in_channels)
        self._relu = nn.ReLU()
        self._conv = conv(in_channels, out_channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H, W]."""
        return self._conv(self._relu(self._batch_norm(x)))


class DenseLayer(nn.Layer):
    """A 1x1 convolution to four times the growth and a 3x3 one to the growth, appended to the input."""

    def __init__(self, in_channels: int, growth: int, dropout_prob: float | None) -> None:
        super().__init__()
        self.bn_ac_func1 = BNConv(in_channels, 4 * growth, 1)
        self.bn_ac_func2 = BNConv(4 * growth, growth, 3)
        self.dropout = dropout(dropout_prob, downscale=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, in_channels + growth, H, W]."""
        new = self.dropout(self.bn_ac_func2(self.bn_ac_func1(x)))
        return paddle.concat([x, new], axis=1)


class Transition(nn.Layer):
    """Half of the channels at half of the size, between two dense blocks."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv_ac_func = BNConv(in_channels, in_channels // 2, 1)
        self.pool2d_avg = nn.AvgPool2D(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, in_channels / 2, H / 2, W / 2]."""
        return self.pool2d_avg(self.conv_ac_func(x))


class DenseNet(TheseusLayer):
    """DenseNet: ``conv1_func``, ``pool2d_max``, ``db_conv_2``, ``tr_conv2_blk``, ... ``db_conv_5``, ``out``.

    Args:
        depth: 121, 161, 169, 201 or 264.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the values of each new feature map that is dropped; null for none. Dropped in
            training without rescaling and rescaled at inference, as in the reference.
    """

    stages_pattern = ("db_conv_2", "db_conv_3", "db_conv_4", "db_conv_5")

    def __init__(
        self,
        *,
        depth: int,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.0,
    ) -> None:
        super().__init__()
        width, growth, counts = _SIZES[depth]
        self.conv1_func = ConvBatchNorm(input_image_channel, width, 7, 2, act=nn.ReLU())
        self.pool2d_max = nn.MaxPool2D(3, 2, padding=1)
        self._path: list[str] = []
        for stage, count in enumerate(counts, 2):
            block = nn.Sequential()
            for index in range(count):
                block.add_sublayer(f"conv{stage}_{index + 1}", DenseLayer(width, growth, dropout_prob))
                width += growth
            self._append(f"db_conv_{stage}", block)
            if stage < 5:
                self._append(f"tr_conv{stage}_blk", Transition(width))
                width //= 2
        self.batch_norm = nn.BatchNorm2D(width)
        self.relu = nn.ReLU()
        self.pool2d_avg = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.out = nn.Linear(width, class_num)

    def _append(self, name: str, layer: nn.Layer) -> None:
        self.add_sublayer(name, layer)
        self._path.append(name)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.pool2d_max(self.conv1_func(x))
        for name in self._path:
            x = getattr(self, name)(x)
        return self.out(self.flatten(self.pool2d_avg(self.relu(self.batch_norm(x)))))


DenseNet121 = register_network(DenseNet, "DenseNet121", depth=121)
DenseNet161 = register_network(DenseNet, "DenseNet161", depth=161)
DenseNet169 = register_network(DenseNet, "DenseNet169", depth=169)
DenseNet201 = register_network(DenseNet, "DenseNet201", depth=201)
DenseNet264 = register_network(DenseNet, "DenseNet264", depth=264)
