"""Swin Transformer (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
arXiv 2103.14030).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import drop_path, dropout
from ppcls.arch.backbone.transformer import MLP, Attention, PatchEmbed, linear, rising, trunc_normal
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_PATCH = 4


@dataclass(frozen=True)
class Drops:
    """Shares that are dropped in training.

    Attributes:
        values: of the values behind linear layers.
        attention: of the attention weights.
    """

    values: float = 0.0
    attention: float = 0.0


_NO_DROPS = Drops()


class WindowAttention(Attention):
    """Self attention of the tokens of a window, with a learnt bias for each relative place and head."""

    def __init__(self, dim: int, heads: int, window: int, drops: Drops) -> None:
        super().__init__(dim, heads, drop=drops.values, attn_drop=drops.attention)
        self.relative_position_bias_table = self.create_parameter(
            [(2 * window - 1) ** 2, heads], default_initializer=trunc_normal()
        )
        # Official weights hold the table of indices, too.
        self.register_buffer("relative_position_index", paddle.to_tensor(relative_places(window)))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map windows [N, window ** 2, dim] to the same shape.

        Args:
            x: the windows, those of one image after each other.
            bias: [windows of an image, 1, window ** 2, window ** 2], added to the scores; None for 0.
        """
        places = F.embedding(self.relative_position_index, self.relative_position_bias_table)
        places = places.transpose([2, 0, 1]).unsqueeze(0)
        return super().forward(x, places if bias is None else places + bias)


class SwinBlock(nn.Layer):
    """Attention inside windows, which may be shifted by half a window, and MLP.

    A map that the windows do not fill is padded by zeros below and on the right.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shifted: bool,
        drop_branch: float,
        shift_single_window: bool,
        drops: Drops = _NO_DROPS,
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.shift_single_window = shift_single_window
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, drops)
        self.drop_path1 = drop_path(drop_branch)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim, drops.values)
        self.drop_path2 = drop_path(drop_branch)

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Map tokens [N, rows columns, dim] to the same shape."""
        x = x + self.drop_path1(self._attend(self.norm1(x), rows, columns))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, rows: int, columns: int) -> Tensor:
        single = min(rows, columns) <= self.window and not self.shift_single_window
        return attend_in_windows(self.attn, x, rows, columns, self.window, self.shifted and not single)


def attend_in_windows(
    attn: nn.Layer, x: Tensor, rows: int, columns: int, window: int, shifted: bool
) -> Tensor:
    """Apply attention to each window of a map by itself.

    Args:
        attn: the attention; it is called with windows [G, window ** 2, dim], those of one image after each
            other, and with a bias of its scores or None.
        x: tokens [N, rows columns, dim].
        rows: height of the map.
        columns: width of the map.
        window: side of a window; a map that windows do not fill is padded by zeros below and on the right.
        shifted: whether windows begin half a window further down and right.

    Returns:
        tokens in the shape of `x`.
    """
    dim = x.shape[2]
    height, width = (-(-size // window) * window for size in (rows, columns))
    x = x.reshape([-1, rows, columns, dim])
    x = padded(x, height, width)
    shift = window // 2 if shifted else 0
    x = rolled(x, shift)
    x = x.reshape([-1, height // window, window, width // window, window, dim])
    # Flattened and not reshaped: Paddle Inference's oneDNN passes lose a reshape behind a transpose.
    x = x.transpose([0, 1, 3, 2, 4, 5]).flatten(0, 2).flatten(1, 2)
    x = attn(x, neighbours_by_roll(height, width, window) if shift else None)
    x = x.reshape([-1, height // window, width // window, window, window, dim])
    x = x.transpose([0, 1, 3, 2, 4, 5]).flatten(3, 4).flatten(1, 2)
    x = rolled(x, -shift)
    return x[:, :rows, :columns].reshape([-1, rows * columns, dim])


def neighbours_by_roll(height: int, width: int, window: int) -> Tensor:
    """Return -100 for pairs of tokens that are neighbours by the roll alone, 0 for the others.

    Returns:
        [windows, 1, window ** 2, window ** 2].
    """
    parts = paddle.to_tensor(regions(height, width, window))
    apart = (parts.unsqueeze(2) != parts.unsqueeze(1)).astype("float32")
    return (apart * -100.0).unsqueeze(1)


class PatchMerging(nn.Layer):
    """2x2 neighbours as one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Map tokens [N, rows columns, dim] to [N, rows / 2 columns / 2, 2 dim], rounded up."""
        return self.reduction(self.norm(neighbours(x, rows, columns)))


def padded(x: Tensor, height: int, width: int) -> Tensor:
    """Return a map [N, H, W, C] with zeros below and on the right, up to [N, height, width, C].

    Zeros are joined to it: Paddle Inference with oneDNN fails at a `pad` of maps with channels last.
    """
    if height > x.shape[1]:
        x = paddle.concat([x, *[paddle.zeros_like(x[:, :1])] * (height - x.shape[1])], 1)
    if width > x.shape[2]:
        x = paddle.concat([x, *[paddle.zeros_like(x[:, :, :1])] * (width - x.shape[2])], 2)
    return x


def neighbours(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return 2x2 neighbours of a map as one token: [N, rows columns, dim] as [N, ..., 4 dim].

    A map of an odd height or width is padded by zeros.
    """
    dim = x.shape[2]
    x = x.reshape([-1, rows, columns, dim])
    x = padded(x, rows + rows % 2, columns + columns % 2)
    parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return paddle.concat(parts, axis=3).reshape([-1, (rows + 1) // 2 * ((columns + 1) // 2), 4 * dim])


class Stage(nn.Layer):
    """Blocks, and the merging of patches that ends all stages but the last."""

    def __init__(self, blocks: Sequence[nn.Layer], downsample: nn.Layer | None) -> None:
        super().__init__()
        self.blocks = nn.LayerList(blocks)
        self.merge = downsample is not None
        if downsample is not None:
            self.downsample = downsample

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Map tokens [N, rows columns, dim] to those of the next stage."""
        for block in self.blocks:
            x = block(x, rows, columns)
        return self.downsample(x, rows, columns) if self.merge else x


@dataclass(frozen=True)
class Spec:
    """The shape of a Swin Transformer.

    Attributes:
        dim: channels of a token in the first stage; they double from stage to stage.
        depths: blocks of the stages.
        heads: heads of the stages.
        window: side of a window in tokens.
        drop: default of `drop_path_rate`.
    """

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    drop: float = 0.2


class WindowTransformer(TheseusLayer):
    """Patches as tokens, stages of blocks whose attention is inside windows, norm, mean and classifier.

    Args:
        dim: channels of a token in the first stage; they double from stage to stage.
        stages: the stages, made while they are read.
        drop_rate: share of the values dropped behind the patch embedding.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = tuple(f"layers[{stage}]" for stage in range(4))

    def __init__(
        self, dim: int, stages: Iterable[Stage], drop_rate: float, class_num: int, input_image_channel: int
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(input_image_channel, dim, _PATCH, norm=True)
        self.pos_drop = dropout(drop_rate)
        self.layers = nn.LayerList(list(stages))
        last = dim * 2 ** (len(self.layers) - 1)
        self.norm = nn.LayerNorm(last)
        self.avg_pool = nn.AdaptiveAvgPool1D(1)
        self.flatten = nn.Flatten()
        self.head = linear(last, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num].

        Raises:
            ConfigError: if an image is smaller than a patch.
        """
        rows = x.shape[2] // _PATCH
        columns = x.shape[3] // _PATCH
        x = self.pos_drop(self.patch_embed(x))
        for layer in self.layers:
            x = layer(x, rows, columns)
            rows = (rows + 1) // 2
            columns = (columns + 1) // 2
        return self.head(self.flatten(self.avg_pool(self.norm(x).transpose([0, 2, 1]))))


class SwinTransformer(WindowTransformer):
    """Swin Transformer: ``patch_embed``, ``layers[0]`` ... ``layers[3]``, ``norm``, ``head``.

    The outputs of the stages, ``layers[i]``, are tokens [N, places, channels] after the merging that ends a
    stage. Images of any size are taken: maps are padded to whole windows.

    Args:
        spec: the shape of the network.
        drop_path_rate: probability of dropping the last block's branches for a sample in training; that of
            the others falls to 0 at the first (default: 0.2 for tiny, 0.3 for small, 0.5 for base, 0.1 for
            large).
        drop_rate: share of the values dropped behind the patch embedding and the linear layers of blocks.
        attn_drop_rate: share of the attention weights dropped.
        shift_single_window: shift also where a map is one window, as the official weights of Paddle need it.
            The original implementation and PyTorch's do not, so their weights need False.
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
        shift_single_window: bool = True,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        drops = Drops(drop_rate, attn_drop_rate)
        rate = spec.drop if drop_path_rate is None else drop_path_rate
        stages = _stages(spec, rate, drops, shift_single_window)
        super().__init__(spec.dim, stages, drop_rate, class_num, input_image_channel)
        self.shift_single_window = shift_single_window


def _stages(spec: Spec, drop_path_rate: float, drops: Drops, shift_single_window: bool) -> Iterator[Stage]:
    rates = iter(rising(drop_path_rate, sum(spec.depths)))
    for stage, (depth, heads) in enumerate(zip(spec.depths, spec.heads, strict=True)):
        dim = spec.dim * 2**stage
        blocks = [
            SwinBlock(dim, heads, spec.window, index % 2 == 1, next(rates), shift_single_window, drops)
            for index in range(depth)
        ]
        yield Stage(blocks, PatchMerging(dim) if stage < len(spec.depths) - 1 else None)


def relative_places(window: int) -> np.ndarray:
    """Return for each pair of tokens of a window which row of the bias table is theirs.

    Returns:
        int64 [window ** 2, window ** 2]; the differences of rows and columns count from 0 to 2 (window - 1),
        that of rows first.
    """
    row, column = np.divmod(np.arange(window**2), window)
    rows, columns = (place[:, None] - place[None] + window - 1 for place in (row, column))
    return (rows * (2 * window - 1) + columns).astype("int64")


def regions(height: int, width: int, window: int) -> np.ndarray:
    """Return which tokens of each window belong together on a map rolled by half a window.

    Along each axis, the last window holds what was there before and, in its last ``window // 2`` places, what
    the roll brought from the other end.

    Returns:
        int64 [windows, window ** 2]: tokens of a window with the same number belong together.
    """
    rows, columns = (
        (np.arange(size) >= size - window // 2).astype("int64").reshape(-1, window)
        for size in (height, width)
    )
    parts = 2 * rows[:, None, :, None] + columns[None, :, None, :]
    return parts.reshape(-1, window**2)


def rolled(x: Tensor, shift: int) -> Tensor:
    """Return a map [N, H, W, C] that begins at row and column `shift` and continues at the other end.

    By slices, because `paddle.roll` cannot be exported in the older format.
    """
    if not shift:
        return x
    x = paddle.concat([x[:, shift:], x[:, :shift]], axis=1)
    return paddle.concat([x[:, :, shift:], x[:, :, :shift]], axis=2)


_TINY = Spec(96, (2, 2, 6, 2), (3, 6, 12, 24))
_SMALL = Spec(96, (2, 2, 18, 2), (3, 6, 12, 24), drop=0.3)
_BASE = Spec(128, (2, 2, 18, 2), (4, 8, 16, 32), drop=0.5)
_BASE_384 = Spec(128, (2, 2, 18, 2), (4, 8, 16, 32), window=12, drop=0.5)
_LARGE = Spec(192, (2, 2, 18, 2), (6, 12, 24, 48), drop=0.1)
_LARGE_384 = Spec(192, (2, 2, 18, 2), (6, 12, 24, 48), window=12, drop=0.1)

SwinTransformer_tiny_patch4_window7_224 = register_network(
    SwinTransformer, "SwinTransformer_tiny_patch4_window7_224", spec=_TINY
)
SwinTransformer_small_patch4_window7_224 = register_network(
    SwinTransformer, "SwinTransformer_small_patch4_window7_224", spec=_SMALL
)
SwinTransformer_base_patch4_window7_224 = register_network(
    SwinTransformer, "SwinTransformer_base_patch4_window7_224", spec=_BASE
)
SwinTransformer_base_patch4_window12_384 = register_network(
    SwinTransformer, "SwinTransformer_base_patch4_window12_384", spec=_BASE_384
)
SwinTransformer_large_patch4_window7_224 = register_network(
    SwinTransformer, "SwinTransformer_large_patch4_window7_224", spec=_LARGE
)
SwinTransformer_large_patch4_window12_384 = register_network(
    SwinTransformer, "SwinTransformer_large_patch4_window12_384", spec=_LARGE_384
)
