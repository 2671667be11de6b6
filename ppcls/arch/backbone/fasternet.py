"""FasterNet (Chen et al., "Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks", arXiv
2303.03667).
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant

from ppcls.arch.backbone.layers import GELU, drop_path
from ppcls.arch.backbone.transformer import linear, rising, trunc_normal
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.errors import ConfigError

_FEATURES = 1280
_PATCH = 4
_SMALLEST = 32  # pixels: 4 in the first stage, halved three times


class PartialConv(nn.Layer):
    """3x3 convolution of the first quarter of the channels; the others stay as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixed = channels // 4
        self.partial_conv3 = conv(self.mixed, self.mixed, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        return paddle.concat([self.partial_conv3(x[:, : self.mixed]), x[:, self.mixed :]], axis=1)


class FasterBlock(nn.Layer):
    """Partial convolution and two 1x1 convolutions with BatchNorm and an activation between; plus the input.

    Args:
        channels: channels of the input.
        act: the activation.
        drop: probability of dropping the branch for a sample in training.
        scale: what the channels of the branch are scaled by at the beginning of training; 0 for no scales.
    """

    def __init__(self, channels: int, act: nn.Layer, drop: float, scale: float) -> None:
        super().__init__()
        self.layer_scale = (
            self.create_parameter([channels], default_initializer=Constant(scale)) if scale else None
        )
        self.spatial_mixing = PartialConv(channels)
        wide = 2 * channels
        self.mlp = nn.Sequential(conv(channels, wide, 1), nn.BatchNorm2D(wide), act, conv(wide, channels, 1))
        self.drop_path = drop_path(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        y = self.mlp(self.spatial_mixing(x))
        if self.layer_scale is not None:
            y = y * self.layer_scale.reshape([1, -1, 1, 1])
        return x + self.drop_path(y)


class Stage(nn.Layer):
    """The blocks of a stage, one after the other."""

    def __init__(self, blocks: list[FasterBlock]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return self.blocks(x)


class Embedding(nn.Layer):
    """Each patch of a map as one place, by a convolution that is as large as its stride, and BatchNorm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        patch: side of a patch; what does not fill one at the end of the map is left out.
        name: name of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, patch: int, name: str) -> None:
        super().__init__()
        self.conv_name = name
        self.add_sublayer(name, conv(in_channels, out_channels, patch, patch))
        self.norm = nn.BatchNorm2D(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H // patch, W // patch]."""
        return self.norm(getattr(self, self.conv_name)(x))


@dataclass(frozen=True)
class Spec:
    """The shape of a FasterNet.

    Attributes:
        dim: channels of the first stage; they double from stage to stage.
        depths: blocks of the stages.
        drop: default of `drop_path_rate`.
        gelu: whether the activation is GELU; otherwise it is ReLU.
    """

    dim: int
    depths: tuple[int, ...]
    drop: float
    gelu: bool = False


class FasterNet(TheseusLayer):
    """FasterNet: ``patch_embed``, ``stages[0]`` ... ``stages[6]``, ``avgpool_pre_head``, ``head``.

    Every other one of ``stages`` halves the map; the stages themselves are ``stages[0]``, ``[2]``, ``[4]``
    and ``[6]``.

    Args:
        spec: the shape of the network.
        drop_path_rate: probability of dropping the last block's branch for a sample in training; that of the
            others falls to 0 at the first (default: 0 for T0, 0.02 for T1, 0.05 for T2, 0.1 for S, 0.2 for M,
            0.3 for L).
        layer_scale_init_value: what the channels of a branch are scaled by at the beginning of training. With
            0, as in the official weights, there are no scales.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = tuple(f"stages[{stage}]" for stage in (0, 2, 4, 6))

    def __init__(
        self,
        *,
        spec: Spec,
        drop_path_rate: float | None = None,
        layer_scale_init_value: float = 0.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        act = GELU if spec.gelu else nn.ReLU
        rates = iter(rising(spec.drop if drop_path_rate is None else drop_path_rate, sum(spec.depths)))
        self.patch_embed = Embedding(input_image_channel, spec.dim, _PATCH, "proj")
        parts: list[nn.Layer] = []
        width = spec.dim
        for stage, depth in enumerate(spec.depths):
            if stage:
                parts.append(Embedding(width, 2 * width, 2, "reduction"))
                width *= 2
            blocks = [FasterBlock(width, act(), next(rates), layer_scale_init_value) for _ in range(depth)]
            parts.append(Stage(blocks))
        self.stages = nn.Sequential(*parts)
        self.avgpool_pre_head = nn.Sequential(nn.AdaptiveAvgPool2D(1), conv(width, _FEATURES, 1), act())
        self.flatten = nn.Flatten()
        self.head = linear(_FEATURES, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num].

        Raises:
            ConfigError: if an image is smaller than 32 pixels.
        """
        height = x.shape[2]
        width = x.shape[3]
        if 0 < min(height, width) < _SMALLEST:
            raise ConfigError(
                f"images of {height} x {width} pixels: FasterNet needs at least {_SMALLEST} x {_SMALLEST}"
            )
        x = self.avgpool_pre_head(self.stages(self.patch_embed(x)))
        return self.head(self.flatten(x))


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> Conv2D:
    """Return a convolution without bias, initialised as linear layers of transformers are."""
    return Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        weight_attr=ParamAttr(initializer=trunc_normal()),
        bias_attr=False,
    )


_T0 = Spec(40, (1, 2, 8, 2), 0.0, gelu=True)
_T1 = Spec(64, (1, 2, 8, 2), 0.02, gelu=True)
_T2 = Spec(96, (1, 2, 8, 2), 0.05)
_S = Spec(128, (1, 2, 13, 2), 0.1)
_M = Spec(144, (3, 4, 18, 3), 0.2)
_L = Spec(192, (3, 4, 18, 3), 0.3)

FasterNet_T0 = register_network(FasterNet, "FasterNet_T0", spec=_T0)
FasterNet_T1 = register_network(FasterNet, "FasterNet_T1", spec=_T1)
FasterNet_T2 = register_network(FasterNet, "FasterNet_T2", spec=_T2)
FasterNet_S = register_network(FasterNet, "FasterNet_S", spec=_S)
FasterNet_M = register_network(FasterNet, "FasterNet_M", spec=_M)
FasterNet_L = register_network(FasterNet, "FasterNet_L", spec=_L)
