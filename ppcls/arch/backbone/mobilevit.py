"""MobileViT (Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer", arXiv 2110.02178).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import ConvBN, conv, drop_path, dropout
from ppcls.arch.backbone.transformer import MLP, Attention, linear, rising
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_HEADS = 4
_MLP_RATIO = 2
PATCH = 2  # side of a patch: the tokens at one place of all patches attend to each other


class ConvNorm(ConvBN):
    """`ConvBN` whose BatchNorm the official weights call ``norm``."""

    names = ("conv", "norm")


def conv_silu(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> ConvNorm:
    """Return a convolution with BatchNorm and SiLU."""
    return ConvNorm(in_channels, out_channels, kernel, stride, groups, nn.Silu())


class InvertedResidual(nn.Layer):
    """The block of MobileNetV2 with SiLU: expansion, depthwise convolution, projection; plus the input where
    the shape stays.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = in_channels * expand
        self.same = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            conv_silu(in_channels, wide, 1),
            conv_silu(wide, wide, 3, stride, wide),
            conv(wide, out_channels, 1),
            nn.BatchNorm2D(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride], rounded up."""
        y = self.conv(x)
        return x + y if self.same else y


@dataclass(frozen=True)
class Drops:
    """Shares that are dropped in training.

    Attributes:
        values: of the values behind linear layers.
        attention: of the attention weights.
        branch: probability of dropping the branches of a block's last layer for a sample.
    """

    values: float
    attention: float
    branch: float


class EncoderLayer(nn.Layer):
    """Attention and MLP, each behind a LayerNorm and beside a short cut."""

    def __init__(self, dim: int, drops: Drops, branch: float) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, _HEADS, drop=drops.values, attn_drop=drops.attention)
        self.drop_path1 = drop_path(branch)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = MLP(dim, _MLP_RATIO * dim, drops.values, nn.Silu())
        self.drop_path2 = drop_path(branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, L, dim] to the same shape."""
        x = x + self.drop_path1(self.attn(self.attn_norm(x)))
        return x + self.drop_path2(self.mlp(self.mlp_norm(x)))


class Transformer(nn.Layer):
    """Layers of attention and MLP, and a last LayerNorm."""

    def __init__(self, dim: int, depth: int, drops: Drops) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(EncoderLayer(dim, drops, rate) for rate in rising(drops.branch, depth)))
        self.norm = nn.LayerNorm(dim, epsilon=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, L, dim] to the same shape."""
        return self.norm(self.layers(x))


class MobileViTBlock(nn.Layer):
    """A transformer between convolutions, whose output is joined to the input by another convolution.

    Args:
        channels: channels of the input and the output.
        dim: channels of a token.
        depth: layers of the transformer.
        drops: what they drop.
    """

    def __init__(self, channels: int, dim: int, depth: int, drops: Drops) -> None:
        super().__init__()
        self.conv1 = conv_silu(channels, channels, 3)
        self.conv2 = conv(channels, dim, 1)
        self.transformer = Transformer(dim, depth, drops)
        self.conv3 = conv_silu(dim, channels, 1)
        self.conv4 = conv_silu(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape.

        A map of an odd height or width is resized for the transformer, and its output back.
        """
        y = self.conv2(self.conv1(x))
        size = y.shape[2:]
        whole = whole_patches(size)
        y = y if whole == size else resized(y, whole)
        y = join_patches(self.transformer(split_patches(y)), whole)
        y = y if whole == size else resized(y, size)
        return self.conv4(paddle.concat([x, self.conv3(y)], axis=1))


def whole_patches(size: list[int]) -> list[int]:
    """Return height and width of a map, rounded up to whole patches."""
    return [-(-side // PATCH) * PATCH for side in size]


def resized(x: Tensor, size: list[int], corners: bool = False) -> Tensor:
    """Return a map with one row or column more or less, bilinear.

    By sums, because Paddle Inference cannot run its own interpolation through oneDNN.

    Args:
        x: [N, C, H, W].
        size: the height and the width wanted; each differs from that of `x` by at most 1.
        corners: whether the corners stay where they are; otherwise the borders do.
    """
    if size[0] != x.shape[2]:
        longer = [paddle.concat([x[:, :, :1], x], axis=2), paddle.concat([x, x[:, :, -1:]], axis=2)]
        one, two = longer if size[0] > x.shape[2] else [x[:, :, :-1], x[:, :, 1:]]
        share = paddle.to_tensor(shares(x.shape[2], size[0], corners).reshape(-1, 1)).astype(x.dtype)
        x = one * (1.0 - share) + two * share
    if size[1] != x.shape[3]:
        longer = [paddle.concat([x[..., :1], x], axis=3), paddle.concat([x, x[..., -1:]], axis=3)]
        one, two = longer if size[1] > x.shape[3] else [x[..., :-1], x[..., 1:]]
        share = paddle.to_tensor(shares(x.shape[3], size[1], corners)).astype(x.dtype)
        x = one * (1.0 - share) + two * share
    return x


def shares(old: int, new: int, corners: bool) -> np.ndarray:
    """Return for each of `new` places on a line of `old` values the share of the second of its neighbours.

    Place i lies between the values i - 1 and i if there is one place more than values, else between i and
    i + 1.
    """
    index = np.arange(new)
    places = index * ((old - 1) / max(new - 1, 1)) if corners else (index + 0.5) * old / new - 0.5
    return (np.clip(places, 0, old - 1) - (index - (new > old))).astype("float32")


def split_patches(x: Tensor) -> Tensor:
    """Return the pixels of a map by their place in a patch.

    Args:
        x: [N, C, H, W] of even sides.

    Returns:
        [4 N, H W / 4, C]: the upper left pixels of all patches of an image, then the upper right ones, ...
    """
    _, channels, height, width = x.shape
    x = x.reshape([-1, channels, height // PATCH, PATCH, width // PATCH, PATCH])
    return x.transpose([0, 3, 5, 2, 4, 1]).flatten(0, 2).flatten(1, 2)


def join_patches(x: Tensor, size: list[int]) -> Tensor:
    """Return the map [N, C, H, W] of height and width `size` that `split_patches` made `x` of."""
    height, width = size
    x = x.reshape([-1, PATCH, PATCH, height // PATCH, width // PATCH, x.shape[2]])
    return x.transpose([0, 5, 3, 1, 4, 2]).flatten(4, 5).flatten(2, 3)


@dataclass(frozen=True)
class Spec:
    """The shape of a MobileViT.

    Attributes:
        widths: channels of the stages at stride 2, 4, 8, 16 and 32 and of the features.
        dims: channels of the tokens at stride 8, 16 and 32.
        expand: what the inverted residuals multiply the channels by.
    """

    widths: tuple[int, int, int, int, int, int]
    dims: tuple[int, int, int]
    expand: int = 4


_STEM = 16
_DEPTHS = (2, 4, 3)


class MobileViT(TheseusLayer):
    """MobileViT: ``conv3x3``, ``mv2_block_1`` ... ``mv2_block_5``, ``mvit_block_1``, ``mv2_block_6``,
    ``mvit_block_2``, ``mv2_block_7``, ``mvit_block_3``, ``conv1x1``, ``linear``.

    Published for images of 256 pixels; every size is taken.

    Args:
        spec: the shape of the network.
        drop_rate: share of the values dropped behind the linear layers of the transformers.
        attn_drop_rate: share of the attention weights dropped.
        drop_path_rate: probability of dropping the branches of the last layer of each transformer for a
            sample in training; that of the others falls to 0 at its first.
        dropout_prob: share of the features dropped before the classifier; null for none.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = ("mv2_block_1", "mv2_block_4", "mvit_block_1", "mvit_block_2", "mvit_block_3")

    def __init__(
        self,
        *,
        spec: Spec,
        drop_rate: float = 0.1,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dropout_prob: float | None = 0.1,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        drops = Drops(drop_rate, attn_drop_rate, drop_path_rate)
        first, second, *others, features = spec.widths
        self.conv3x3 = conv_silu(input_image_channel, _STEM, 3, 2)
        self.mv2_block_1 = InvertedResidual(_STEM, first, 1, spec.expand)
        self.mv2_block_2 = InvertedResidual(first, second, 2, spec.expand)
        self.mv2_block_3 = InvertedResidual(second, second, 1, spec.expand)
        self.mv2_block_4 = InvertedResidual(second, second, 1, spec.expand)
        self._later = []
        width = second
        for stage, (channels, dim, depth) in enumerate(zip(others, spec.dims, _DEPTHS, strict=True), 1):
            inverted, block = f"mv2_block_{stage + 4}", f"mvit_block_{stage}"
            self.add_sublayer(inverted, InvertedResidual(width, channels, 2, spec.expand))
            self.add_sublayer(block, MobileViTBlock(channels, dim, depth, drops))
            self._later += [inverted, block]
            width = channels
        self.conv1x1 = conv_silu(width, features, 1)
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.dropout = dropout(dropout_prob)
        self.linear = linear(features, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.mv2_block_2(self.mv2_block_1(self.conv3x3(x)))
        x = self.mv2_block_4(self.mv2_block_3(x))
        for name in self._later:
            x = getattr(self, name)(x)
        return self.linear(self.dropout(self.flatten(self.pool(self.conv1x1(x)))))


_XXS = Spec((16, 24, 48, 64, 80, 320), (64, 80, 96), expand=2)
_XS = Spec((32, 48, 64, 80, 96, 384), (96, 120, 144))
_S = Spec((32, 64, 96, 128, 160, 640), (144, 192, 240))

MobileViT_XXS = register_network(MobileViT, "MobileViT_XXS", spec=_XXS)
MobileViT_XS = register_network(MobileViT, "MobileViT_XS", spec=_XS)
MobileViT_S = register_network(MobileViT, "MobileViT_S", spec=_S)
