"""Size and latency of an exported network beside those of the teachers of its recipe."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls.arch import build_empty
from ppcls.arch.foreign import ForeignModel
from ppcls.config import ArchSpec, Recipe
from ppcls.console import without_native_messages
from ppcls.cpu.processor import processor_name
from ppcls.engine.export import ExportedFiles
from ppcls.engine.tracing import Deployed, trace_program
from ppcls.errors import PpclsError
from ppcls.logger import only_warnings
from ppcls.runtime import PARAMS, Program, find_program

_ROUNDS = 30
_FEWEST = 3
_SECONDS = 2.0  # for all networks together
# Threads wait for each other: with two, a small network took forty times as long while other programs ran.
_THREADS = 1
_LARGEST = 100_000_000  # parameters of a network that can be traced and measured in a few seconds


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs.

    Attributes:
        title: name and architecture.
        teacher: whether it is a frozen network of the recipe; otherwise it is the exported one.
        parameters: number of them; None if it is a file.
        size: bytes of its parameters in an exported folder.
        milliseconds: shortest time for one image; None if it was not measured.
        reason: why it was not measured.
    """

    title: str
    teacher: bool
    parameters: int | None
    size: int | None
    milliseconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Candidate:
    cost: NetworkCost
    run: Callable[[np.ndarray], Any] | None


def measure_costs(config: Recipe, exported: ExportedFiles, *, seconds: float = _SECONDS) -> list[NetworkCost]:
    """Return the costs of the frozen networks of a recipe, without their weights, and of an exported network.

    All take turns in Paddle Inference; a teacher that is a file runs in its own engine. A teacher that cannot
    be built, traced, or is very large, is not measured.

    Args:
        config: the recipe.
        exported: the exported network.
        seconds: time for measurements, beside that for building and tracing; each network is run at least
            three times.
    """
    arch, shape = config.arch, tuple(config.Global.image_shape)
    device = config.Global.device
    with tempfile.TemporaryDirectory() as folder, only_warnings():
        frozen = [child for child in arch.children if child.head.frozen and child is not arch.main]
        found = [
            _teacher(arch, child, shape, device, Path(folder) / str(place))
            for place, child in enumerate(frozen)
        ]
        found.append(_student(arch, exported, device))
        times = _take_turns({place: one.run for place, one in enumerate(found) if one.run}, shape, seconds)
    costs = []
    for place, one in enumerate(found):
        costs.append(NetworkCost(**{**vars(one.cost), "milliseconds": times.get(place)}))
    return costs


def cost_table(costs: Sequence[NetworkCost]) -> str:
    """Return the table that `ppcls export` prints."""
    where = f"{processor_name() or 'this machine'}, {_THREADS} thread"
    width = max(len(cost.title) for cost in costs) + 2
    lines = [f"{'network':{width}}{'parameters':>12}{'size':>12}{'one image':>13}   ({where})"]
    for cost in costs:
        count = "" if cost.parameters is None else f"{cost.parameters / 1e6:.2f} M"
        size = "" if cost.size is None else f"{cost.size / 1e6:.2f} MB"
        latency = "" if cost.milliseconds is None else f"{cost.milliseconds:.2f} ms"
        remark = cost.reason and f"   {cost.reason}"
        lines.append(f"{cost.title:{width}}{count:>12}{size:>12}{latency:>13}{remark}")
    return "\n".join([*lines, *_comparisons(costs)])


def _comparisons(costs: Sequence[NetworkCost]) -> list[str]:
    *teachers, student = costs
    lines = []
    for teacher in teachers:
        parts = []
        if teacher.size and student.size:
            parts.append(f"1/{teacher.size / student.size:.1f} of the size")
        if teacher.milliseconds and student.milliseconds:
            parts.append(f"{teacher.milliseconds / student.milliseconds:.1f} times as fast")
        if parts:
            lines.append(f"{student.title} against {teacher.title}: {', '.join(parts)}")
    return lines


def _title(spec: ArchSpec) -> str:
    return f"{spec.title} ({spec.head.name})" if spec.title else spec.head.name


def _built(arch: ArchSpec, spec: ArchSpec) -> Any:
    """Return one of the networks of `arch` without its weights, or the only one."""
    if spec is arch:
        return build_empty(arch)
    return build_empty(arch.only({spec.title})).network(spec.title)


def _student(arch: ArchSpec, exported: ExportedFiles, device: str) -> _Candidate:
    files = find_program(exported.folder)
    parameters = _parameters(_built(arch, arch.main))
    cost = NetworkCost(_title(arch.main), False, parameters, files.params.stat().st_size)
    return _Candidate(cost, _open(files.program, files.params, device))


def _teacher(arch: ArchSpec, spec: ArchSpec, shape: tuple[int, ...], device: str, folder: Path) -> _Candidate:
    """Build a frozen network without weights; say why if it cannot be measured."""
    try:
        network = _built(arch, spec)
        if isinstance(network, ForeignModel):
            network.threads = _THREADS
            file = Path(str(spec.options.get("path", "")))
            size = file.stat().st_size if file.is_file() else None
            return _Candidate(NetworkCost(_title(spec), True, None, size), _in_memory(network))
        network.eval()
        parameters = _parameters(network)
        cost = NetworkCost(_title(spec), True, parameters, 4 * parameters)
        if parameters > _LARGEST:
            return _unmeasured(cost, f"not measured: above {_LARGEST // 1_000_000} M parameters")
        with without_native_messages():
            trace_program(Deployed(network, "logits"), shape, "paddle", folder)
        params = folder / PARAMS
        cost = NetworkCost(_title(spec), True, parameters, params.stat().st_size)
        return _Candidate(cost, _open(folder / "inference.json", params, device))
    except PpclsError as error:
        return _unmeasured(NetworkCost(_title(spec), True, None, None), f"not measured: {error}")


def _unmeasured(cost: NetworkCost, reason: str) -> _Candidate:
    return _Candidate(NetworkCost(**{**vars(cost), "reason": reason.splitlines()[0]}), None)


def _parameters(network: paddle.nn.Layer) -> int:
    return sum(int(np.prod(parameter.shape)) for parameter in network.parameters())


def _open(program: Path, params: Path, device: str) -> Program:
    where = device if device.startswith("gpu") else "cpu"
    return Program(program, params, device=where, threads=_THREADS)


def _in_memory(network: ForeignModel) -> Callable[[np.ndarray], Any]:
    def run(batch: np.ndarray) -> Any:
        with paddle.no_grad():
            return network(paddle.to_tensor(batch))

    return run


def _take_turns(
    networks: Mapping[int, Callable[[np.ndarray], Any]], shape: Sequence[int], seconds: float
) -> dict[int, float]:
    """Return the shortest milliseconds of each network for one image; the first run does not count.

    Not the median: on a machine that other programs use too, that says how often a network had to wait.
    """
    image = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    times: dict[int, list[float]] = {key: [] for key in networks}
    end = time.perf_counter() + seconds
    for number in range(_ROUNDS + 1):
        if number > _FEWEST and time.perf_counter() > end:
            break
        for key, run in networks.items():
            begin = time.perf_counter()
            run(image)
            if number:
                times[key].append((time.perf_counter() - begin) * 1000)
    return {key: min(values) for key, values in times.items()}
