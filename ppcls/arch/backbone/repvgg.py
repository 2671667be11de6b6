"""RepVGG (Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", arXiv 2101.03697).

It trains with three branches per block; for inference, `RepVGG.reparameterize` makes each block one
convolution.
"""

from __future__ import annotations

import numpy as np
from paddle import Tensor, nn

from ppcls._paddle import children_of
from ppcls.arch.backbone.layers import ConvBN
from ppcls.arch.conv import Conv2D
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

# Blocks of the four stages after the first block, and the factors on their channels (tables 2 and 3).
_A = (2, 4, 14, 1)
_B = (4, 6, 16, 1)
_SIZES = {
    "A0": (_A, (0.75, 0.75, 0.75, 2.5)),
    "A1": (_A, (1.0, 1.0, 1.0, 2.5)),
    "A2": (_A, (1.5, 1.5, 1.5, 2.75)),
    "B0": (_B, (1.0, 1.0, 1.0, 2.5)),
    "B1": (_B, (2.0, 2.0, 2.0, 4.0)),
    "B2": (_B, (2.5, 2.5, 2.5, 5.0)),
    "B3": (_B, (3.0, 3.0, 3.0, 5.0)),
}
_CHANNELS = (64, 128, 256, 512)


class RepVGGBlock(nn.Layer):
    """ReLU of the sum of a 3x3 convolution, a 1x1 convolution and, where the shape stays, the input.

    Each of the three goes through a BatchNorm of its own.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        self.shape = (in_channels, out_channels, stride, groups)
        self.same = stride == 1 and in_channels == out_channels
        self.fused = False
        if self.same:
            self.rbr_identity = nn.BatchNorm2D(in_channels)
        self.rbr_dense = ConvBN(in_channels, out_channels, 3, stride, groups)
        self.rbr_1x1 = ConvBN(in_channels, out_channels, 1, stride, groups)
        self.nonlinearity = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        if self.fused:
            return self.nonlinearity(self.rbr_reparam(x))
        kept = self.rbr_identity(x) if self.same else 0.0
        return self.nonlinearity(self.rbr_dense(x) + self.rbr_1x1(x) + kept)

    def fuse(self) -> None:
        """Put one convolution with a bias, ``rbr_reparam``, in place of the branches (section 3.3)."""
        if self.fused:
            return
        in_channels, out_channels, stride, groups = self.shape
        kernel = self.rbr_dense.conv.weight.numpy().astype("float64")
        kernel, bias = _absorbed(kernel, self.rbr_dense.bn)
        point = self.rbr_1x1.conv.weight.numpy().astype("float64")
        branches = [_absorbed(np.pad(point, ((0, 0), (0, 0), (1, 1), (1, 1))), self.rbr_1x1.bn)]
        if self.same:
            place = np.arange(out_channels)
            one = np.zeros_like(kernel)
            one[place, place % (in_channels // groups), 1, 1] = 1.0
            branches.append(_absorbed(one, self.rbr_identity))
        for more_kernel, more_bias in branches:
            kernel = kernel + more_kernel
            bias = bias + more_bias
        fused = Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups)
        fused.weight.set_value(kernel.astype("float32"))
        fused.bias.set_value(bias.astype("float32"))
        for name in ("rbr_identity", "rbr_dense", "rbr_1x1"):
            children_of(self).pop(name, None)
        self.rbr_reparam = fused
        self.fused = True


class RepVGG(TheseusLayer):
    """RepVGG: ``stage0`` (a block), ``stage1`` ... ``stage4`` (of blocks), ``gap``, ``linear``.

    Args:
        size: A0 to A2 or B0 to B3.
        groups: groups of the convolutions of every other block.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = ("stage1", "stage2", "stage3", "stage4")

    def __init__(
        self, *, size: str, groups: int = 1, class_num: int = 1000, input_image_channel: int = 3
    ) -> None:
        super().__init__()
        counts, factors = _SIZES[size]
        channels = [int(base * factor) for base, factor in zip(_CHANNELS, factors, strict=True)]
        width = min(64, channels[0])
        self.stage0 = RepVGGBlock(input_image_channel, width, 2, 1)
        number = 0
        for stage, (count, out) in enumerate(zip(counts, channels, strict=True), 1):
            blocks = []
            for index in range(count):
                number += 1
                split = groups if number % 2 == 0 and number <= 26 else 1
                blocks.append(RepVGGBlock(width, out, 1 if index else 2, split))
                width = out
            self.add_sublayer(f"stage{stage}", nn.Sequential(*blocks))
        self.gap = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(width, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.stage0(x)))))
        return self.linear(self.flatten(self.gap(x)))

    def reparameterize(self) -> None:
        """Turn the network into its form for inference: one 3x3 convolution per block, the same function.

        It computes what the network in eval mode did, in less time; it cannot be trained on as before, and
        its parameters have other names. Layers inside the branches are gone, for taps as well.
        """
        for layer in self.sublayers():
            if isinstance(layer, RepVGGBlock):
                layer.fuse()


def _absorbed(kernel: np.ndarray, norm: nn.BatchNorm2D) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of the convolution that is `kernel` and then `norm` in eval mode, in float64."""
    scale, shift, mean, variance = (
        value.numpy().astype("float64") for value in (norm.weight, norm.bias, norm._mean, norm._variance)
    )
    scale = scale / np.sqrt(variance + norm._epsilon)
    return kernel * scale[:, None, None, None], shift - mean * scale


RepVGG_A0 = register_network(RepVGG, "RepVGG_A0", size="A0", groups=1)
RepVGG_A1 = register_network(RepVGG, "RepVGG_A1", size="A1", groups=1)
RepVGG_A2 = register_network(RepVGG, "RepVGG_A2", size="A2", groups=1)
RepVGG_B0 = register_network(RepVGG, "RepVGG_B0", size="B0", groups=1)
RepVGG_B1 = register_network(RepVGG, "RepVGG_B1", size="B1", groups=1)
RepVGG_B1g2 = register_network(RepVGG, "RepVGG_B1g2", size="B1", groups=2)
RepVGG_B1g4 = register_network(RepVGG, "RepVGG_B1g4", size="B1", groups=4)
RepVGG_B2 = register_network(RepVGG, "RepVGG_B2", size="B2", groups=1)
RepVGG_B2g4 = register_network(RepVGG, "RepVGG_B2g4", size="B2", groups=4)
RepVGG_B3 = register_network(RepVGG, "RepVGG_B3", size="B3", groups=1)
RepVGG_B3g4 = register_network(RepVGG, "RepVGG_B3g4", size="B3", groups=4)
