"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545)."""

from __future__ import annotations

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant

from ppcls.arch.backbone.layers import GELU, drop_path
from ppcls.arch.backbone.transformer import linear, rising, trunc_normal
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.errors import ConfigError

# Blocks and channels of the four stages.
_SIZES = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
_EPSILON = 1e-6


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map, at each place by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W]."""
        return super().forward(x.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])


class ConvNeXtBlock(nn.Layer):
    """7x7 depthwise convolution, LayerNorm and an MLP at each place, scaled by `gamma`; plus the input."""

    def __init__(self, channels: int, drop: float, gamma: float) -> None:
        super().__init__()
        self.gamma = self.create_parameter([channels], default_initializer=Constant(gamma))
        self.dwconv = conv(channels, channels, 7, 1, 3, channels)
        self.norm = nn.LayerNorm(channels, epsilon=_EPSILON)
        self.pwconv1 = linear(channels, 4 * channels)
        self.act = GELU()
        self.pwconv2 = linear(4 * channels, channels)
        self.drop_path = drop_path(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        y = self.norm(self.dwconv(x).transpose([0, 2, 3, 1]))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + self.drop_path(y.transpose([0, 3, 1, 2]))


class ConvNeXt(TheseusLayer):
    """ConvNeXt: ``downsample_layers[0]``, ``stages[0]``, ``downsample_layers[1]``, ... ``stages[3]``,
    ``norm``, ``head``.

    Args:
        size: tiny, small, base or large.
        drop_path_rate: probability of dropping the last block's branch for a sample in training; that of the
            others falls to 0 at the first.
        layer_scale_init_value: what the channels of a branch are scaled by at the beginning of training.
        head_init_scale: what the classifier's initial weights are multiplied by; above 0.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = tuple(f"stages[{stage}]" for stage in range(4))

    def __init__(
        self,
        *,
        size: str,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        if head_init_scale <= 0:
            raise ConfigError(f"head_init_scale: expected a number above 0, got {head_init_scale}")
        counts, channels = _SIZES[size]
        drops = iter(rising(drop_path_rate, sum(counts)))
        self._path: list[str] = []
        for stage, (count, out) in enumerate(zip(counts, channels, strict=True)):
            if stage == 0:
                down = [conv(input_image_channel, out, 4, 4), ChannelNorm(out, epsilon=_EPSILON)]
            else:
                width = channels[stage - 1]
                down = [ChannelNorm(width, epsilon=_EPSILON), conv(width, out, 2, 2)]
            self._append(f"downsample_layers.{stage}", down)
            blocks = [ConvNeXtBlock(out, next(drops), layer_scale_init_value) for _ in range(count)]
            self._append(f"stages.{stage}", blocks)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.norm = nn.LayerNorm(channels[-1], epsilon=_EPSILON)
        self.head = linear(channels[-1], class_num, scale=head_init_scale)

    def _append(self, name: str, layers: list[nn.Layer]) -> None:
        self.add_sublayer(name, nn.Sequential(*layers))
        self._path.append(name)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        for name in self._path:
            x = getattr(self, name)(x)
        return self.head(self.norm(self.flatten(self.avg_pool(x))))


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int, padding: int = 0, groups: int = 1
) -> nn.Conv2D:
    """Return a convolution with a bias, initialised as the linear layers are."""
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        groups=groups,
        weight_attr=ParamAttr(initializer=trunc_normal()),
        bias_attr=ParamAttr(initializer=Constant(0.0)),
    )


ConvNeXt_tiny = register_network(ConvNeXt, "ConvNeXt_tiny", size="tiny")
ConvNeXt_small = register_network(ConvNeXt, "ConvNeXt_small", size="small")
ConvNeXt_base_224 = register_network(ConvNeXt, "ConvNeXt_base_224", size="base")
ConvNeXt_base_384 = register_network(ConvNeXt, "ConvNeXt_base_384", size="base")
ConvNeXt_large_224 = register_network(ConvNeXt, "ConvNeXt_large_224", size="large")
ConvNeXt_large_384 = register_network(ConvNeXt, "ConvNeXt_large_384", size="large")
