"""How long an exported network takes in each engine and precision on this machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.cpu.processor import available_cores, computes_bfloat16, processor_name
from ppcls.deploy.engines import open_network
from ppcls.errors import ConfigError
from ppcls.onnx_program import is_installed
from ppcls.runtime import DESCRIPTION, ONNX, Exported, find_program, gpu_index, read_description

_ROUNDS = 30
_SECONDS = 20.0
_FEWEST = 5


@dataclass(frozen=True)
class Latency:
    """Times of one engine and precision.

    Attributes:
        engine: ``paddle_inference`` or ``onnxruntime``.
        precision: ``float32`` or ``bfloat16``.
        milliseconds: median time of a batch, by batch size; empty if it could not be measured.
        difference: largest difference of an output from Paddle Inference in float32.
        reason: why it could not be measured.
    """

    engine: str
    precision: str
    milliseconds: dict[int, float]
    difference: float = 0.0
    reason: str = ""


def measure_latency(
    model_dir: str | os.PathLike[str],
    batch_sizes: Sequence[int] = (1, 8),
    *,
    device: str = "auto",
    threads: int | None = None,
    rounds: int = _ROUNDS,
) -> list[Latency]:
    """Measure the network alone, without reading images, on random numbers; all engines take turns.

    Args:
        model_dir: folder written by `ppcls export`.
        batch_sizes: numbers of images in a batch.
        device: as in :class:`ppcls.deploy.Predictor`.
        threads: CPU threads; None for one on each core.
        rounds: measurements of each; fewer, but at least 5, if they take more than 20 s.

    Raises:
        ConfigError: if the description does not say what images the network takes, or a batch is too large
            for the memory.
        WeightsError: if a file is missing or damaged.
    """
    files = find_program(Path(model_dir))
    described: dict[str, Any] = (
        {} if files.description is None else read_description(files.description)["Global"]
    )
    shape = described.get("image_shape")
    if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise ConfigError(
            f"{Path(model_dir) / DESCRIPTION}: Global.image_shape: expected [C, H, W], got {shape}"
        )
    found: list[Latency] = []
    networks: dict[tuple[str, str], Any] = {}
    for engine, precision, reason in _candidates(files, device):
        if reason:
            found.append(Latency(engine, precision, {}, reason=reason))
            continue
        networks[engine, precision] = open_network(
            files,
            described,
            engine=engine,
            precision=precision,
            device=device,
            threads=threads or available_cores(),
        )
    batches = {size: _random_images(size, shape) for size in batch_sizes}
    times = {size: _take_turns(networks, batch, rounds) for size, batch in batches.items()}
    sample = next(iter(batches.values()))
    expected = networks["paddle_inference", "float32"](sample)
    measured = [
        Latency(
            *key,
            {size: statistics.median(times[size][key]) for size in batches},
            float(np.abs(run(sample) - expected).max()),
        )
        for key, run in networks.items()
    ]
    return measured + found


def latency_table(latencies: Sequence[Latency], threads: int | None = None) -> str:
    """Return the table that `ppcls predict --benchmark` prints."""
    sizes = list(latencies[0].milliseconds)
    count = threads or available_cores()
    noun = "thread" if count == 1 else "threads"
    titles = [f"batch {size}" for size in sizes]
    lines = [
        f"{processor_name() or 'processor of unknown name'}, {count} {noun}; median ms of a batch",
        f"{'engine':18}{'precision':11}" + "".join(f"{t:>12}" for t in titles) + f"{'difference':>12}",
    ]
    for one in latencies:
        head = f"{one.engine:18}{one.precision:11}"
        if one.reason:
            lines.append(f"{head} not measured: {one.reason}")
            continue
        values = "".join(f"{one.milliseconds[size]:12.2f}" for size in sizes)
        lines.append(f"{head}{values}{one.difference:12.1e}")
    return "\n".join(
        [
            *lines,
            "The network alone, on random numbers; difference: largest of an output from the first line's",
        ]
    )


def _random_images(count: int, shape: Sequence[int]) -> np.ndarray:
    try:
        return np.random.default_rng(0).standard_normal((count, *shape), np.float32)
    except (MemoryError, ValueError) as error:
        raise ConfigError(f"batch size: {count}: no memory for so many images of {shape}") from error


def _candidates(files: Exported, device: str) -> list[tuple[str, str, str]]:
    """Return engine, precision, and why it cannot be measured here, if so."""
    on_gpu = device != "cpu" and gpu_index(device) is not None
    bfloat16 = "" if computes_bfloat16() else "this processor does not compute in bfloat16 (it needs AVX-512)"
    onnx = "" if is_installed() else "ONNX Runtime is not installed (pip install 'ppcls[onnx]')"
    if files.files.place(ONNX) is None:
        onnx = f"no {ONNX} in the folder (export with -o Global.export_onnx=True)"
    elsewhere = "it is measured on the CPU alone (--device cpu)" if on_gpu else ""
    return [
        ("paddle_inference", "float32", ""),
        ("paddle_inference", "bfloat16", elsewhere or bfloat16),
        ("onnxruntime", "float32", elsewhere or onnx),
    ]


def _take_turns(
    networks: dict[tuple[str, str], Any], batch: np.ndarray, rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Return milliseconds of each network and round; the first two calls of each are not counted."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in networks}
    for run in networks.values():
        run(batch)
        run(batch)
    begin = time.perf_counter()
    for number in range(rounds):
        if number >= _FEWEST and time.perf_counter() - begin > _SECONDS:
            break
        for key, run in networks.items():
            start = time.perf_counter()
            run(batch)
            times[key].append((time.perf_counter() - start) * 1000)
    return times
