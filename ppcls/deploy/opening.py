"""Open what `ppcls export` wrote: a folder, or an ONNX file alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.config import MAX_NODES_OF_DATA, parse_yaml
from ppcls.deploy.engines import check_threads, onnx_device, open_network
from ppcls.errors import ConfigError, WeightsError
from ppcls.onnx_program import OnnxProgram
from ppcls.runtime import (
    DESCRIPTION,
    ONNX_DESCRIPTION,
    Program,
    checked_description,
    find_program,
    gpu_index,
    read_description,
)

_SAYS = "it says how images are prepared and what the classes are called"


@dataclass(frozen=True)
class Export:
    """An exported network that is ready to run.

    Attributes:
        run: the program.
        description: content of ``inference.yml``.
        source: file that has the description, for messages.
        place: returns the path of another file of the export; None if it has no such file.
    """

    run: Program | OnnxProgram
    description: dict[str, Any]
    source: Path
    place: Callable[[str], Path | None]


def open_export(
    path: Path, *, engine: str, precision: str, device: str, threads: int, mkldnn: bool
) -> Export:
    """Open an export.

    Args:
        path: a folder, or an ``.onnx`` file with its description inside.
        engine: see :func:`ppcls.deploy.engines.open_network`, as for all further options.
        precision: of the computation.
        device: where it computes.
        threads: CPU threads for one batch.
        mkldnn: use oneDNN.

    Raises:
        ConfigError: if the description is missing or wrong, or options do not fit.
        WeightsError: if a file is missing, damaged, has several outputs or cannot be read.
    """
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        found = _open_onnx(path, engine, precision, device, threads)
    else:
        found = _open_folder(
            path, engine=engine, precision=precision, device=device, threads=threads, mkldnn=mkldnn
        )
    if len(found.run.outputs) != 1:
        raise WeightsError(f"{path} has {len(found.run.outputs)} outputs, expected one")
    return found


def _open_folder(path: Path, **options: Any) -> Export:
    files = find_program(path)
    if files.description is None:
        raise ConfigError(
            f"{path / DESCRIPTION} is missing: {_SAYS}. `ppcls export` writes it; for a folder exported "
            "elsewhere write one with Global, PreProcess.transform_ops (as Infer.transforms in the recipe) "
            "and PostProcess"
        )
    described = read_description(files.description)
    run = open_network(files, described["Global"], **options)
    return Export(run, described, files.description, files.files.place)


def _open_onnx(path: Path, engine: str, precision: str, device: str, threads: int) -> Export:
    if engine not in ("auto", "onnxruntime"):
        raise ConfigError(f"engine: {engine!r}; an ONNX file runs in onnxruntime (or auto)")
    if precision != "float32":
        raise ConfigError(f"precision: {precision!r}; ONNX Runtime computes in float32")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; `ppcls export -o Global.export_onnx=True` writes one")
    check_threads(threads)
    gpu = None if device == "cpu" else gpu_index(device)
    run = OnnxProgram(path, threads, onnx_device(device, gpu))
    text = run.metadata.get(ONNX_DESCRIPTION)
    if text is None:
        raise ConfigError(
            f"{path}: its metadata have no {ONNX_DESCRIPTION}: {_SAYS}. Export it again with this version "
            f"of ppcls, or put it as inference.onnx into a folder with the other exported files"
        )
    described = checked_description(parse_yaml(text, str(path), MAX_NODES_OF_DATA), path)
    return Export(run, described, path, lambda name: None)
