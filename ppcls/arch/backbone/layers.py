"""Blocks that several networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paddle import ParamAttr, Tensor, erf, nn, stack, stanh
from paddle.nn.functional import gelu, hardsigmoid, sigmoid
from paddle.nn.initializer import KaimingNormal
from paddle.regularizer import L2Decay

from ppcls._paddle import runs_outside_old_programs
from ppcls.arch.conv import Conv2D
from ppcls.errors import ConfigError

# One number for both directions, or [vertical, horizontal].
Stride = int | list[int]


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
        stride: stride of the convolution, one number or [vertical, horizontal].
        groups: groups of the convolution.
        act: the activation; None for none.
        decay_bn: whether the optimizer's L2 regularizer applies to scale and shift of the BatchNorm.
        fan_out: initialise with variance 2 / fan-out instead.

    Attributes:
        names: attributes that hold the convolution and the BatchNorm; official weights differ in them.
    """

    names = ("conv", "bn")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: Stride = 1,
        groups: int = 1,
        act: nn.Layer | None = None,
        decay_bn: bool = True,
        fan_out: bool = False,
    ) -> None:
        super().__init__()
        first, second = self.names
        self.add_sublayer(first, conv(in_channels, out_channels, kernel, stride, groups, fan_out))
        self.add_sublayer(second, norm(out_channels, decay_bn))
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        first, second = self.names
        return self.act(getattr(self, second)(getattr(self, first)(x)))


class ConvBatchNorm(ConvBN):
    """`ConvBN` whose parts the official weights of older networks call ``_conv`` and ``_batch_norm``."""

    names = ("_conv", "_batch_norm")


class PooledConvBN(nn.Layer):
    """Average over 2x2, 1x1 convolution, BatchNorm: the down-sampling short cut of the variants vd.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the pooling, one number or [vertical, horizontal].

    Attributes:
        names: attributes that hold the convolution and the BatchNorm; official weights differ in them.
    """

    names = ("conv", "bn")

    def __init__(self, in_channels: int, out_channels: int, stride: Stride = 2) -> None:
        super().__init__()
        first, second = self.names
        # At stride 1 a window sticks out at the end of the map; "SAME" pads there, and where sizes are odd.
        padding = 0 if stride == 2 else "SAME"
        self.avg_pool = nn.AvgPool2D(2, stride, padding, ceil_mode=True)
        self.add_sublayer(first, conv(in_channels, out_channels, 1))
        self.add_sublayer(second, nn.BatchNorm2D(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride], rounded up."""
        first, second = self.names
        return getattr(self, second)(getattr(self, first)(self.avg_pool(x)))


class PooledConvBatchNorm(PooledConvBN):
    """`PooledConvBN` with the names of `ConvBatchNorm`."""

    names = ("_conv", "_batch_norm")


class SEModule(nn.Layer):
    """Squeeze and excitation: channels scaled by a gate of their means (Hu et al., arXiv 1709.01507).

    Args:
        channels: channels of the input.
        reduction: what the channels are divided by in between.
        gate: the activation of the gate (default: a hard sigmoid, as in MobileNetV3).
    """

    def __init__(self, channels: int, reduction: int = 4, gate: nn.Layer | None = None) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.conv1 = Conv2D(channels, channels // reduction, 1)
        self.relu = nn.ReLU()
        self.conv2 = Conv2D(channels // reduction, channels, 1)
        self.hardsigmoid = nn.Hardsigmoid() if gate is None else gate

    def forward(self, x: Tensor) -> Tensor:
        """Scale [N, channels, H, W] channel by channel."""
        gate = self.conv2(self.relu(self.conv1(self.avg_pool(x))))
        return x * self.hardsigmoid(gate)


class LinearSE(nn.Layer):
    """Squeeze and excitation (Hu et al., arXiv 1709.01507) with linear layers in place of 1x1 convolutions.

    Args:
        channels: channels of the input.
        reduction: what the channels are divided by in between.
        gate: the activation of the gate (default: a sigmoid).
        hidden: the channels in between, in place of `reduction`.
    """

    names = ("squeeze", "excitation")

    def __init__(
        self, channels: int, reduction: int = 16, gate: nn.Layer | None = None, hidden: int | None = None
    ) -> None:
        super().__init__()
        squeeze, excitation = self.names
        hidden = channels // reduction if hidden is None else hidden
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.add_sublayer(squeeze, nn.Linear(channels, hidden))
        self.relu = nn.ReLU()
        self.add_sublayer(excitation, nn.Linear(hidden, channels))
        self.gate = Sigmoid() if gate is None else gate

    def forward(self, x: Tensor) -> Tensor:
        """Scale [N, channels, H, W] channel by channel."""
        squeeze, excitation = self.names
        hidden = self.relu(getattr(self, squeeze)(self.flatten(self.avg_pool(x))))
        return x * self.gate(getattr(self, excitation)(hidden)).unsqueeze([2, 3])


class Clip(nn.Layer):
    """Values below a bound and above another are set to it."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` clipped, in its own shape."""
        return x.clip(self.low, self.high)


class Sigmoid(nn.Layer):
    """The logistic function, which Paddle's own layer does not export to the legacy format."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in the shape of `x`."""
        if runs_outside_old_programs():
            return sigmoid(x)
        return stanh(x, scale_a=0.5, scale_b=0.5) + 0.5


class GELU(nn.Layer):
    """``x`` times the normal distribution function of `x`, also where `nn.GELU` does not export."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in the shape of `x`."""
        if runs_outside_old_programs():
            return gelu(x)
        return x * (erf(x * 0.5**0.5) + 1.0) * 0.5


class Hardsigmoid(nn.Layer):
    """``min(max(slope * x + 0.5, 0), 1)``; Paddle's own layer has the slope 1/6 alone."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in the shape of `x`."""
        return hardsigmoid(x, slope=self.slope, offset=0.5)


def interleave(x: Tensor, y: Tensor) -> Tensor:
    """Return the channels of two maps alternately: their concatenation after a channel shuffle of 2 groups.

    Args:
        x: [N, C, H, W].
        y: [N, C, H, W].

    Returns:
        [N, 2 C, H, W], beginning with the first channel of `x`.
    """
    return stack([x, y], axis=2).flatten(1, 2)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: Stride = 1,
    groups: int = 1,
    fan_out: bool = False,
) -> Conv2D:
    """Return a convolution without bias; see `ConvBN` for the parameters."""
    return Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=(kernel - 1) // 2 if kernel % 2 else "SAME",  # an even kernel looks one pixel further ahead
        groups=groups,
        weight_attr=ParamAttr(
            initializer=KaimingNormal(fan_in=out_channels * kernel**2 if fan_out else None)
        ),
        bias_attr=False,
    )


def norm(channels: int, decay: bool = True) -> nn.BatchNorm2D:
    """Return a BatchNorm; `decay` says whether the optimizer's L2 regularizer applies to scale and shift."""
    if decay:
        return nn.BatchNorm2D(channels)
    return nn.BatchNorm2D(
        channels,
        weight_attr=ParamAttr(regularizer=L2Decay(0.0)),
        bias_attr=ParamAttr(regularizer=L2Decay(0.0)),
    )


def drop_path(rate: float) -> nn.Layer:
    """Return a layer for the end of a residual branch that drops the branch for a sample in training.

    What is kept is divided by ``1 - rate`` (stochastic depth, Huang et al., arXiv 1603.09382). The draws are
    those of Paddle's generator.
    """
    return nn.Dropout(_probability(rate), axis=0) if rate else nn.Identity()


def dropout(rate: float | None, downscale: bool = False) -> nn.Layer:
    """Return a dropout layer; with a rate of 0 or None one that changes nothing.

    Args:
        rate: share of the values that are dropped in training.
        downscale: scale by ``1 - rate`` in evaluation; otherwise what is kept is divided by it in training.
            Official weights were trained one way or the other, and fit no other way.

    Raises:
        ConfigError: if `rate` is no probability below 1.
    """
    if not rate:
        return nn.Identity()
    return nn.Dropout(_probability(rate), mode="downscale_in_infer" if downscale else "upscale_in_train")


def _probability(rate: float) -> float:
    """Return `rate`; Paddle itself finds out about a wrong one in the first training step."""
    if not 0 <= rate < 1:  # also false for NaN
        raise ConfigError(f"a share to drop (dropout or drop path) must be 0 or more and below 1, got {rate}")
    return rate


def scale_learning_rate(layer: nn.Layer, factor: float) -> None:
    """Multiply the learning rates of a layer's parameters by a factor, which the optimizer follows."""
    for parameter in layer.parameters():
        if parameter.stop_gradient:  # BatchNorm statistics
            continue
        own = parameter.optimize_attr["learning_rate"]
        parameter.optimize_attr = {**parameter.optimize_attr, "learning_rate": own * factor}


def scale_learning_rates(
    parts: Sequence[nn.Layer | Sequence[nn.Layer]], factors: Sequence[float] | None
) -> None:
    """Follow the option ``lr_mult_list``: one factor for each part of a network; None changes nothing.

    Raises:
        ConfigError: if there are not as many factors as parts, or one is negative or not finite.
    """
    if factors is None:
        return
    if len(factors) != len(parts) or not all(0 <= factor < math.inf for factor in factors):
        raise ConfigError(
            f"lr_mult_list needs {len(parts)} finite numbers of 0 or more, one for each part of the network, "
            f"got {list(factors)}"
        )
    for part, factor in zip(parts, factors, strict=True):
        for layer in [part] if isinstance(part, nn.Layer) else part:
            scale_learning_rate(layer, factor)


def five_strides(strides: Sequence[Stride]) -> list[Stride]:
    """Check the option ``stride_list``: five strides, each a whole number or [vertical, horizontal].

    Raises:
        ConfigError: if they are not.
    """
    pairs = [list(s) if isinstance(s, list | tuple) else [s, s] for s in strides]
    if len(pairs) != 5 or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ConfigError(
            "stride_list needs 5 strides, each a whole number above 0 or [vertical, horizontal], "
            f"got {list(strides)}"
        )
    return [pair[0] if pair[0] == pair[1] else pair for pair in pairs]


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round a scaled channel count to a multiple of `divisor`, never below 90 % of it."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scaled(channels: int, width: float) -> int:
    """Return a channel count times a width, rounded, at least 1."""
    return max(1, round(channels * width))
