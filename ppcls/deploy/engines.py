"""Engines that run an exported network: Paddle Inference, and ONNX Runtime where there is an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ppcls.cpu.processor import available_cores, computes_bfloat16, processor_name
from ppcls.errors import ConfigError, WeightsError
from ppcls.logger import LOGGER
from ppcls.onnx_program import OnnxProgram, check_onnx, is_installed
from ppcls.runtime import ONNX, Exported, Program, check_params, gpu_index

Engine = Literal["auto", "paddle_inference", "onnxruntime"]
Precision = Literal["float32", "bfloat16"]
ENGINES: tuple[Engine, ...] = ("auto", "paddle_inference", "onnxruntime")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_MOST_THREADS = 1024  # with many more, the engines do not finish


def open_network(
    files: Exported,
    described: Mapping[str, Any],
    *,
    engine: str = "auto",
    precision: str = "float32",
    device: str = "auto",
    threads: int = 1,
    mkldnn: bool = True,
) -> Program | OnnxProgram:
    """Open an exported network in an engine. The files are compared with their description first.

    Args:
        files: of the export.
        described: ``Global`` of its description.
        engine: ``paddle_inference``; ``onnxruntime``; or ``auto``: ONNX Runtime on the CPU in float32, if the
            export has an ``inference.onnx`` that its description knows, for batches of any size, and ONNX
            Runtime is installed; otherwise Paddle Inference.
        precision: ``float32``, or ``bfloat16`` (Paddle Inference on the CPU). A processor that does not
            compute in bfloat16 computes in float32, and a warning says so.
        device: ``cpu``, ``gpu``, ``gpu:1`` or ``auto``.
        threads: CPU threads for one batch.
        mkldnn: let Paddle Inference use oneDNN on the CPU.

    Raises:
        ConfigError: for values that do not exist or do not fit together.
        WeightsError: if a file is missing, damaged, or cannot be read.
    """
    for name, value, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise ConfigError(f"{name}: {value!r}; expected {', '.join(known[:-1])} or {known[-1]}")
    check_threads(threads)
    check_params(files.params, described)
    gpu = None if device == "cpu" else gpu_index(device)
    onnx = files.files.place(ONNX)
    if engine == "auto":
        free = precision == "float32" and mkldnn and gpu is None
        fills_batches = described.get("onnx_batch_size", 1) > 1  # with copies, if there are fewer images
        is_ours = onnx is not None and "onnx_sha256" in described
        usable = is_ours and not fills_batches and is_installed()
        engine = "onnxruntime" if free and usable else "paddle_inference"
    if engine == "onnxruntime":
        return _open_onnx(onnx, files.files.folder, described, precision, onnx_device(device, gpu), threads)
    if precision == "bfloat16" and gpu is None and mkldnn and not computes_bfloat16():
        LOGGER.warning(
            "precision: this processor (%s) does not compute in bfloat16, which needs AVX-512; the network "
            "runs in float32",
            processor_name() or "unknown",
        )
        precision = "float32"
    return Program(
        files.program, files.params, device=device, threads=threads, mkldnn=mkldnn, precision=precision
    )


def check_threads(threads: int) -> None:
    """Raise an error for a number of threads with which the engines do not finish."""
    if threads > _MOST_THREADS:
        raise ConfigError(
            f"threads: {threads}; expected at most {_MOST_THREADS}. More threads than cores (here "
            f"{available_cores()}) do not make it faster"
        )


def onnx_device(device: str, gpu: int | None) -> str:
    """Return the device for ONNX Runtime, which may see a GPU or not: `auto` takes the CPU then."""
    if gpu is None or device == "auto":
        return "cpu"
    return f"gpu:{gpu}"


def _open_onnx(
    file: Path | None, folder: Path, described: Mapping[str, Any], precision: str, device: str, threads: int
) -> OnnxProgram:
    if precision != "float32":
        raise ConfigError(f"precision: {precision}: ONNX Runtime computes in float32; use paddle_inference")
    if file is None:
        raise WeightsError(
            f"{folder / ONNX} is missing; write it with `ppcls export -o Global.export_onnx=True`, or use "
            "the engine paddle_inference"
        )
    check_onnx(file, described)
    return OnnxProgram(file, threads, device)
