"""Layers and cost of a network, found by tracing it, without weights, memory and computation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn

from ppcls._paddle import to_static
from ppcls.arch.foreign import ForeignModel
from ppcls.arch.network import build_network
from ppcls.arch.theseus import TheseusLayer, bracketed, dotted
from ppcls.config.arch import without_weights
from ppcls.config.lazily import built_lazily
from ppcls.config.nodes import Node
from ppcls.errors import ConfigError

# Two images instead of one, because a leading 1 would be ambiguous.
_BATCH = 2
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "conv3d", "depthwise_conv3d")
_TRANSPOSED = ("conv2d_transpose", "depthwise_conv2d_transpose", "conv3d_transpose")
_PRODUCTS = ("matmul", "bmm")
# Buffers that Paddle lists among the parameters of a BatchNorm.
_STATISTICS = ("_mean", "_variance")


@dataclass(frozen=True)
class LayerOutput:
    """One layer of a network.

    Attributes:
        descriptor: its name for `return_patterns`, such as ``blocks[3].conv0``.
        kind: its class.
        shape: shape of its output for one image, such as ``[64, 56, 56]`` (channels, height, width). If an
            image has several parts, such as windows, it is written ``64 x [49, 96]``; a layer with several
            outputs has several shapes. Empty for a layer that does not run on its own, so that its output
            cannot be returned.
        runs: how often it runs in one forward pass; `shape` is that of the last output.
        stage: number of the stage whose last layer it is, for ``return_stages``; None for other layers.
    """

    descriptor: str
    kind: str
    shape: str
    runs: int
    stage: int | None


@dataclass(frozen=True)
class Inspection:
    """Layers and cost of a network.

    Attributes:
        name: its registered name.
        image_shape: [C, H, W] of one image.
        layers: all its layers in order of definition.
        parameters: number of trainable numbers, without BatchNorm statistics; None if unknown.
        multiply_adds: multiplications (each with its addition) of one image in convolutions and matrix
            products, attention included. Normalisation, activations, pooling and sums of layers are not
            counted, as in the "FLOPs" of most papers; `paddle.flops` counts some of them and gives a few
            percent more. None if unknown.
    """

    name: str
    image_shape: tuple[int, ...]
    layers: tuple[LayerOutput, ...]
    parameters: int | None
    multiply_adds: int | None


def inspect_network(node: Node, image_shape: Sequence[int], where: str = "Arch") -> Inspection:
    """Build the network of a node without memory for parameters, and trace it.

    A network in a file (OnnxModel) is run instead; its layers are the outputs of the file and, of an ONNX
    file, the tensors inside its graph.

    Args:
        node: as for `build_network`; weights are not loaded.
        image_shape: [C, H, W] of the images.
        where: the node's config path, for messages.

    Raises:
        ConfigError: if the node is not a network for images, or the network does not accept this shape.
    """
    with paddle.utils.unique_name.guard():
        network = built_lazily(lambda: build_network(without_weights(node), where))
    if isinstance(network, ForeignModel):
        return _run_file(network, str(node["name"]), image_shape)
    if not isinstance(network, TheseusLayer):
        raise ConfigError(f"{where}: {node['name']} has no layers that could be listed")
    return trace_network(network, image_shape, where)


def trace_network(network: TheseusLayer, image_shape: Sequence[int], where: str = "Arch") -> Inspection:
    """Trace a network. Afterwards it stays in eval mode and cannot be used.

    Args:
        network: the network, which may be built under `paddle.LazyGuard`.
        image_shape: [C, H, W] of the images.
        where: the beginning of messages.

    Raises:
        ConfigError: if it does not accept images of that shape.
    """
    network.eval()
    outputs: dict[str, tuple[str, int]] = {}
    for path, layer in network.named_sublayers():
        layer.register_forward_post_hook(_Recorder(outputs, path))
    with paddle.utils.unique_name.guard():
        ops = _operators(network, tuple(image_shape), f"{where}: {network.registered_name}")
    return Inspection(
        name=network.registered_name,
        image_shape=tuple(image_shape),
        layers=tuple(_layers(network, outputs)),
        parameters=_parameter_count(network),
        multiply_adds=sum(map(_multiply_adds, ops)) // _BATCH,
    )


def _run_file(network: ForeignModel, name: str, image_shape: Sequence[int]) -> Inspection:
    network.eval()
    network.update_res(network.outputs)
    given = network(paddle.zeros([_BATCH, *image_shape]))
    layers = [LayerOutput(key, "output", _describe(given[key]), 1, None) for key in network.outputs]
    layers += [LayerOutput(*inner, 1, None) for inner in network.inner_layers()]
    return Inspection(name, tuple(image_shape), tuple(layers), None, None)


class _Recorder:
    """A forward post hook that records the shape of a layer's output."""

    def __init__(self, outputs: dict[str, tuple[str, int]], path: str) -> None:
        self.outputs = outputs
        self.path = path

    def __call__(self, layer: nn.Layer, inputs: Any, output: Any) -> None:
        runs = self.outputs.get(self.path, ("", 0))[1]
        self.outputs[self.path] = (_describe(output), runs + 1)


def _operators(network: nn.Layer, image_shape: tuple[int, ...], title: str) -> list[Any]:
    """Return the operators of a forward pass of `_BATCH` images; hooks get symbols instead of tensors."""
    spec = paddle.static.InputSpec([_BATCH, *image_shape], "float32", name="x")
    try:
        static = to_static(network, input_spec=[spec], full_graph=True)
        ops = list(static.forward.concrete_program.main_program.global_block().ops)
    except (TypeError, ValueError, RuntimeError, IndexError, AssertionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = re.sub(r"^\[Hint: |\] \(at [^)]*\)$", "", lines[-1]) if lines else type(error).__name__
        raise ConfigError(f"{title} does not run on images of shape {list(image_shape)}: {reason}") from error
    except OSError as error:  # Paddle writes code into a file
        text = f"{error.strerror}: {error.filename}" if error.strerror else str(error)
        raise ConfigError(f"{title} cannot be traced: {text}") from error
    first = next((op for op in ops if _kind(op) in _CONVOLUTIONS), None)
    if first is not None:  # tracing itself does not compare channels
        wanted = first.operands_source()[1].shape[1] * first.attrs()["groups"]
        if first.operands_source()[0].shape[1] != wanted:
            raise ConfigError(f"{title} takes images of {wanted} channels, not {image_shape[0]}")
    return ops


def _kind(op: Any) -> str:
    return str(op.name()).removeprefix("pd_op.")


def _layers(network: TheseusLayer, outputs: dict[str, tuple[str, int]]) -> list[LayerOutput]:
    stages = {dotted(pattern): index for index, pattern in enumerate(network.stages_pattern)}
    return [
        LayerOutput(bracketed(path), type(layer).__name__, *outputs.get(path, ("", 0)), stages.get(path))
        for path, layer in network.named_sublayers()
    ]


def _describe(output: Any) -> str:
    if isinstance(output, dict):
        return ", ".join(f"{key}: {_describe(value)}" for key, value in output.items())
    if isinstance(output, list | tuple):
        return ", ".join(map(_describe, output))
    shape = [int(side) for side in getattr(output, "shape", [])]
    if not shape or shape[0] % _BATCH:
        return f"{shape} for the whole batch" if shape else type(output).__name__
    several = shape[0] // _BATCH
    return f"{several} x {shape[1:]}" if several > 1 else str(shape[1:])


def _parameter_count(network: nn.Layer) -> int:
    named = network.named_parameters()
    return sum(math.prod(value.shape) for name, value in named if not name.endswith(_STATISTICS))


def _multiply_adds(op: Any) -> int:
    """Return the multiplications of one operator of a traced program."""
    name = _kind(op)
    if name in _CONVOLUTIONS:  # each output value is one window times one filter
        return math.prod(op.results()[0].shape) * math.prod(op.operands_source()[1].shape[1:])
    if name in _TRANSPOSED:  # each input value is spread over one window by one filter
        return math.prod(op.operands_source()[0].shape) * math.prod(op.operands_source()[1].shape[1:])
    if name in _PRODUCTS:
        left = op.operands_source()[0].shape
        inner = left[-2] if op.attrs().get("transpose_x") else left[-1]
        return math.prod(op.results()[0].shape) * inner
    return 0
