"""Depthwise convolutions of maps of few pixels, as one matrix product for each channel.

Paddle's kernel for the CPU computes about 0.4 multiplications in a nanosecond. A convolution of one channel
is also a product of its pixels with a matrix, [input pixels, output pixels], in which each weight stands
where its tap meets a pixel. The matrix has mostly zeros, but a library for matrices is so much faster that up
to 8x8 pixels the product takes a sixth to a thirtieth of the time; docs/performance.md has measurements.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import paddle
from paddle import Tensor

Pair = tuple[int, int]

_MOST_ENTRIES = 2**14  # of a matrix: 16x16 pixels to 8x8
# So many multiplications of a matrix product cost as much as one in the kernel: measured on an Intel Xeon
# (Sapphire Rapids), one thread, with a margin of two for smaller products.
_RATIO = 25


def products_pay(batch: int, inputs: int, outputs: int, taps: int) -> bool:
    """Tell whether products are faster than Paddle's kernel, for the forward and the backward pass.

    Args:
        batch: number of images.
        inputs: pixels of an input map.
        outputs: pixels of an output map.
        taps: weights of one channel.
    """
    if inputs * outputs > _MOST_ENTRIES:
        return False
    return (
        inputs * (batch + taps) <= _RATIO * batch * taps
    )  # making the matrix costs as much as `taps` images


def multiply(x: Tensor, weight: Tensor, size: Pair, steps: Pair, border: Pair) -> Tensor:
    """Return the depthwise convolution of maps, without bias.

    Args:
        x: maps [N, C, H, W], float32.
        weight: [C, 1, kernel height, kernel width].
        size: height and width of the output.
        steps: vertical and horizontal stride.
        border: rows above and below, and columns on both sides, of zeros.

    Returns:
        Maps [N, C, *size].
    """
    batch, channels, height, width = x.shape
    places = _places((weight.shape[2], weight.shape[3]), (height, width), size, steps, border)
    matrices = weight.reshape([channels, -1]).matmul(places)
    pixels = x.flatten(2).transpose([1, 0, 2])
    product = pixels.bmm(matrices.reshape([channels, height * width, size[0] * size[1]]))
    return product.transpose([1, 0, 2]).reshape([batch, channels, *size])


@lru_cache(maxsize=16)  # of at most 1.6 MB for a kernel of 5x5
def _places(kernel: Pair, size: Pair, output: Pair, steps: Pair, border: Pair) -> Tensor:
    """Return where each tap meets which pixel: ones and zeros, [taps, input pixels * output pixels]."""
    down, across = (_along(*axis) for axis in zip(kernel, size, output, steps, border, strict=True))
    places = down[:, None, :, None, :, None] * across[None, :, None, :, None, :]
    return paddle.to_tensor(places.reshape(kernel[0] * kernel[1], -1), place=paddle.CPUPlace())


def _along(kernel: int, size: int, output: int, step: int, border: int) -> np.ndarray:
    """Return the same along one axis: [taps, inputs, outputs]."""
    taps, inputs, outputs = np.ogrid[:kernel, :size, :output]
    return (inputs == outputs * step + taps - border).astype(np.float32)
