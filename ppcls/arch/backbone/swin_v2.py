"""Swin Transformer V2 (Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", arXiv
2111.09883).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant
from paddle.regularizer import L2Decay

from ppcls.arch.backbone.layers import Sigmoid, drop_path, dropout
from ppcls.arch.backbone.swin import (
    Drops,
    Stage,
    WindowTransformer,
    attend_in_windows,
    neighbours,
    relative_places,
)
from ppcls.arch.backbone.transformer import MLP, linear, rising, trunc_normal
from ppcls.arch.network import register_network

_PATCH = 4
_BIAS_FEATURES = 512  # of the network that makes the biases of places
_LARGEST_BIAS = 16.0
_FIRST_SCALE = 10.0
_LARGEST_SCALE = 100.0
_SHORTEST = 1e-12  # square of the length that a query or key at least counts as


class CosineAttention(nn.Layer):
    """Self attention of the tokens of a window by the cosine of queries and keys.

    A small network makes the bias of each head from the logarithm of the distance of two places, so that it
    fits windows of another size. Neither it nor the scale of the cosines is decayed by the optimizer, as in
    the original implementation.

    Args:
        dim: channels of a token.
        heads: number of heads; they share the channels equally.
        window: side of the window in tokens.
        trained_window: side of the window that distances are measured by, where weights were trained with
            another one before (default: `window`).
        drops: what is dropped in training.
    """

    def __init__(self, dim: int, heads: int, window: int, trained_window: int, drops: Drops) -> None:
        super().__init__()
        self.heads = heads
        self.logit_scale = self.create_parameter(
            [heads, 1, 1],
            attr=ParamAttr(regularizer=L2Decay(0.0)),
            default_initializer=Constant(math.log(_FIRST_SCALE)),
        )
        self.q_bias = self.create_parameter([dim], default_initializer=Constant(0.0))
        self.v_bias = self.create_parameter([dim], default_initializer=Constant(0.0))
        self.cpb_mlp = nn.Sequential(
            _undecayed(2, _BIAS_FEATURES), nn.ReLU(), _undecayed(_BIAS_FEATURES, heads, bias=False)
        )
        self.sigmoid = Sigmoid()
        self.qkv = linear(dim, 3 * dim, bias=False)
        self.softmax = nn.Softmax()
        self.attn_drop = dropout(drops.attention)
        self.proj = linear(dim, dim)
        self.proj_drop = dropout(drops.values)
        self.distances = log_distances(window, trained_window)
        self.places = relative_places(window)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map windows [N, window ** 2, dim] to the same shape.

        Args:
            x: the windows, those of one image after each other.
            bias: [windows of an image, 1, window ** 2, window ** 2], added to the scores; None for 0.
        """
        table = self.sigmoid(self.cpb_mlp(paddle.to_tensor(self.distances))) * _LARGEST_BIAS
        added = F.embedding(paddle.to_tensor(self.places), table).transpose([2, 0, 1]).unsqueeze(0)
        added = added if bias is None else added + bias
        length = x.shape[1]
        dim = x.shape[2]
        shift = paddle.concat([self.q_bias, paddle.zeros_like(self.q_bias), self.v_bias])
        qkv = (self.qkv(x) + shift).reshape([-1, length, 3, self.heads, dim // self.heads])
        qkv = qkv.transpose([2, 0, 3, 1, 4])
        scale = math.e ** paddle.clip(self.logit_scale, max=math.log(_LARGEST_SCALE))
        scores = unit(qkv[0]) @ unit(qkv[1]).transpose([0, 1, 3, 2]) * scale
        shape = [-1, added.shape[0] * self.heads, length, length]
        scores = (scores.reshape(shape) + added.reshape(shape)).reshape([-1, self.heads, length, length])
        attended = self.attn_drop(self.softmax(scores)) @ qkv[2]
        return self.proj_drop(self.proj(attended.transpose([0, 2, 1, 3]).flatten(2)))


def unit(x: Tensor) -> Tensor:
    """Return vectors [..., C] divided by their lengths; 0 stays 0, and its gradient is finite."""
    ones = paddle.to_tensor(np.ones((x.shape[-1], 1), "float32")).astype(x.dtype)
    squares = (x * x) @ ones  # and neither sum() nor rsqrt(), which the older format of exports does not have
    return x * paddle.clip(squares, min=_SHORTEST) ** -0.5


def _undecayed(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    none = L2Decay(0.0)
    return nn.Linear(
        in_features,
        out_features,
        weight_attr=ParamAttr(initializer=trunc_normal(), regularizer=none),
        bias_attr=ParamAttr(initializer=Constant(0.0), regularizer=none) if bias else False,
    )


def log_distances(window: int, trained_window: int) -> np.ndarray:
    """Return the distances of places in a window on a logarithmic scale, -1 to 1 for the trained window.

    Returns:
        float32 [(2 window - 1) ** 2, 2]: of rows and of columns, in the order of
        `ppcls.arch.backbone.swin.relative_places`.
    """
    steps = np.arange(1 - window, window) * 8.0 / max(trained_window - 1, 1)
    axis = np.sign(steps) * np.log2(np.abs(steps) + 1.0) / 3.0
    pairs = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=2)
    return pairs.reshape(-1, 2).astype("float32")


class SwinV2Block(nn.Layer):
    """Attention inside windows and MLP, each with a LayerNorm behind it and beside a short cut.

    Args:
        dim: channels of a token.
        attn: the attention.
        window: side of its windows.
        shifted: whether they are shifted by half a window, where a map is larger than one.
        drop_branch: probability of dropping a branch for a sample in training.
        drops: what else is dropped in training.
    """

    def __init__(
        self, dim: int, attn: nn.Layer, window: int, shifted: bool, drop_branch: float, drops: Drops
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.attn = attn
        self.norm1 = nn.LayerNorm(dim)
        self.drop_path1 = drop_path(drop_branch)
        self.mlp = MLP(dim, 4 * dim, drops.values)
        self.norm2 = nn.LayerNorm(dim)
        self.drop_path2 = drop_path(drop_branch)

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Map tokens [N, rows columns, dim] to the same shape."""
        shifted = self.shifted and min(rows, columns) > self.window
        y = attend_in_windows(self.attn, x, rows, columns, self.window, shifted)
        x = x + self.drop_path1(self.norm1(y))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class PatchMergingV2(nn.Layer):
    """2x2 neighbours as one token of twice the channels, normalised afterwards."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Map tokens [N, rows columns, dim] to [N, rows / 2 columns / 2, 2 dim], rounded up."""
        return self.norm(self.reduction(neighbours(x, rows, columns)))


@dataclass(frozen=True)
class Spec:
    """The shape of a Swin Transformer V2.

    Attributes:
        dim: channels of a token in the first stage; they double from stage to stage.
        depths: blocks of the stages.
        heads: heads of the stages.
        window: side of a window in tokens; at most that of the stage's map.
        image_size: side of the images it is published for.
        drop: default of `drop_path_rate`.
        trained: windows of the stages in the training before, on ImageNet-22k; None if there was none.
    """

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    image_size: int = 256
    drop: float = 0.2
    trained: tuple[int, ...] | None = None


class SwinTransformerV2(WindowTransformer):
    """Swin Transformer V2: ``patch_embed``, ``layers[0]`` ... ``layers[3]``, ``norm``, ``head``.

    The outputs of the stages, ``layers[i]``, are tokens [N, places, channels] after the merging that ends a
    stage. Images of any size are taken: maps are padded to whole windows. A window is never larger than the
    map of its stage at the published size.

    Args:
        spec: the shape of the network.
        drop_path_rate: probability of dropping the last block's branches for a sample in training; that of
            the others falls to 0 at the first (default: 0.2; 0.3 for small, 0.5 for base at 256 pixels).
        drop_rate: share of the values dropped behind the patch embedding and the linear layers of blocks.
        attn_drop_rate: share of the attention weights dropped.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        drop_path_rate: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        rate = spec.drop if drop_path_rate is None else drop_path_rate
        stages = _stages(spec, rate, Drops(drop_rate, attn_drop_rate))
        super().__init__(spec.dim, stages, drop_rate, class_num, input_image_channel)


def _stages(spec: Spec, drop_path_rate: float, drops: Drops) -> Iterator[Stage]:
    rates = iter(rising(drop_path_rate, sum(spec.depths)))
    for stage, (depth, heads) in enumerate(zip(spec.depths, spec.heads, strict=True)):
        dim = spec.dim * 2**stage
        window = min(spec.window, spec.image_size // (_PATCH * 2**stage))
        trained = spec.trained[stage] if spec.trained else window
        blocks = []
        for index in range(depth):
            attn = CosineAttention(dim, heads, window, trained, drops)
            blocks.append(SwinV2Block(dim, attn, window, index % 2 == 1, next(rates), drops))
        yield Stage(blocks, PatchMergingV2(dim) if stage < len(spec.depths) - 1 else None)


_TRAINED = (12, 12, 12, 6)
_TINY_8 = Spec(96, (2, 2, 6, 2), (3, 6, 12, 24), 8)
_TINY_16 = Spec(96, (2, 2, 6, 2), (3, 6, 12, 24), 16)
_SMALL_8 = Spec(96, (2, 2, 18, 2), (3, 6, 12, 24), 8, drop=0.3)
_SMALL_16 = Spec(96, (2, 2, 18, 2), (3, 6, 12, 24), 16, drop=0.3)
_BASE_8 = Spec(128, (2, 2, 18, 2), (4, 8, 16, 32), 8, drop=0.5)
_BASE_16 = Spec(128, (2, 2, 18, 2), (4, 8, 16, 32), 16, drop=0.5)
_BASE_24 = Spec(128, (2, 2, 18, 2), (4, 8, 16, 32), 24, 384, trained=_TRAINED)
_LARGE_16 = Spec(192, (2, 2, 18, 2), (6, 12, 24, 48), 16, trained=_TRAINED)
_LARGE_24 = Spec(192, (2, 2, 18, 2), (6, 12, 24, 48), 24, 384, trained=_TRAINED)

SwinTransformerV2_tiny_patch4_window8_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_tiny_patch4_window8_256", spec=_TINY_8
)
SwinTransformerV2_tiny_patch4_window16_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_tiny_patch4_window16_256", spec=_TINY_16
)
SwinTransformerV2_small_patch4_window8_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_small_patch4_window8_256", spec=_SMALL_8
)
SwinTransformerV2_small_patch4_window16_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_small_patch4_window16_256", spec=_SMALL_16
)
SwinTransformerV2_base_patch4_window8_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_base_patch4_window8_256", spec=_BASE_8
)
SwinTransformerV2_base_patch4_window16_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_base_patch4_window16_256", spec=_BASE_16
)
SwinTransformerV2_base_patch4_window24_384 = register_network(
    SwinTransformerV2, "SwinTransformerV2_base_patch4_window24_384", spec=_BASE_24
)
SwinTransformerV2_large_patch4_window16_256 = register_network(
    SwinTransformerV2, "SwinTransformerV2_large_patch4_window16_256", spec=_LARGE_16
)
SwinTransformerV2_large_patch4_window24_384 = register_network(
    SwinTransformerV2, "SwinTransformerV2_large_patch4_window24_384", spec=_LARGE_24
)
