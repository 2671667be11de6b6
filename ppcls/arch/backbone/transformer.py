"""Blocks that several transformers share.

Vaswani et al., "Attention Is All You Need", arXiv 1706.03762, in the form of Dosovitskiy et al., "An Image is
Worth 16x16 Words", arXiv 2010.11929: the norm stands before attention and MLP. A map of H x W tokens of C
channels is [N, H W, C].
"""

from __future__ import annotations

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import Constant, TruncatedNormal

from ppcls.arch.backbone.layers import GELU, drop_path, dropout
from ppcls.errors import ConfigError


def trunc_normal(scale: float = 1.0) -> TruncatedNormal:
    """Return the initialisation of weights: a normal distribution of deviation 0.02 `scale`, cut off."""
    return TruncatedNormal(std=0.02 * scale)


def linear(in_features: int, out_features: int, bias: bool = True, scale: float = 1.0) -> nn.Linear:
    """Return a linear layer, initialised by `trunc_normal` times `scale` and with a bias of 0."""
    return nn.Linear(
        in_features,
        out_features,
        weight_attr=ParamAttr(initializer=trunc_normal(scale)),
        bias_attr=ParamAttr(initializer=Constant(0.0)) if bias else False,
    )


class PatchEmbed(nn.Layer):
    """Each patch of the image as one token.

    Args:
        image: channels of the images.
        dim: channels of a token.
        patch: side of a patch.
        norm: whether LayerNorm follows.
    """

    def __init__(self, image: int, dim: int, patch: int, norm: bool = False) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2D(image, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, image, H, W] to tokens [N, (H // patch) (W // patch), dim].

        Raises:
            ConfigError: if the images are smaller than a patch.
        """
        height = x.shape[2]
        width = x.shape[3]
        if min(height, width) < self.patch:
            side = self.patch
            raise ConfigError(
                f"images of {height} x {width} pixels are smaller than a patch ({side} x {side})"
            )
        return self.norm(self.proj(x).flatten(2).transpose([0, 2, 1]))


class Attention(nn.Layer):
    """Self attention with several heads.

    Args:
        dim: channels of a token.
        heads: number of heads; they share the channels equally.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        scale: factor on the products of queries and keys (default: 1 / sqrt(channels of a head)).
        drop: share of the output's values that is dropped in training.
        attn_drop: share of the attention weights that is dropped in training.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5 if scale is None else scale
        self.qkv = linear(dim, 3 * dim, qkv_bias)
        self.softmax = nn.Softmax()
        self.attn_drop = dropout(attn_drop)
        self.proj = linear(dim, dim)
        self.proj_drop = dropout(drop)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map sequences of tokens [N, L, dim] to [N, L, dim].

        Args:
            x: the tokens.
            bias: [G, heads, L, L], added to the scores; sequence n takes the one at ``n % G``.
        """
        length = x.shape[1]
        dim = x.shape[2]
        qkv = self.qkv(x).reshape([-1, length, 3, self.heads, dim // self.heads]).transpose([2, 0, 3, 1, 4])
        scores = (qkv[0] * self.scale) @ qkv[1].transpose([0, 1, 3, 2])
        if bias is not None:
            shape = [-1, bias.shape[0] * self.heads, length, length]
            scores = (scores.reshape(shape) + bias.reshape(shape)).reshape([-1, self.heads, length, length])
        attended = self.attn_drop(self.softmax(scores)) @ qkv[2]
        return self.proj_drop(self.proj(attended.transpose([0, 2, 1, 3]).flatten(2)))


class MLP(nn.Layer):
    """Two linear layers with an activation between (default: GELU).

    In training a share `drop` of the values is dropped behind each of the linear layers.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0, act: nn.Layer | None = None) -> None:
        super().__init__()
        self.fc1 = linear(dim, hidden)
        self.act = GELU() if act is None else act
        self.drop1 = dropout(drop)
        self.fc2 = linear(hidden, dim)
        self.drop2 = dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., dim] to [..., dim]."""
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))


class Block(nn.Layer):
    """Attention and MLP, each behind a LayerNorm and beside a short cut.

    Args:
        dim: channels of a token.
        attn: the attention.
        mlp_ratio: what the channels are multiplied by inside the MLP.
        drop_branch: probability of dropping a branch for a sample in training.
        epsilon: added to the variance in the LayerNorms.
        drop: share of the values that the MLP drops in training.
    """

    def __init__(
        self, dim: int, attn: nn.Layer, mlp_ratio: int, drop_branch: float, epsilon: float, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon=epsilon)
        self.attn = attn
        self.drop_path1 = drop_path(drop_branch)
        self.norm2 = nn.LayerNorm(dim, epsilon=epsilon)
        self.mlp = MLP(dim, mlp_ratio * dim, drop)
        self.drop_path2 = drop_path(drop_branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, L, dim] to [N, L, dim]."""
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def rising(rate: float, count: int) -> list[float]:
    """Return `count` drop probabilities that rise evenly from 0 at the first block to `rate` at the last."""
    return [rate * index / max(count - 1, 1) for index in range(count)]
