"""An exported program behind Paddle Inference: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppcls.errors import ConfigError, WeightsError

PROGRAMS = ("inference.json", "inference.pdmodel")
PARAMS = "inference.pdiparams"


def find_program(folder: Path) -> Path:
    """Return the program in an exported folder: Paddle 3's if there is one, else the legacy one.

    Raises:
        WeightsError: if there is neither, or if its parameters are missing or empty. Paddle itself would run
            on whatever is in memory then.
    """
    for name in PROGRAMS:
        if (folder / name).is_file():
            break
    else:
        what = "holds neither" if folder.is_dir() else "does not exist, so has neither"
        raise WeightsError(f"{folder} {what} {' nor '.join(PROGRAMS)}; write it with `ppcls export`")
    params = folder / PARAMS
    if not params.is_file() or params.stat().st_size == 0:
        state = "is empty" if params.is_file() else "is missing"
        raise WeightsError(f"{params} {state}; the program {name} is of no use without its parameters")
    return folder / name


class Program:
    """One exported network, ready to run.

    Attributes:
        outputs: names of what it gives, in order.

    Args:
        file: ``inference.json`` or ``inference.pdmodel``, with ``inference.pdiparams`` beside it.
        device: ``cpu``, ``gpu``, ``gpu:1``, or ``auto`` for a GPU if there is one.
        threads: CPU threads for one batch.
        mkldnn: use oneDNN on the CPU; faster, and equal to about seven digits.

    Raises:
        ConfigError: if the device cannot be had.
        WeightsError: if Paddle cannot read the program.
    """

    def __init__(self, file: Path, *, device: str = "cpu", threads: int = 1, mkldnn: bool = True) -> None:
        from paddle import inference

        config = inference.Config(str(file), str(file.with_name(PARAMS)))
        config.disable_glog_info()
        gpu = _gpu_index(device)
        if gpu is not None:
            config.enable_use_gpu(256, gpu)
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads)
            if not mkldnn:
                config.disable_mkldnn()
        try:
            self._predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"Paddle cannot read {file}: {str(error).strip().splitlines()[-1]}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self.outputs: list[str] = list(self._predictor.get_output_names())

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Run a batch [N, C, H, W], float32; return the first output, a classifier's [N, classes]."""
        return self.run(batch, self.outputs[:1])[0]

    def run(self, batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """Run a batch [N, C, H, W], float32; return the named outputs."""
        self._input.copy_from_cpu(np.ascontiguousarray(batch, np.float32))
        self._predictor.run()
        return [self._predictor.get_output_handle(name).copy_to_cpu() for name in outputs]


def _gpu_index(device: str) -> int | None:
    """Return which GPU `device` means, None for the CPU."""
    from paddle.device import cuda, is_compiled_with_cuda

    gpus = cuda.device_count() if is_compiled_with_cuda() else 0
    kind, _, index = device.partition(":")
    if kind == "cpu" or (kind == "auto" and not gpus):
        return None
    if kind not in ("auto", "gpu") or (index and not index.isdigit()):
        raise ConfigError(f"device {device!r}: expected auto, cpu, gpu or gpu:N")
    if int(index or 0) >= gpus:
        raise ConfigError(f"device {device!r}: Paddle sees {gpus} GPUs; use device='cpu'")
    return int(index or 0)
