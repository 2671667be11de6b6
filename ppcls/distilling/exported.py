"""Teachers that other programs or an export wrote: folders for Paddle Inference, and ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.arch.foreign import are_probabilities, cpu_threads
from ppcls.config.nodes import Node
from ppcls.distilling.teacher import (
    CHANNELS,
    Preprocessing,
    Teacher,
    normalization,
    require_rgb,
    shape_of,
    side_of,
)
from ppcls.errors import ConfigError, WeightsError
from ppcls.onnx_program import OnnxProgram
from ppcls.runtime import (
    DESCRIPTION,
    PROGRAMS,
    find_program,
    onnx_description,
    read_description,
)

EXPORTED = (DESCRIPTION, *PROGRAMS)
_USUAL_SIDE = 224
_ASSUMED = "they are assumed to be normalised as for ImageNet"


def from_export(folder: Path) -> Teacher:
    """Return the network in a folder for Paddle Inference."""
    files = find_program(folder)
    node: Node = {"name": "PaddleInferenceModel", "path": str(folder.absolute())}
    shown = f"the exported network {folder}"
    if files.description is None:
        note = f"{folder} has no {DESCRIPTION}, so nothing says how its images are normalised: {_ASSUMED}"
        return Teacher(shown, node["name"], node, notes=(note,))
    return _described(Teacher(shown, node["name"], node), read_description(files.description))


def _described(teacher: Teacher, content: Mapping[str, Any]) -> Teacher:
    """Return an exported teacher with what its description says.

    Raises:
        ConfigError: if it takes other images than those of a project, or gives no logits.
    """
    about = content["Global"]
    shape = shape_of(about.get("image_shape"), teacher.shown)
    if about.get("output") == "features":
        raise ConfigError(f"teacher: {teacher.shown} gives features, expected logits or probabilities")
    preprocess = content.get("PreProcess")
    chain = preprocess.get("transform_ops") if isinstance(preprocess, Mapping) else None
    ours = content.get("ppcls")
    require_rgb(teacher.shown, [*(chain or []), *([ours] if isinstance(ours, Mapping) else [])])
    return replace(
        teacher,
        classes=about.get("class_num"),
        names=_described_names(content),
        preprocessing=Preprocessing(side_of(shape), *normalization(chain)),
    )


def _described_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    post = content.get("PostProcess")
    for options in post.values() if isinstance(post, Mapping) else ():
        if isinstance(options, Mapping) and isinstance(options.get("label_list"), list):
            return tuple(map(str, options["label_list"]))
    return None


def from_onnx(file: Path, side: int | None = None) -> Teacher:
    """Return the network in an ONNX file; a trial tells its classes and whether it ends with softmax.

    Args:
        file: the file.
        side: of the images for the trial, where the file does not say it; None for the usual one.
    """
    if not file.is_file():
        raise WeightsError(f"teacher: {file}: there is no such file")
    program = OnnxProgram(file, cpu_threads())
    shape = program.input_shape
    if len(shape) != 4 or shape[1] not in (None, CHANNELS):
        raise ConfigError(
            f"teacher: {file} takes an input of the shape {shape}, expected images [N, {CHANNELS}, H, W]"
        )
    if shape[0] is not None and shape[0] > 1:
        raise ConfigError(
            f"teacher: {file} takes batches of {shape[0]} images alone; export it with an open number of "
            "images"
        )
    node: Node = {"name": "OnnxModel", "path": str(file.absolute())}
    teacher = Teacher(f"the ONNX model {file}", node["name"], node)
    description = onnx_description(file, program.metadata)
    if description is None:
        teacher = replace(teacher, notes=(f"{file} does not say how its images are normalised: {_ASSUMED}",))
    else:
        teacher = _described(teacher, description)
    size = side_of(shape) or teacher.preprocessing.size
    usual = side or _USUAL_SIDE
    height, width = (size, size) if isinstance(size, int) else size or (usual, usual)
    noise = np.random.default_rng(0).standard_normal((2, CHANNELS, height, width)).astype(np.float32)
    answer = program(noise)
    if answer.ndim != 2:
        raise ConfigError(f"teacher: {file} gives an output of the shape {list(answer.shape)}, not logits")
    if are_probabilities(answer):
        node["probabilities"] = True
    preprocessing = replace(teacher.preprocessing, size=size)
    return replace(teacher, classes=answer.shape[1], preprocessing=preprocessing)
