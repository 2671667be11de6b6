"""Res2Net: several scales within one block (Gao et al., "Res2Net: A New Multi-scale Backbone Architecture",
arXiv 1904.01169) and its variant vd.
"""

from __future__ import annotations

from paddle import Tensor, concat, nn

from ppcls.arch.backbone.layers import Add, ConvBatchNorm
from ppcls.arch.backbone.resnet_layout import BLOCKS, ResNetLayout
from ppcls.arch.network import register_network


class MultiScaleBottleneck(nn.Layer):
    """1x1 convolution, 3x3 convolutions of its channels in groups, 1x1 convolution, beside a short cut.

    Each group but the last has a convolution; at stride 1 it sees its own channels plus the result of the
    group before, at stride 2 its own alone. The last group passes as it is, or averaged at stride 2. ``add``
    is the sum with the short cut before the last ReLU.

    Args:
        in_channels: channels of the input.
        width: channels of a group.
        scales: number of groups.
        out_channels: channels of the output.
        stride: stride of the 3x3 convolutions.
        short: the short cut.
        title: what the names of the 3x3 convolutions begin with.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        scales: int,
        out_channels: int,
        stride: int,
        short: nn.Layer,
        title: str,
    ) -> None:
        super().__init__()
        self.scales = scales
        self.chained = stride == 1
        self.conv0 = ConvBatchNorm(in_channels, width * scales, 1, act=nn.ReLU())
        self._groups = [f"{title}_branch2b_{index}" for index in range(1, scales)]
        for name in self._groups:
            self.add_sublayer(name, ConvBatchNorm(width, width, 3, stride, act=nn.ReLU()))
        self.avg_pool = nn.Identity() if self.chained else nn.AvgPool2D(3, stride, padding=1)
        self.conv2 = ConvBatchNorm(width * scales, out_channels, 1)
        self.short = short
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        parts = self.conv0(x).split(self.scales, axis=1)
        done: list[Tensor] = []
        for name, part in zip(self._groups, parts, strict=False):
            known = part + done[-1] if self.chained and done else part
            done.append(getattr(self, name)(known))
        y = self.conv2(concat([*done, self.avg_pool(parts[-1])], axis=1))
        return self.relu(self.add(y, self.short(x)))


class Res2Net(ResNetLayout):
    """Res2Net: ``conv1`` (vd: ``conv1_1`` ... ``conv1_3``), ``bb_0_0`` ... ``bb_3_2``, ``avg_pool``, ``out``.

    Args:
        depth: 50, 101, 152 or 200.
        width: channels of a group in the first stage; they double from stage to stage.
        scales: groups of a block.
        vd: whether to build the variant vd.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        scales: int,
        vd: bool = False,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        widths = (256, 512, 1024, 2048)

        def block(wide: int, stage: int, index: int, stride: int, short: nn.Layer) -> nn.Layer:
            # Official names count blocks a, b, c, ...; in the third stage of deep networks a, b1, b2, ...
            letters = f"b{index}" if depth > 50 and stage == 2 and index else chr(ord("a") + index)
            title = f"res{stage + 2}{letters}"
            return MultiScaleBottleneck(wide, width * 2**stage, scales, widths[stage], stride, short, title)

        super().__init__(
            counts=BLOCKS[depth],
            widths=widths,
            block=block,
            vd=vd,
            stem="conv1",
            class_num=class_num,
            input_image_channel=input_image_channel,
        )


Res2Net50_26w_4s = register_network(Res2Net, "Res2Net50_26w_4s", depth=50, width=26, scales=4, vd=False)
Res2Net50_14w_8s = register_network(Res2Net, "Res2Net50_14w_8s", depth=50, width=14, scales=8, vd=False)
Res2Net50_vd_26w_4s = register_network(Res2Net, "Res2Net50_vd_26w_4s", depth=50, width=26, scales=4, vd=True)
Res2Net101_vd_26w_4s = register_network(
    Res2Net, "Res2Net101_vd_26w_4s", depth=101, width=26, scales=4, vd=True
)
Res2Net200_vd_26w_4s = register_network(
    Res2Net, "Res2Net200_vd_26w_4s", depth=200, width=26, scales=4, vd=True
)
