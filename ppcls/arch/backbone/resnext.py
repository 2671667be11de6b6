"""ResNeXt: ResNet with grouped convolutions (Xie et al., "Aggregated Residual Transformations for Deep Neural
Networks", arXiv 1611.05431) and its variant vd, and SE_ResNeXt, ResNeXt with squeeze and excitation in each
block (Hu et al., "Squeeze-and-Excitation Networks", arXiv 1709.01507).
"""

from __future__ import annotations

from paddle import nn

from ppcls.arch.backbone.layers import LinearSE
from ppcls.arch.backbone.resnet_layout import BLOCKS, GroupedBottleneck, ResNetLayout
from ppcls.arch.network import register_network

_REDUCTION = 16


class ResNeXt(ResNetLayout):
    """ResNeXt: ``conv`` (vd: ``conv1_1`` ... ``conv1_3``), ``bb_0_0`` ... ``bb_3_2``, ``avg_pool``, ``out``.

    Args:
        depth: 50, 101 or 152.
        groups: groups of the 3x3 convolutions.
        group_width: channels of a group in the first stage; they double from stage to stage.
        vd: whether to build the variant vd.
        squeeze: whether to build SE_ResNeXt, whose blocks weigh their channels before the sum.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    def __init__(
        self,
        *,
        depth: int,
        groups: int,
        group_width: int,
        vd: bool = False,
        squeeze: bool = False,
        class_num: int = 1000,
        input_image_channel: int = 3,
    ) -> None:
        widths = (256, 512, 1024, 2048)

        def block(wide: int, stage: int, _index: int, stride: int, short: nn.Layer) -> nn.Layer:
            inner = groups * group_width * 2**stage
            scale = LinearSE(widths[stage], _REDUCTION) if squeeze else None
            return GroupedBottleneck(wide, inner, widths[stage], stride, short, groups, scale)

        super().__init__(
            counts=BLOCKS[depth],
            widths=widths,
            block=block,
            vd=vd,
            stem="conv",
            class_num=class_num,
            input_image_channel=input_image_channel,
            stem_width=128 if squeeze and vd else 64,
        )


ResNeXt50_32x4d = register_network(
    ResNeXt, "ResNeXt50_32x4d", depth=50, groups=32, group_width=4, vd=False, squeeze=False
)
ResNeXt50_vd_32x4d = register_network(
    ResNeXt, "ResNeXt50_vd_32x4d", depth=50, groups=32, group_width=4, vd=True, squeeze=False
)
ResNeXt50_64x4d = register_network(
    ResNeXt, "ResNeXt50_64x4d", depth=50, groups=64, group_width=4, vd=False, squeeze=False
)
ResNeXt50_vd_64x4d = register_network(
    ResNeXt, "ResNeXt50_vd_64x4d", depth=50, groups=64, group_width=4, vd=True, squeeze=False
)
ResNeXt101_32x4d = register_network(
    ResNeXt, "ResNeXt101_32x4d", depth=101, groups=32, group_width=4, vd=False, squeeze=False
)
ResNeXt101_vd_32x4d = register_network(
    ResNeXt, "ResNeXt101_vd_32x4d", depth=101, groups=32, group_width=4, vd=True, squeeze=False
)
ResNeXt101_64x4d = register_network(
    ResNeXt, "ResNeXt101_64x4d", depth=101, groups=64, group_width=4, vd=False, squeeze=False
)
ResNeXt101_vd_64x4d = register_network(
    ResNeXt, "ResNeXt101_vd_64x4d", depth=101, groups=64, group_width=4, vd=True, squeeze=False
)
ResNeXt152_32x4d = register_network(
    ResNeXt, "ResNeXt152_32x4d", depth=152, groups=32, group_width=4, vd=False, squeeze=False
)
ResNeXt152_vd_32x4d = register_network(
    ResNeXt, "ResNeXt152_vd_32x4d", depth=152, groups=32, group_width=4, vd=True, squeeze=False
)
ResNeXt152_64x4d = register_network(
    ResNeXt, "ResNeXt152_64x4d", depth=152, groups=64, group_width=4, vd=False, squeeze=False
)
ResNeXt152_vd_64x4d = register_network(
    ResNeXt, "ResNeXt152_vd_64x4d", depth=152, groups=64, group_width=4, vd=True, squeeze=False
)
SE_ResNeXt50_32x4d = register_network(
    ResNeXt, "SE_ResNeXt50_32x4d", depth=50, groups=32, group_width=4, vd=False, squeeze=True
)
SE_ResNeXt50_vd_32x4d = register_network(
    ResNeXt, "SE_ResNeXt50_vd_32x4d", depth=50, groups=32, group_width=4, vd=True, squeeze=True
)
SE_ResNeXt101_32x4d = register_network(
    ResNeXt, "SE_ResNeXt101_32x4d", depth=101, groups=32, group_width=4, vd=False, squeeze=True
)
