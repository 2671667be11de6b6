"""Run an exported program with Paddle Inference, from arrays to arrays."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import MAX_NODES_OF_DATA, parse_yaml, read_yaml
from ppcls.errors import ConfigError, WeightsError
from ppcls.files import FileSet
from ppcls.job import end_on_sigterm

PROGRAMS = ("inference.json", "inference.pdmodel")
PARAMS = "inference.pdiparams"
DESCRIPTION = "inference.yml"
ONNX = "inference.onnx"
ONNX_DESCRIPTION = "inference_yml"  # key in the metadata of an ONNX file: the content of inference.yml
# Parameters first and programs last, so that an existing program always has its parameters.
EXPORTED = (PARAMS, f"{PARAMS}.info", DESCRIPTION, ONNX, "inference.pdmodel", "inference.json")


def export_files(folder: Path) -> FileSet:
    """Return the files of an export as a set that is replaced as a whole."""
    return FileSet(folder, "inference", EXPORTED, last=(ONNX, *PROGRAMS))


@dataclass(frozen=True)
class Exported:
    """The files that are needed to run an export.

    Attributes:
        program: ``inference.json`` of Paddle 3, else ``inference.pdmodel``.
        params: its parameters.
        description: ``inference.yml``; None if there is none.
        files: all of them.
    """

    program: Path
    params: Path
    description: Path | None
    files: FileSet


def find_program(folder: Path) -> Exported:
    """Return the files of an exported folder; the program of Paddle 3 is preferred.

    Raises:
        ConfigError: if it is a file.
        WeightsError: if there is no program, or if its parameters are missing or empty. Paddle itself would
            then run with arbitrary values in memory.
    """
    if folder.is_file():
        raise ConfigError(f"{folder} is a file, expected the folder of an export")
    files = export_files(folder)
    program = next((path for path in map(files.place, PROGRAMS) if path is not None), None)
    if program is None:
        what = "holds neither" if folder.is_dir() else "does not exist, so has neither"
        raise WeightsError(f"{folder} {what} {' nor '.join(PROGRAMS)}; write it with `ppcls export`")
    params = files.place(PARAMS)
    if params is None or params.stat().st_size == 0:
        state = "is missing" if params is None else "is empty"
        raise WeightsError(
            f"{folder / PARAMS} {state}; the program {program.name} is of no use without its parameters"
        )
    return Exported(program, params, files.place(DESCRIPTION), files)


def read_description(file: Path) -> dict[str, Any]:
    """Return the content of an ``inference.yml``, with a section ``Global`` that is a map.

    Raises:
        ConfigError: if it cannot be read, or a value of ``Global`` has a wrong type.
    """
    return checked_description(read_yaml(file, MAX_NODES_OF_DATA), file)


def checked_description(content: Any, file: Path) -> dict[str, Any]:
    """Return a description with a section ``Global`` that is a map.

    Args:
        content: content of an ``inference.yml``.
        file: where it comes from, for messages.

    Raises:
        ConfigError: if a value of ``Global`` has a wrong type.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected the sections Global, PreProcess and PostProcess")
    content["Global"] = content.get("Global") or {}
    if not isinstance(content["Global"], dict):
        raise ConfigError(f"{file}: Global: expected a map")
    for key, (kind, wanted) in _TYPES.items():
        value = content["Global"].get(key)
        if key in content["Global"] and type(value) is not kind:  # a bool is an int, too
            raise ConfigError(f"{file}: Global.{key}: expected {wanted}, got {value!r:.100}")
    return content


def onnx_description(file: Path, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the description of an ONNX file of ppcls, in its metadata or beside it; None for other files.

    Args:
        file: the ONNX file.
        metadata: the texts in it, by name.

    Raises:
        ConfigError: as `read_description`.
    """
    text = metadata.get(ONNX_DESCRIPTION)
    if text is not None:
        return checked_description(parse_yaml(text, str(file), MAX_NODES_OF_DATA), file)
    beside = file.parent / DESCRIPTION
    return read_description(beside) if file.name == ONNX and beside.is_file() else None


# A text such as 'false' would be treated as true.
_TYPES: dict[str, tuple[type, str]] = {
    "softmax": (bool, "true or false"),
    "output": (str, "probabilities, logits or features"),
    "params_size": (int, "a whole number"),
    "params_sha256": (str, "64 hexadecimal digits"),
    "onnx_batch_size": (int, "a whole number"),
    "onnx_sha256": (str, "64 hexadecimal digits"),
}


def fingerprint(params: Path) -> dict[str, Any]:
    """Return the entries of ``inference.yml`` about the parameters: ``params_size``, ``params_sha256``."""
    digest = hashlib.sha256()
    with params.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return {"params_size": params.stat().st_size, "params_sha256": digest.hexdigest()}


def check_params(params: Path, described: Mapping[str, Any]) -> None:
    """Raise an error for parameters that are damaged or belong to another export; Paddle would use them.

    Args:
        params: the file.
        described: ``Global`` of the description. Without `params_sha256` (an earlier version) only
            `params_size` is compared, without both (another exporter) nothing.

    Raises:
        WeightsError: if they differ.
    """
    size = described.get("params_size")
    digest = described.get("params_sha256")
    found = params.stat().st_size
    if size is not None and found != size:
        raise WeightsError(
            f"{params} has {found} bytes, its {DESCRIPTION} says {size}: the file was not copied "
            "to its end, or comes from another export"
        )
    if digest is not None and fingerprint(params)["params_sha256"] != digest.lower():
        raise WeightsError(
            f"{params} does not have the SHA-256 that its {DESCRIPTION} says ({digest}): the file is damaged "
            "or comes from another export. Copy the whole folder again, or export again"
        )


class Program:
    """One exported network, ready to run.

    Threads may share it; only one of them runs at a time. To run several at the same time, open one program
    per thread. (Paddle can clone a predictor, but that takes as long as opening another one, and most of the
    memory.) A pickled or copied program opens its file again.

    Attributes:
        outputs: names of its outputs, in order.

    Args:
        file: ``inference.json`` or ``inference.pdmodel``.
        params: its parameters; None for ``inference.pdiparams`` in the same folder.
        device: ``cpu``, ``gpu``, ``gpu:1``, or ``auto`` for a GPU if there is one.
        threads: CPU threads for one batch.
        mkldnn: use oneDNN on the CPU; faster, and equal to about seven digits.
        precision: ``float32``, or ``bfloat16`` for the operators for which oneDNN supports it on the CPU.

    Raises:
        ConfigError: if the device is not available, or does not support this precision.
        WeightsError: if Paddle cannot read the program.
    """

    def __init__(
        self,
        file: Path,
        params: Path | None = None,
        *,
        device: str = "cpu",
        threads: int = 1,
        mkldnn: bool = True,
        precision: str = "float32",
    ) -> None:
        from paddle import inference

        end_on_sigterm()
        params = params or file.with_name(PARAMS)
        # Absolute, because a copy may be opened in another working directory.
        self._options: dict[str, Any] = {"file": file.absolute(), "params": params.absolute()}
        self._options |= {"device": device, "threads": threads, "mkldnn": mkldnn}
        self._options["precision"] = precision
        config = inference.Config(str(file), str(params))
        config.disable_glog_info()
        gpu = gpu_index(device)
        if precision == "bfloat16" and (gpu is not None or not mkldnn):
            raise ConfigError("precision: bfloat16 is computed by oneDNN, on the CPU alone")
        if gpu is not None:
            config.enable_use_gpu(256, gpu)
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads)
            if not mkldnn:
                config.disable_mkldnn()
            if precision == "bfloat16":
                config.enable_mkldnn_bfloat16()
        try:
            self._predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"Paddle cannot read {file}: {short_reason(error)}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self.outputs: list[str] = list(self._predictor.get_output_names())
        self.renew_lock()
        _OPEN.add(self)

    def renew_lock(self) -> None:
        """Make a new lock: in a forked process no thread is running the program."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Program, **self._options), ()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run a batch [N, C, H, W], float32; return the first output, a classifier's [N, classes]."""
        return self.run(batch, self.outputs[:1])[0]

    def run(self, batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """Run a batch [N, C, H, W], float32; return the named outputs.

        Raises:
            ConfigError: if the network needs images of another shape.
        """
        images = np.ascontiguousarray(batch, np.float32)
        with self._lock:  # the predictor holds input and outputs, and the next batch replaces them
            self._input.copy_from_cpu(images)
            try:
                self._predictor.run()
            except (RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"{self._options['file']} cannot run on images of the shape {list(images.shape[1:])}: "
                    f"{short_reason(error)}. The transforms must end in the shape it was exported for"
                ) from error
            return [self._predictor.get_output_handle(name).copy_to_cpu() for name in outputs]


def short_reason(error: Exception) -> str:
    """Return the line of Paddle's error that says what is wrong; the rest is about places in its code."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    chosen = [line for line in lines if "Error:" in line] or lines[-1:]
    return chosen[0][:200].rstrip(".") if chosen else type(error).__name__


_OPEN: weakref.WeakSet[Program] = weakref.WeakSet()


def _renew_locks() -> None:
    for program in list(_OPEN):
        program.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def gpu_index(device: str) -> int | None:
    """Return the index of the GPU `device`; None for the CPU."""
    from paddle.device import cuda, is_compiled_with_cuda

    gpus = cuda.device_count() if is_compiled_with_cuda() else 0
    kind, _, index = str(device).partition(":")
    if kind == "cpu" or (kind == "auto" and not gpus):
        return None
    if kind not in ("auto", "gpu") or (index and not index.isdigit()):
        raise ConfigError(f"device {device!r}: expected auto, cpu, gpu or gpu:N")
    if int(index or 0) >= gpus:
        raise ConfigError(f"device {device!r}: Paddle sees {gpus} GPUs; use device='cpu'")
    return int(index or 0)
