"""Blocks that several networks share."""

from __future__ import annotations

from paddle import ParamAttr, Tensor, nn
from paddle.nn.initializer import KaimingNormal
from paddle.regularizer import L2Decay


class Add(nn.Layer):
    """The sum of two tensors as a layer, so that the sum of a block before its ReLU has a descriptor."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x + y``."""
        return x + y


class ConvBN(nn.Layer):
    """Convolution without bias, BatchNorm and an activation.

    Padding keeps the size at stride 1. The convolution is initialised from a normal distribution of variance
    2 / fan-in (He et al., arXiv 1502.01852); BatchNorm starts as the identity.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, odd.
        stride: stride of the convolution.
        groups: groups of the convolution.
        act: the activation; None for none.
        decay_bn: whether the optimizer's L2 regularizer applies to scale and shift of the BatchNorm.
        fan_out: initialise with variance 2 / fan-out instead.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: nn.Layer | None = None,
        decay_bn: bool = True,
        fan_out: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel, stride, groups, fan_out)
        self.bn = nn.BatchNorm2D(
            out_channels,
            weight_attr=None if decay_bn else ParamAttr(regularizer=L2Decay(0.0)),
            bias_attr=None if decay_bn else ParamAttr(regularizer=L2Decay(0.0)),
        )
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        return self.act(self.bn(self.conv(x)))


class SEModule(nn.Layer):
    """Squeeze and excitation: channels scaled by a gate of their means (Hu et al., arXiv 1709.01507).

    The gate is a hard sigmoid, as in MobileNetV3.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv1 = nn.Conv2D(channels, channels // reduction, 1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2D(channels // reduction, channels, 1)
        self.hardsigmoid = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Scale [N, channels, H, W] channel by channel."""
        gate = self.conv2(self.relu(self.conv1(self.avg_pool(x))))
        return x * self.hardsigmoid(gate)


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, fan_out: bool = False
) -> nn.Conv2D:
    """Return a convolution without bias; see `ConvBN` for the parameters."""
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=(kernel - 1) // 2,
        groups=groups,
        weight_attr=ParamAttr(
            initializer=KaimingNormal(fan_in=out_channels * kernel**2 if fan_out else None)
        ),
        bias_attr=False,
    )


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round a scaled channel count to a multiple of `divisor`, never below 90 % of it."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scaled(channels: int, width: float) -> int:
    """Return a channel count times a width, rounded, at least 1."""
    return max(1, round(channels * width))
