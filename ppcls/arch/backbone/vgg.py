"""VGG: plain stacks of 3x3 convolutions (Simonyan and Zisserman, "Very Deep Convolutional Networks for
Large-Scale Image Recognition", arXiv 1409.1556).
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.layers import conv, dropout
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.errors import ConfigError

_CHANNELS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(TheseusLayer):
    """VGG: ``conv_block_1`` ... ``conv_block_5``, ``avg_pool``, ``fc1``, ``fc2``, ``fc3``.

    A block is ``conv1``, ``relu1``, ... and ``pool``. The official weights have no biases and no BatchNorm in
    the convolutions. Features are averaged to 7x7, which changes nothing at 224 pixels and makes the network
    take any size of 32 and more.

    Args:
        depth: number of layers with weights: 11, 13, 16 or 19.
        class_num: number of classes.
        input_image_channel: channels of the images.
        dropout_prob: share of the features dropped before the last two layers; null for none. Dropped in
            training without rescaling and rescaled at inference, as the official weights need it.
        stop_grad_layers: how many blocks do not train, counted from the first.
    """

    stages_pattern = tuple(f"conv_block_{stage}" for stage in range(1, 6))

    def __init__(
        self,
        *,
        depth: int,
        class_num: int = 1000,
        input_image_channel: int = 3,
        dropout_prob: float | None = 0.5,
        stop_grad_layers: int = 0,
    ) -> None:
        super().__init__()
        width = input_image_channel
        for name, channels, count in zip(self.stages_pattern, _CHANNELS, _CONVOLUTIONS[depth], strict=True):
            layers: list[tuple[str, nn.Layer]] = []
            for index in range(1, count + 1):
                layers += [(f"conv{index}", conv(width, channels, 3)), (f"relu{index}", nn.ReLU())]
                width = channels
            self.add_sublayer(name, nn.Sequential(*layers, ("pool", nn.MaxPool2D(2, 2))))
        self.avg_pool = nn.AdaptiveAvgPool2D(7)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(width * 49, 4096)
        self.relu1 = nn.ReLU()
        self.dropout1 = dropout(dropout_prob, downscale=True)
        self.fc2 = nn.Linear(4096, 4096)
        self.relu2 = nn.ReLU()
        self.dropout2 = dropout(dropout_prob, downscale=True)
        self.fc3 = nn.Linear(4096, class_num)
        if stop_grad_layers:
            self._freeze_blocks(stop_grad_layers)

    def _freeze_blocks(self, count: int) -> None:
        if not 1 <= count <= len(self.stages_pattern):
            raise ConfigError(f"stop_grad_layers: expected 0 to {len(self.stages_pattern)}, got {count}")
        self.freeze_befor(self.stages_pattern[count - 1])

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.conv_block_3(self.conv_block_2(self.conv_block_1(x)))
        x = self.flatten(self.avg_pool(self.conv_block_5(self.conv_block_4(x))))
        x = self.dropout1(self.relu1(self.fc1(x)))
        return self.fc3(self.dropout2(self.relu2(self.fc2(x))))


VGG11 = register_network(VGG, "VGG11", depth=11)
VGG13 = register_network(VGG, "VGG13", depth=13)
VGG16 = register_network(VGG, "VGG16", depth=16)
VGG19 = register_network(VGG, "VGG19", depth=19)
