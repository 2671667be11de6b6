"""Whether a program saves time: how much it saves in a run, and how long it takes to make.

All is estimated from the network, not measured, so that the same recipe chooses the same engine in every
run, even on a busy machine. The numbers below were measured with one thread of an Intel Xeon (Sapphire
Rapids) and are cautious: small networks save more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import paddle
from paddle import Tensor, nn

from ppcls._paddle import groups_of

FEWEST = 1000  # images; with fewer, no network saves one second
_DENSE = 40e9  # multiplications per second of Paddle's convolutions and matrix products
_DEPTHWISE = 2e9
_SAVED = 0.4  # share of the time that a program saves
# seconds to make a program: for any program, for each layer, for each parameter
_START = 0.5
_LAYER = 0.005
_PARAMETER = 0.1e-6
# ONNX Runtime: seconds to convert a program for it, and the share of the time that it saves
_CONVERTING = 4.0
_CONVERTED_SAVES = 0.08
_WORTH = 2.0  # the saving must be this many times the cost, because it is only an estimate


def pays(network: nn.Layer, image_shape: tuple[int, ...], images: int) -> bool:
    """Tell whether a program for a network saves clearly more time than making it costs.

    Args:
        network: the network in eval mode; it is run once, on one black image.
        image_shape: [C, H, W].
        images: number of images that it will get.
    """
    if images < FEWEST:
        return False
    return images * _seconds_saved(network, image_shape) > _WORTH * seconds_to_make(network)


def pays_to_convert(network: nn.Layer, image_shape: tuple[int, ...], images: int) -> bool:
    """Tell whether converting the program for ONNX Runtime saves clearly more time than it costs.

    Args:
        network: the network in eval mode; it is run once, on one black image.
        image_shape: [C, H, W].
        images: number of images that it will get.
    """
    return images * _CONVERTED_SAVES * seconds_of_program(network, image_shape) > _WORTH * _CONVERTING


def seconds_to_make(network: nn.Layer) -> float:
    """Return the estimated time to trace, write and open a program."""
    layers = sum(1 for _ in network.named_sublayers())
    parameters: int = sum(math.prod(value.shape) for value in network.parameters())
    return _START + _LAYER * layers + _PARAMETER * parameters


def _seconds_saved(network: nn.Layer, image_shape: tuple[int, ...]) -> float:
    """Return the estimated time saved for one image."""
    return _SAVED * _seconds(network, image_shape)


def seconds_of_program(network: nn.Layer, image_shape: tuple[int, ...]) -> float:
    """Return the estimated time that a program takes for one image."""
    return (1 - _SAVED) * _seconds(network, image_shape)


def pays_beside(teachers: float, students: Iterable[nn.Layer], image_shape: tuple[int, ...]) -> bool:
    """Tell whether a training that gives one of two cores to its teachers becomes faster.

    It does if they take over enough: about as much as one forward pass of the networks that train, or more.
    Otherwise two threads for the training are faster. Only dense layers count, because depthwise convolutions
    hardly gain from a second thread (`docs/performance.md` has the measurements).

    Args:
        teachers: time that the programs of the teachers take for one image, see :func:`seconds_of_program`.
        students: the networks that train, in eval mode; each is run once, on one black image. Layers
            whose weights are frozen do not count.
        image_shape: [C, H, W].
    """
    dense = [_seconds_by_kind(network, image_shape, trained=True)[0] for network in students]
    return teachers >= sum(dense)


def _seconds(network: nn.Layer, image_shape: tuple[int, ...]) -> float:
    """Return the estimated time that the network itself takes for one image."""
    return sum(_seconds_by_kind(network, image_shape))


def _seconds_by_kind(
    network: nn.Layer, image_shape: tuple[int, ...], *, trained: bool = False
) -> tuple[float, float]:
    """Return the estimated times of dense layers and of depthwise convolutions, or of those that train."""
    seconds = {_DENSE: 0.0, _DEPTHWISE: 0.0}

    def count(layer: Any, inputs: Any, output: Tensor) -> None:
        shape = layer.weight.shape
        rate = _DENSE
        per_value = shape[0]  # a linear layer's weight is [in, out], a convolution's [out, in / groups, h, w]
        if isinstance(layer, nn.Conv2D):
            per_value = math.prod(shape[1:])
            rate = _DEPTHWISE if 1 < groups_of(layer) == shape[0] else _DENSE
        seconds[rate] += math.prod(output.shape) * per_value / rate

    layers = [layer for layer in network.sublayers() if isinstance(layer, nn.Conv2D | nn.Linear)]
    if trained:
        layers = [layer for layer in layers if not layer.weight.stop_gradient]
    handles = [layer.register_forward_post_hook(count) for layer in layers]
    try:
        with paddle.no_grad():
            network(paddle.zeros([1, *image_shape]))
    finally:
        for handle in handles:
            handle.remove()
    return seconds[_DENSE], seconds[_DEPTHWISE]
