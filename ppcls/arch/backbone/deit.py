"""DeiT (Touvron et al., "Training data-efficient image transformers & distillation through attention", arXiv
2012.12877).
"""

from __future__ import annotations

from dataclasses import replace

from paddle import Tensor

from ppcls.arch.backbone.transformer import linear
from ppcls.arch.backbone.vit import Spec, VisionTransformer
from ppcls.arch.network import register_network


class DistilledTransformer(VisionTransformer):
    """Vision Transformer with a second token, the distillation token, and a head for each of both.

    The logits are the mean of the two heads. Losses that treat them apart (section 4 of the paper) tap them
    with ``return_patterns: [head, head_dist]``. See `VisionTransformer` for the rest; the class token comes
    first, the distillation token second.
    """

    extra_tokens = 2

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
        super().__init__(
            spec=spec,
            drop_path_rate=drop_path_rate,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            class_num=class_num,
            input_image_channel=input_image_channel,
        )
        self.dist_token = self._parameter(1, spec.dim)
        self.head_dist = linear(spec.dim, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.tokens(x, [self.cls_token, self.dist_token])
        return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2


_TINY = Spec(192, 12, 3)
_SMALL = Spec(384, 12, 6)
_BASE = Spec(768, 12, 12)

DeiT_tiny_patch16_224 = register_network(VisionTransformer, "DeiT_tiny_patch16_224", spec=_TINY)
DeiT_small_patch16_224 = register_network(VisionTransformer, "DeiT_small_patch16_224", spec=_SMALL)
DeiT_base_patch16_224 = register_network(VisionTransformer, "DeiT_base_patch16_224", spec=_BASE)
DeiT_tiny_distilled_patch16_224 = register_network(
    DistilledTransformer, "DeiT_tiny_distilled_patch16_224", spec=_TINY
)
DeiT_small_distilled_patch16_224 = register_network(
    DistilledTransformer, "DeiT_small_distilled_patch16_224", spec=_SMALL
)
DeiT_base_distilled_patch16_224 = register_network(
    DistilledTransformer, "DeiT_base_distilled_patch16_224", spec=_BASE
)
DeiT_base_patch16_384 = register_network(
    VisionTransformer, "DeiT_base_patch16_384", spec=replace(_BASE, image_size=384)
)
DeiT_base_distilled_patch16_384 = register_network(
    DistilledTransformer, "DeiT_base_distilled_patch16_384", spec=replace(_BASE, image_size=384)
)
