"""HRNet: branches of several resolutions side by side (Wang et al., "Deep High-Resolution Representation
Learning for Visual Recognition", arXiv 1908.07919), and SE_HRNet, with squeeze and excitation in each block.
"""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor, nn, stack

from ppcls.arch.backbone.layers import Add, ConvBN, LinearSE
from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer

_MODULES = (1, 4, 3)  # of the stages st2, st3 and st4, which have 2, 3 and 4 branches
_BLOCKS = 4  # of a branch of a module
_HEAD = (32, 64, 128, 256)  # a quarter of the channels of each branch before the head


class BranchSE(LinearSE):
    """Squeeze and excitation under the names of these weights."""

    names = ("fc_squeeze", "fc_excitation")


def _se(channels: int, use_se: bool) -> nn.Layer:
    return BranchSE(channels, 16) if use_se else nn.Identity()


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions beside the input. ``add`` is their sum before the last ReLU."""

    def __init__(self, channels: int, use_se: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(channels, channels, 3, act=nn.ReLU())
        self.conv2 = ConvBN(channels, channels, 3)
        self.se = _se(channels, use_se)
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        return self.relu(self.add(self.se(self.conv2(self.conv1(x))), x))


class Bottleneck(nn.Layer):
    """1x1, 3x3 and 1x1 convolutions beside a short cut. ``add`` is their sum before the last ReLU."""

    def __init__(self, in_channels: int, channels: int, use_se: bool, down: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, channels, 1, act=nn.ReLU())
        self.conv2 = ConvBN(channels, channels, 3, act=nn.ReLU())
        self.conv3 = ConvBN(channels, channels * 4, 1)
        self.se = _se(channels * 4, use_se)
        self.conv_down = ConvBN(in_channels, channels * 4, 1) if down else nn.Identity()
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, 4 * channels, H, W]."""
        y = self.se(self.conv3(self.conv2(self.conv1(x))))
        return self.relu(self.add(y, self.conv_down(x)))


class Fusion(nn.Layer):
    """Each branch becomes the sum of all, brought to its size, and ReLU: ``relu[0]`` is the largest.

    A larger branch comes through 3x3 convolutions of stride 2, a smaller one through a 1x1 convolution and
    its nearest neighbours.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        ways: list[nn.Layer] = []
        for new, out in enumerate(widths):
            for old, wide in enumerate(widths):
                if old > new:
                    ways.append(ConvBN(wide, out, 1))
                elif old < new:
                    ways += [ConvBN(wide, wide, 3, 2, act=nn.ReLU()) for _ in range(new - old - 1)]
                    ways.append(ConvBN(wide, out, 3, 2))
        self.residual_func_list = nn.LayerList(ways)
        self.relu = nn.LayerList(nn.ReLU() for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the branches, [N, width, H / 2**i, W / 2**i] for branch i, to new ones of the same shapes."""
        sums = []
        used = 0
        for new in range(len(maps)):
            total = maps[new]
            for old in range(len(maps)):
                if old == new:
                    continue
                part = maps[old]
                for _ in range(max(new - old, 1)):
                    part = self.residual_func_list[used](part)
                    used += 1
                if old > new:
                    part = _enlarge(part, 2 ** (old - new))
                total = total + part
            sums.append(total)
        return [act(total) for act, total in zip(self.relu, sums, strict=True)]


def _enlarge(x: Tensor, factor: int) -> Tensor:
    """Repeat each pixel of [N, C, H, W] in both directions.

    Paddle's own interpolation gives the same, but Paddle Inference refuses it with oneDNN.
    """
    x = stack([x] * factor, axis=4).flatten(3, 4)
    return stack([x] * factor, axis=3).flatten(2, 3)


class Module(nn.Layer):
    """Blocks in each branch, then the exchange between the branches."""

    def __init__(self, widths: Sequence[int], use_se: bool) -> None:
        super().__init__()
        self.basic_block_list = nn.LayerList(
            nn.Sequential(*(BasicBlock(width, use_se) for _ in range(_BLOCKS))) for width in widths
        )
        self.fuse_func = Fusion(widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the branches to new ones of the same shapes."""
        return self.fuse_func([block(x) for block, x in zip(self.basic_block_list, maps, strict=True)])


class Stage(nn.Layer):
    """Modules of the same branches."""

    def __init__(self, widths: Sequence[int], count: int, use_se: bool) -> None:
        super().__init__()
        self.stage_func_list = nn.LayerList(Module(widths, use_se) for _ in range(count))

    def forward(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """Map the branches to new ones of the same shapes."""
        for module in self.stage_func_list:
            maps = module(maps)
        return maps


class Widen(nn.Layer):
    """A bottleneck for each branch, which changes its channels to those of the head."""

    def __init__(self, widths: Sequence[int], use_se: bool) -> None:
        super().__init__()
        self.func_list = nn.LayerList(
            Bottleneck(width, out, use_se, down=True) for width, out in zip(widths, _HEAD, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the branches to ones of 128, 256, 512 and 1024 channels."""
        return [block(x) for block, x in zip(self.func_list, maps, strict=True)]


class HRNet(TheseusLayer):
    """HRNet: stem, ``layer1``, the stages ``st2``, ``st3``, ``st4``, ``last_cls``, ``conv_last``, ``fc``.

    The outputs of ``st2``, ``st3``, ``st4`` are lists of branches; a branch alone is that of the last
    ``fuse_func.relu[i]`` of the stage. Stages for taps are ``layer1`` and the smallest branch of each stage.
    Sides of images have to be multiples of 32.

    Args:
        width: channels of the largest branch; they double from branch to branch.
        use_se: whether the blocks have squeeze and excitation.
        class_num: number of classes.
        input_image_channel: channels of the images.
    """

    stages_pattern = (
        "layer1",
        *(
            f"st{branches}.stage_func_list[{count - 1}].fuse_func.relu[{branches - 1}]"
            for branches, count in enumerate(_MODULES, 2)
        ),
    )

    def __init__(
        self, *, width: int, use_se: bool, class_num: int = 1000, input_image_channel: int = 3
    ) -> None:
        super().__init__()
        widths = [width * 2**branch for branch in range(4)]
        self.conv_layer1_1 = ConvBN(input_image_channel, 64, 3, 2, act=nn.ReLU())
        self.conv_layer1_2 = ConvBN(64, 64, 3, 2, act=nn.ReLU())
        self.layer1 = nn.Sequential(
            *(Bottleneck(256 if index else 64, 64, use_se, down=not index) for index in range(4))
        )
        self.conv_tr1_1 = ConvBN(256, widths[0], 3, act=nn.ReLU())
        self.conv_tr1_2 = ConvBN(256, widths[1], 3, 2, act=nn.ReLU())
        self.st2 = Stage(widths[:2], _MODULES[0], use_se)
        self.conv_tr2 = ConvBN(widths[1], widths[2], 3, 2, act=nn.ReLU())
        self.st3 = Stage(widths[:3], _MODULES[1], use_se)
        self.conv_tr3 = ConvBN(widths[2], widths[3], 3, 2, act=nn.ReLU())
        self.st4 = Stage(widths, _MODULES[2], use_se)
        self.last_cls = Widen(widths, use_se)
        heads = [4 * quarter for quarter in _HEAD]
        self.cls_head_conv_list = nn.LayerList(
            ConvBN(heads[index], heads[index + 1], 3, 2, act=nn.ReLU()) for index in range(3)
        )
        self.conv_last = ConvBN(heads[-1], 2048, 1, act=nn.ReLU())
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(2048, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, input_image_channel, H, W] to logits [N, class_num]."""
        x = self.layer1(self.conv_layer1_2(self.conv_layer1_1(x)))
        maps = self.st2([self.conv_tr1_1(x), self.conv_tr1_2(x)])
        maps = self.st3([*maps, self.conv_tr2(maps[-1])])
        maps = self.last_cls(self.st4([*maps, self.conv_tr3(maps[-1])]))
        x = maps[0]
        for index in range(3):
            x = self.cls_head_conv_list[index](x) + maps[index + 1]
        return self.fc(self.flatten(self.avg_pool(self.conv_last(x))))


HRNet_W18_C = register_network(HRNet, "HRNet_W18_C", width=18, use_se=False)
HRNet_W30_C = register_network(HRNet, "HRNet_W30_C", width=30, use_se=False)
HRNet_W32_C = register_network(HRNet, "HRNet_W32_C", width=32, use_se=False)
HRNet_W40_C = register_network(HRNet, "HRNet_W40_C", width=40, use_se=False)
HRNet_W44_C = register_network(HRNet, "HRNet_W44_C", width=44, use_se=False)
HRNet_W48_C = register_network(HRNet, "HRNet_W48_C", width=48, use_se=False)
HRNet_W60_C = register_network(HRNet, "HRNet_W60_C", width=60, use_se=False)
HRNet_W64_C = register_network(HRNet, "HRNet_W64_C", width=64, use_se=False)
SE_HRNet_W18_C = register_network(HRNet, "SE_HRNet_W18_C", width=18, use_se=True)
SE_HRNet_W30_C = register_network(HRNet, "SE_HRNet_W30_C", width=30, use_se=True)
SE_HRNet_W32_C = register_network(HRNet, "SE_HRNet_W32_C", width=32, use_se=True)
SE_HRNet_W40_C = register_network(HRNet, "SE_HRNet_W40_C", width=40, use_se=True)
SE_HRNet_W44_C = register_network(HRNet, "SE_HRNet_W44_C", width=44, use_se=True)
SE_HRNet_W48_C = register_network(HRNet, "SE_HRNet_W48_C", width=48, use_se=True)
SE_HRNet_W60_C = register_network(HRNet, "SE_HRNet_W60_C", width=60, use_se=True)
SE_HRNet_W64_C = register_network(HRNet, "SE_HRNet_W64_C", width=64, use_se=True)
