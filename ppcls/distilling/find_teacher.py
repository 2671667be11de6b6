"""What a user means by a teacher: a name, weights, a run, or a network of another program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.config.arch import without_weights
from ppcls.config.nodes import Node
from ppcls.distilling.exported import EXPORTED, from_export, from_onnx
from ppcls.distilling.teacher import (
    Preprocessing,
    Teacher,
    normalization,
    require_rgb,
    shape_of,
    side_of,
)
from ppcls.errors import ConfigError, WeightsError, hint
from ppcls.report.network_tables import network_names
from ppcls.report.runs import BEST, RunFolder, find_runs, is_run, read_run
from ppcls.weights import find_file, has_torch_layout, read_params, torch_options
from ppcls.weights.parameter_files import SUFFIXES
from ppcls.weights.torch_file import TORCH_SUFFIXES

_WEIGHTS = (*SUFFIXES, *TORCH_SUFFIXES)
# Options of a network that ask for features, which no method of a project needs.
_FEATURES = ("return_patterns", "return_stages", "stop_after", "freeze_befor")


def find_teacher(
    given: str | os.PathLike[str], network: str | None = None, side: int | None = None
) -> Teacher:
    """Return the teacher that a text names.

    Args:
        given: a registered network, a weights file, the folder of a run, an ONNX file, or an exported folder.
        network: the registered network of a weights file.
        side: of the images of the project, if that is known; an ONNX file of open size is tried on such.

    Raises:
        ConfigError: if there is none, with the nearest name; or if it does not take colour images.
        WeightsError: if a file cannot be read.
    """
    text = os.fspath(given)
    path = Path(text).expanduser()
    if network is not None:
        return _from_weights(_known(network), find_file(text, "teacher"))
    if text in network_names():
        return Teacher(text, text)
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".onnx":
        return from_onnx(path, side)
    if path.name in EXPORTED and path.is_file():
        return from_export(path.parent)
    try:
        file = find_file(text, "teacher")
    except WeightsError as error:
        if os.sep in text or path.suffix:
            raise
        raise ConfigError(
            f"teacher: {text!r} is no network, and there is no such file or folder."
            f"{hint(text, network_names())} `ppcls models` lists all networks"
        ) from error
    if not file.name.endswith(_WEIGHTS):
        raise ConfigError(f"teacher: {file} is not a weights file ({', '.join(_WEIGHTS)}) or an ONNX file")
    if is_run(file.parent):
        return _from_run(read_run(file.parent), file.stem)
    raise ConfigError(
        f"teacher: which network are the weights {file} for? Say it with --teacher-network NAME"
    )


def _known(network: str) -> str:
    if network not in network_names():
        raise ConfigError(f"teacher_network: unknown network {network!r}.{hint(network, network_names())}")
    return network


def _from_folder(folder: Path) -> Teacher:
    if is_run(folder):
        return _from_run(read_run(folder), BEST)
    if any((folder / name).is_file() for name in EXPORTED):
        return from_export(folder)
    inside = find_runs(folder)
    if inside:
        shown = ", ".join(map(str, inside[:8]))
        raise ConfigError(f"teacher: {folder} is not the folder of a run; it holds {shown}")
    raise ConfigError(f"teacher: {folder} is neither the folder of a run nor that of an exported network")


def _from_weights(network: str, file: Path) -> Teacher:
    node: Node = {"name": network, "pretrained": str(file.absolute())}
    if has_torch_layout(file):
        node |= torch_options(network, read_params(file))
    return Teacher(f"{network} ({file})", network, node)


def _from_run(run: RunFolder, which: str) -> Teacher:
    """Return the network that a run deploys, with its weights."""
    shape = shape_of(run.settings.get("image_shape"), f"the run {run.folder}")
    require_rgb(f"the run {run.folder}", _evaluation_chain(run))
    spec = run.arch.main
    weights = run.weights(which)
    if f"{weights.name}_student" in run.tags():
        weights = weights.with_name(f"{weights.name}_student")  # that network alone
    options = without_weights(spec.node())
    node = {key: value for key, value in options.items() if key not in _FEATURES}
    node |= {"class_num": spec.class_count, "pretrained": str(weights.absolute())}
    names = run.class_names
    return Teacher(
        f"{spec.name} of the run {run.folder}",
        spec.name,
        node,
        spec.class_count,
        None if names is None else tuple(names),
        Preprocessing(side_of(shape), *normalization(_evaluation_chain(run))),
    )


def _evaluation_chain(run: RunFolder) -> Any:
    node: Any = run.config
    for step in ("DataLoader", "Eval", "dataset", "transform_ops"):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node
