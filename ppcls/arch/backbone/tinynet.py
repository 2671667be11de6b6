"""TinyNet: EfficientNet made smaller in resolution, depth and width (Han et al., "Model Rubik's Cube:
Twisting Resolution, Depth and Width for TinyNets", arXiv 2010.14819).
"""

from __future__ import annotations

from paddle import Tensor, nn

from ppcls.arch.backbone.efficientnet import ConvNorm, Features, stage_ends
from ppcls.arch.backbone.layers import dropout, norm
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer, bracketed

# Factors on the channels and on the number of blocks of EfficientNetB0, and the largest probability of
# dropping a block.
_SIZES = {
    "A": (1.0, 1.2, 0.1),
    "B": (0.75, 1.1, 0.1),
    "C": (0.54, 0.85, 0.0),
    "D": (0.54, 0.695, 0.0),
    "E": (0.51, 0.6, 0.0),
}
_STEM = 32
_FEATURES = 1280
_SIDE = 1  # see `same_conv`: pads all maps as those of an odd side, by as much at the beginning as at the end


def _rounded(repeats: int, depth: float) -> int:
    """Return a stage's number of blocks times a depth, rounded, at least 1."""
    return max(1, round(repeats * depth))


class TinyNet(TheseusLayer):
    """TinyNet: ``_ef._conv_stem``, ``_ef._blocks[0].``, ``_ef._blocks[1].``, ``_ef.block[2].``, ...,
    ``_conv``, ``_fc``, named as in `ppcls.arch.backbone.efficientnet.EfficientNet`.

    Args:
        size: A to E.
        dropout_prob: share of the features dropped before the classifier.
        drop_connect_rate: probability of dropping the last block; that of the others falls to 0 at the first
            (default: 0.1 for A and B, 0 for the others).
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        size: str,
        dropout_prob: float | None = 0.2,
        drop_connect_rate: float | None = None,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        super().__init__()
        width, depth, drop = _SIZES[size]
        self._ef = Features(
            input_image_channel,
            width,
            depth,
            drop if drop_connect_rate is None else drop_connect_rate,
            _SIDE,
            stem=_STEM,
            deepen=_rounded,
            norm=norm,
        )
        self.stages_pattern = tuple(bracketed(f"_ef.{self._ef.path[i]}") for i in stage_ends(depth, _rounded))
        self._conv = ConvNorm(self._ef.channels, _FEATURES, 1, act=nn.Swish(), norm=norm)
        self._pool = nn.AdaptiveAvgPool2D(1)
        self._flatten = nn.Flatten()
        self._drop = dropout(dropout_prob)
        self._fc = nn.Linear(_FEATURES, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self._pool(self._conv(self._ef(x)))
        return self._fc(self._drop(self._flatten(x)))


TinyNet_A = register_network(TinyNet, "TinyNet_A", size="A")
TinyNet_B = register_network(TinyNet, "TinyNet_B", size="B")
TinyNet_C = register_network(TinyNet, "TinyNet_C", size="C")
TinyNet_D = register_network(TinyNet, "TinyNet_D", size="D")
TinyNet_E = register_network(TinyNet, "TinyNet_E", size="E")
