"""Run an ONNX file with ONNX Runtime, from arrays to arrays."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import ConfigError, WeightsError
from ppcls.onnx_graph import node_outputs, with_outputs

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_FLOATS: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


def is_installed(package: str = "onnxruntime") -> bool:
    """Tell whether ONNX Runtime, or another package, can be imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # a stand-in without a specification
        return False


def onnx_digest(file: Path) -> str:
    """Return the SHA-256 of an ONNX file, ``onnx_sha256`` in ``inference.yml``."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_onnx(file: Path, described: Mapping[str, Any]) -> None:
    """Raise an error for an ONNX file that is damaged or belongs to another export.

    Args:
        file: ``inference.onnx``.
        described: ``Global`` of the description. Without `onnx_sha256` (an earlier version) nothing is
            compared.

    Raises:
        WeightsError: if they differ.
    """
    digest = described.get("onnx_sha256")
    if digest is not None and onnx_digest(file) != digest.lower():
        raise WeightsError(
            f"{file} does not have the SHA-256 that its description says ({digest}): the file is damaged or "
            "comes from another export. Copy the whole folder again, or export again"
        )


class OnnxProgram:
    """One network in an ONNX file, ready to run.

    Threads may share it, and run it at the same time. A pickled or copied program opens its file again, and
    so does a forked process, which does not have the threads of its parent.

    Attributes:
        outputs: names of its outputs, in order.
        metadata: texts that the file has by name.

    Args:
        file: the ONNX file.
        threads: CPU threads for one batch.
        device: ``cpu``; ``gpu`` or ``gpu:N``; ``any`` for the best that ONNX Runtime offers.
        inner: names of tensors inside the graph that become outputs, after those of the file.

    Raises:
        ConfigError: if ONNX Runtime is not installed, or cannot use the device; or if the network has not one
            input of floating-point numbers.
        WeightsError: if it cannot read the file.
    """

    def __init__(self, file: Path, threads: int, device: str = "any", inner: Sequence[str] = ()) -> None:
        self._file = file.absolute()
        self._threads = threads
        self._device = device
        self._inner = tuple(inner)
        self._opening = threading.Lock()
        self._process = os.getpid()
        self._session = self._open()
        self._input = self._check_input(self._session.get_inputs())
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def _check_input(self, inputs: Sequence[Any]) -> Any:
        """Return the only input of a network."""
        if len(inputs) != 1:
            named = f" ({', '.join(repr(value.name) for value in inputs)})" if inputs else ""
            raise ConfigError(
                f"{self._file} has {len(inputs)} inputs{named}, expected one: images [N, C, H, W]"
            )
        if inputs[0].type not in _FLOATS:
            raise ConfigError(
                f"{self._file} takes {inputs[0].type}, expected images of floating-point numbers after their "
                f"normalisation ({', '.join(_FLOATS)}); export it without the conversion inside"
            )
        return inputs[0]

    def _open(self) -> Any:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(
                f"{self._file} needs ONNX Runtime; install it with pip install 'ppcls[onnx]'"
            ) from None
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # its warnings are about graphs, which users cannot change
        providers = _providers(self._device, onnxruntime.get_available_providers())
        model: str | bytes = str(self._file)
        if self._inner:
            model = with_outputs(self._file.read_bytes(), self._inner)
            # Where the weights lie in files beside it, which a path says by itself.
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(self._file.parent)
            )
        try:
            return onnxruntime.InferenceSession(model, options, providers=providers)
        except (
            errors.Fail,
            errors.InvalidArgument,
            errors.InvalidGraph,
            errors.InvalidProtobuf,
            errors.NotImplemented,
            errors.RuntimeException,
        ) as error:
            raise WeightsError(f"{self._file} is not a model that ONNX Runtime can run: {error}") from error

    @property
    def input_shape(self) -> list[int | None]:
        """The shape of the images that it takes, [N, C, H, W]; None for a size that is open."""
        return [size if isinstance(size, int) and size > 0 else None for size in self._input.shape]

    @property
    def layers(self) -> dict[str, str]:
        """The tensors inside the graph that are not outputs of the file, in order, each with its operator.

        Raises:
            WeightsError: if the file is damaged.
        """
        try:
            inside = node_outputs(self._file.read_bytes())
        except ValueError as error:
            raise WeightsError(f"{self._file} is not an ONNX model: {error}") from error
        declared = self.outputs[: len(self.outputs) - len(self._inner)]
        return {name: kind for name, kind in inside.items() if name not in declared}

    def layer_shapes(self) -> dict[str, list[int | str | None]]:
        """Return the shape for one image of each of `layers` that has one value for each image."""
        layers = self.layers
        whole = OnnxProgram(self._file, self._threads, self._device, list(layers))
        batch = whole._input.shape[0]
        outputs = [output for output in whole._session.get_outputs() if output.name in layers]
        return {o.name: o.shape[1:] for o in outputs if len(o.shape) > 1 and o.shape[0] == batch}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(OnnxProgram, self._file, self._threads, self._device, self._inner), ()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run a batch [N, C, H, W]; return the first output, a classifier's [N, classes]."""
        return self.run(batch, self.outputs[:1])[0]

    def run(self, batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """Run a batch [N, C, H, W]; return the named outputs, float32.

        A file with a fixed batch size is run several times; missing images are copies of the last one.

        Raises:
            ConfigError: if the network needs images of another shape, or an output is not one value for each
                image.
        """
        fixed, *image = self._input.shape
        step = fixed if isinstance(fixed, int) else len(batch)
        if any(isinstance(n, int) and n != m for n, m in zip(image, batch.shape[1:], strict=True)):
            raise ConfigError(
                f"{self._file} takes images {image}, and here they are {list(batch.shape[1:])}; the "
                "transforms must end in that shape, and a network of a DistillationModel may have its own "
                "input_size"
            )
        dtype = _FLOATS[self._input.type]
        parts = [
            self._run_one(list(outputs), _filled(batch[start : start + step], step, dtype))
            for start in range(0, len(batch), step)
        ]
        for name, value in zip(outputs, parts[0], strict=True):
            if value.ndim == 0 or len(value) != step:
                found = f"the tensor {name!r} of {self._file} has the shape {list(value.shape)}"
                raise ConfigError(f"{found} for {step} images, which is not one value for each image")
        joined = (np.concatenate(values) for values in zip(*parts, strict=True))
        return [values[: len(batch)].astype(np.float32) for values in joined]

    def _run_one(self, outputs: list[str], images: np.ndarray) -> list[np.ndarray]:
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        try:
            found: list[np.ndarray] = self._own_session().run(outputs, {self._input.name: images})
        except (errors.Fail, errors.InvalidArgument, errors.RuntimeException) as error:
            raise ConfigError(
                f"{self._file} cannot run on images of the shape {list(images.shape[1:])}: {error}"
            ) from error
        return found

    def _own_session(self) -> Any:
        """Return a session of this process."""
        if self._process != os.getpid():
            with self._opening:
                if self._process != os.getpid():
                    self._session = self._open()
                    self._process = os.getpid()
        return self._session


def _filled(images: np.ndarray, count: int, dtype: type[np.floating[Any]]) -> np.ndarray:
    """Return `count` images, the last one repeated."""
    missing = count - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)] if missing else [images]).astype(
        dtype
    )


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    kind, _, number = device.partition(":")
    if kind == "any":
        return list(available)
    if kind == "cpu":
        return [_CPU]
    if _CUDA not in available:
        raise ConfigError(
            f"device {device!r}: ONNX Runtime cannot use a GPU here (it offers {', '.join(available)}); "
            "install onnxruntime-gpu, or use device='cpu' or engine='paddle_inference'"
        )
    return [(_CUDA, {"device_id": int(number or 0)}), _CPU]
