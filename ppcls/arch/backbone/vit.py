"""Vision Transformer (Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale", arXiv 2010.11929).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.arch.backbone.layers import dropout
from ppcls.arch.backbone.transformer import Attention, Block, PatchEmbed, linear, rising, trunc_normal
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer


@dataclass(frozen=True)
class Spec:
    """The shape of a Vision Transformer.

    Attributes:
        dim: channels of a token.
        depth: number of blocks.
        heads: number of heads.
        patch: side of a patch.
        image_size: side of the images that the position embedding is made for.
        mlp_ratio: what the channels are multiplied by inside the MLP.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        scale: factor on the products of queries and keys (None: 1 / sqrt(channels of a head)).
        epsilon: added to the variance in the LayerNorms.
    """

    dim: int
    depth: int
    heads: int
    patch: int = 16
    image_size: int = 224
    mlp_ratio: int = 4
    qkv_bias: bool = True
    scale: float | None = None
    epsilon: float = 1e-6


class VisionTransformer(TheseusLayer):
    """Vision Transformer: ``patch_embed``, ``blocks[0]`` ... ``blocks[n]``, ``norm``, ``head``.

    The outputs of the blocks are tokens [N, 1 + patches, channels]; the class token comes first. Four blocks
    count as ends of stages: those after each quarter of the depth. An image of another size than the network
    was made for gets its position embedding by bicubic interpolation; a margin narrower than a patch is cut.

    Args:
        spec: the shape of the network.
        drop_path_rate: probability of dropping the last block's branches for a sample in training; that of
            the others falls to 0 at the first.
        drop_rate: share of the values dropped behind the position embedding and the linear layers of blocks.
        attn_drop_rate: share of the attention weights dropped.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    extra_tokens = 1

    def __init__(
        self,
        *,
        spec: Spec,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        self.grid = spec.image_size // spec.patch
        self.pos_embed = self._parameter(self.extra_tokens + self.grid**2, spec.dim)
        self.cls_token = self._parameter(1, spec.dim)
        self.patch_embed = PatchEmbed(input_image_channel, spec.dim, spec.patch)
        self.pos_drop = dropout(drop_rate)
        blocks = []
        for drop in rising(drop_path_rate, spec.depth):
            attention = Attention(spec.dim, spec.heads, spec.qkv_bias, spec.scale, drop_rate, attn_drop_rate)
            blocks.append(Block(spec.dim, attention, spec.mlp_ratio, drop, spec.epsilon, drop_rate))
        self.blocks = nn.Sequential(*blocks)
        self.stages_pattern = tuple(f"blocks[{spec.depth * quarter // 4 - 1}]" for quarter in (1, 2, 3, 4))
        self.norm = nn.LayerNorm(spec.dim, epsilon=spec.epsilon)
        self.head = linear(spec.dim, class_num)

    def _parameter(self, tokens: int, dim: int) -> Tensor:
        return self.create_parameter([1, tokens, dim], default_initializer=trunc_normal())

    def tokens(self, x: Tensor, first: list[Tensor]) -> Tensor:
        """Map images [N, C, H, W] to the tokens after the last norm, [N, len(first) + patches, channels].

        Raises:
            ConfigError: if an image is smaller than a patch.
        """
        patch = self.patch_embed.patch
        rows = x.shape[2] // patch
        columns = x.shape[3] // patch
        x = self.patch_embed(x)
        none = paddle.zeros_like(x[:, :1])  # added and not expanded to: an export has no number of images
        heads = [token + none for token in first]
        x = paddle.concat([*heads, x], axis=1) + self._positions(rows, columns)
        return self.norm(self.blocks(self.pos_drop(x)))

    def _positions(self, rows: int, columns: int) -> Tensor:
        if rows == self.grid and columns == self.grid:
            return self.pos_embed
        extra = self.pos_embed[:, : self.extra_tokens]
        places = self.pos_embed[:, self.extra_tokens :]
        places = places.transpose([0, 2, 1]).reshape([1, -1, self.grid, self.grid])
        places = F.interpolate(places, size=[rows, columns], mode="bicubic")
        return paddle.concat([extra, places.flatten(2).transpose([0, 2, 1])], axis=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        return self.head(self.tokens(x, [self.cls_token])[:, 0])


# The public small network is narrower inside the MLP and scales by the channels of all heads together.
_SMALL = Spec(768, 8, 8, mlp_ratio=3, qkv_bias=False, scale=768**-0.5, epsilon=1e-5)
_BASE = Spec(768, 12, 12)
_LARGE = Spec(1024, 24, 16)

ViT_small_patch16_224 = register_network(VisionTransformer, "ViT_small_patch16_224", spec=_SMALL)
ViT_base_patch16_224 = register_network(VisionTransformer, "ViT_base_patch16_224", spec=_BASE)
ViT_base_patch16_384 = register_network(
    VisionTransformer, "ViT_base_patch16_384", spec=replace(_BASE, image_size=384)
)
ViT_base_patch32_384 = register_network(
    VisionTransformer, "ViT_base_patch32_384", spec=replace(_BASE, image_size=384, patch=32)
)
ViT_large_patch16_224 = register_network(VisionTransformer, "ViT_large_patch16_224", spec=_LARGE)
ViT_large_patch16_384 = register_network(
    VisionTransformer, "ViT_large_patch16_384", spec=replace(_LARGE, image_size=384)
)
ViT_large_patch32_384 = register_network(
    VisionTransformer, "ViT_large_patch32_384", spec=replace(_LARGE, image_size=384, patch=32)
)
