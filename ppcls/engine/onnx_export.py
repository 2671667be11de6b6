"""Write a network as ONNX, with all in its metadata that a program needs to use it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.config import dump_yaml, single
from ppcls.engine.tracing import INPUT, Deployed, trace_program
from ppcls.errors import ConfigError
from ppcls.runtime import ONNX, ONNX_DESCRIPTION, PARAMS

_OPSET = 17


def write_onnx(
    deployed: Deployed,
    image_shape: tuple[int, ...],
    folder: Path,
    *,
    batch: int | None = None,
    description: Mapping[str, Any],
) -> None:
    """Convert the program of `deployed` to ``inference.onnx``.

    Args:
        deployed: the network.
        image_shape: [C, H, W].
        folder: receives the file.
        batch: number of images in a batch; None leaves it open.
        description: content of ``inference.yml``, with the names of the classes; it becomes metadata.

    Raises:
        ConfigError: if paddle2onnx is missing, or cannot convert the network.
    """
    try:
        import paddle2onnx
    except ImportError as error:
        raise ConfigError(
            f"Global.export_onnx: it needs paddle2onnx ({error}); install it with pip install 'ppcls[onnx]' "
            "(it has no build for Python 3.13)"
        ) from None
    part = folder / "onnx"
    trace_program(deployed, image_shape, "paddle", part, batch)
    try:
        # Without an optimize_tool: the default would let polygraphy install packages by itself.
        paddle2onnx.export(
            str(part / "inference.json"),
            str(part / PARAMS),
            str(folder / ONNX),
            opset_version=_OPSET,
            optimize_tool="None",
        )
    except (RuntimeError, ValueError, UnboundLocalError) as error:
        # It prints its own errors, and continues until it misses its own result: UnboundLocalError.
        raise ConfigError("Global.export_onnx: paddle2onnx cannot convert this network, see above") from error
    shutil.rmtree(part)
    _finish(folder / ONNX, image_shape, batch, description)


def _finish(
    file: Path, image_shape: tuple[int, ...], batch: int | None, description: Mapping[str, Any]
) -> None:
    """Add the metadata, and take out what is not used."""
    import onnx  # paddle2onnx needs it, too

    model = onnx.load(str(file))
    values = {
        **_described(description),
        "input_name": INPUT,
        "input_shape": [batch, *image_shape],
        "output_name": model.graph.output[0].name,
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    _drop_unused_constants(model.graph)
    onnx.helper.set_model_props(model, {**texts, ONNX_DESCRIPTION: dump_yaml(description)})
    onnx.save(model, str(file))


def _drop_unused_constants(graph: Any) -> None:
    """Remove constants that no operator reads; ONNX Runtime warns of each whenever the file is opened."""
    read = {value.name for value in graph.output}
    waiting = list(graph.node)
    while waiting:  # also the operators inside branches and loops
        node = waiting.pop()
        read.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                read.update(value.name for value in inner.output)
                waiting.extend(inner.node)
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        if node.output[0] not in read:
            graph.node.remove(node)


def _described(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what other programs ask for most, piece by piece; the description itself says everything."""
    settings = description["Global"]
    found: dict[str, Any] = {"model_name": settings.get("model_name", ""), "output": settings["output"]}
    operations = (description.get("PreProcess") or {}).get("transform_ops") or []
    for node in operations:
        name, options = single(node, "PreProcess.transform_ops")
        if name == "NormalizeImage":
            found |= {key: options[key] for key in ("scale", "mean", "std")}
    if operations:
        decode = (description.get("ppcls") or {}).get("DecodeImage") or {}
        found["color"] = "RGB" if decode.get("to_rgb", True) else "BGR"
    for options in (description.get("PostProcess") or {}).values():
        if options.get("label_list"):
            found["names"] = list(options["label_list"])
    return found
