"""Convolutions, with a faster way for maps of few pixels on the CPU.

Paddle's kernel multiplies the weights with one image of the batch after the other. Where a map has few pixels
such a product is thin, and reading the weights takes longer than multiplying with them: 9 MB for 512 to 512
channels and a kernel of 3x3. One product over the whole batch reads them once. It gives the same values up to
rounding (about 1e-7 of them) and is up to nine times as fast; docs/performance.md has measurements.
Depthwise convolutions have a way of their own, see :mod:`ppcls.arch.depthwise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from ppcls._paddle import in_sot_simulation_mode
from ppcls.arch import depthwise

Pair = int | Sequence[int]

# Output pixels up to the first number; then one product pays if weights times images, and weights alone, are
# at least the next two; and whether it pays without gradients as well. Measured on an Intel Xeon (Sapphire
# Rapids), one thread. From 16 pixels on the kernel catches up, because one image fills its registers.
_RULE = (
    (4, 2**20, 0, True),
    (9, 2**21, 0, True),
    (16, 0, 2**19, False),
    (49, 0, 2**20, False),
)
_MOST_DEPTHWISE = 128  # output pixels of a depthwise convolution that may be small enough
_MOST_VALUES = 2**24  # of the unfolded batch, 64 MB: a larger one is left to the kernel, which needs no copy


def one_product_pays(batch: int, pixels: int, weights: int, *, gradients: bool) -> bool:
    """Tell whether one product over the batch is faster than Paddle's kernel.

    Args:
        batch: number of images.
        pixels: of an output map, height times width.
        weights: number of weights of the convolution.
        gradients: whether gradients will be computed.
    """
    if batch < 2 or pixels < 1:
        return False
    for most, of_batch, alone, always in _RULE:
        if pixels <= most:
            return weights * batch >= of_batch and weights >= alone and (always or gradients)
    return False


class Conv2D(nn.Conv2D):
    """``paddle.nn.Conv2D`` that multiplies with a whole batch at once where that is faster.

    Parameters and their names, hooks, exports and static graphs are those of the base class. Which way a call
    goes depends on its shapes alone, so equal runs stay equal bit by bit.

    Attributes:
        fast_small_maps: False leaves every call to Paddle's kernel, see :func:`use_kernels_alone`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Any = 0,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, **options)
        kernel = _pair(kernel_size)
        steps = _pair(stride)
        border = _pair(padding)
        if padding == "SAME" and steps == (1, 1) and kernel is not None and kernel[0] % 2 and kernel[1] % 2:
            border = (kernel[0] // 2, kernel[1] // 2)
        self._kernel = kernel or (1, 1)
        self._steps = steps or (1, 1)
        self._border = border or (0, 0)
        groups = options.get("groups", 1)
        self._is_depthwise = groups == in_channels == out_channels > 1
        plain = {"dilation": 1, "padding_mode": "zeros", "data_format": "NCHW"}
        known = kernel is not None and steps is not None and border is not None
        self.fast_small_maps = (
            known
            and (groups == 1 or self._is_depthwise)
            and all(options.get(name, value) == value for name, value in plain.items())
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H', W']."""
        if self.fast_small_maps and paddle.in_dynamic_mode() and not in_sot_simulation_mode():
            size = self._small_output(x)
            if size is not None:
                if self._is_depthwise:
                    y = depthwise.multiply(x, self.weight, size, self._steps, self._border)
                else:
                    y = self._multiply(x, *size)
                return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])
        return super().forward(x)

    def _small_output(self, x: Tensor) -> tuple[int, int] | None:
        """Return height and width of the output; None if Paddle's kernel is to compute it.

        Every call comes here, so the cheap questions come first: looking up `weight` takes longest.
        """
        shape = x.shape
        if len(shape) != 4:
            return None  # the base class says what is wrong with it
        height = (shape[2] + 2 * self._border[0] - self._kernel[0]) // self._steps[0] + 1
        width = (shape[3] + 2 * self._border[1] - self._kernel[1]) // self._steps[1] + 1
        pixels = height * width if height > 0 and width > 0 else 0
        if pixels > (_MOST_DEPTHWISE if self._is_depthwise else _RULE[-1][0]):
            return None
        weight = self.weight
        filters, channels, *_ = weight.shape
        if self._is_depthwise:
            taps = self._kernel[0] * self._kernel[1]
            small = pixels > 0 and depthwise.products_pay(shape[0], shape[2] * shape[3], pixels, taps)
            fits = shape[1] == filters and x.dtype == weight.dtype == paddle.float32
            return (height, width) if small and fits and x.place.is_cpu_place() else None
        if shape[1] != channels:
            return None
        values = channels * self._kernel[0] * self._kernel[1]  # that one output value depends on
        gradients = paddle.is_grad_enabled() and not (x.stop_gradient and weight.stop_gradient)
        if not one_product_pays(shape[0], pixels, filters * values, gradients=gradients):
            return None
        if shape[0] * pixels * values > _MOST_VALUES or not x.place.is_cpu_place():
            return None
        return (height, width) if x.dtype == weight.dtype else None

    def _multiply(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the convolution without bias, as one product."""
        batch, channels = x.shape[:2]
        filters = self.weight.shape[0]
        taps = self._kernel[0] * self._kernel[1]
        inside = self._border[0] < self._kernel[0] and self._border[1] < self._kernel[1]
        if x.shape[2:] == [1, 1] and height * width == 1 and inside:  # one tap meets the pixel, others zeros
            tap = self._border[0] * self._kernel[1] + self._border[1]
            chosen = F.one_hot(paddle.full([1], tap, "int64"), taps).T.astype(x.dtype)
            weight = self.weight.reshape([-1, taps]).matmul(chosen) if taps > 1 else self.weight
            product = x.flatten(1).matmul(weight.reshape([filters, channels]), transpose_y=True)
            return product.reshape([batch, filters, 1, 1])
        if taps == 1 and self._steps == (1, 1) and self._border == (0, 0):
            columns = x.flatten(2)
        else:
            columns = F.unfold(x, list(self._kernel), list(self._steps), list(self._border))
        columns = columns.transpose([1, 0, 2]).reshape([channels * taps, -1])
        product = self.weight.reshape([filters, -1]).matmul(columns)
        return product.reshape([filters, batch, height, width]).transpose([1, 0, 2, 3])


def use_kernels_alone(network: nn.Layer) -> None:
    """Leave all convolutions of a network to Paddle's kernels: ``Global.fast_small_convs: False``."""
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, Conv2D):
            layer.fast_small_maps = False


def _pair(value: Any) -> tuple[int, int] | None:
    """Return a size as vertical and horizontal number; None for anything else, such as the padding "SAME"."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    return pair if len(pair) == 2 and all(type(number) is int for number in pair) else None
