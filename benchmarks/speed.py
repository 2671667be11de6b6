"""What a training step costs with and without each thing that makes it fast, beside a bare loop and others.

    python benchmarks/speed.py [--minutes 3.6] [--sizes 32 64 224] [--write]
        [--reference CHECKOUT [--reference-python PYTHON]] [--torch PYTHON]

A ResNet34 teaches a ResNet18 (cross-entropy and KL divergence, momentum). Each side is a process of its own,
with one thread unless its name says otherwise, that makes a step when it is asked to; all sides take turns, a
step each, until the time is over. Printed are medians, and medians of the ratios of steps of the same turn,
by the wall clock and by processor time, which other work on the machine disturbs less. With `--write` the
tables replace those in docs/performance.md.

`--reference` is a checkout of PaddleClas; its networks run in a loop like that of its engine. `--torch` is a
Python that has torch and torchvision.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SERVER = Path(__file__).with_name("speed_sides.py")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/speed.py: begin -->", "<!-- benchmarks/speed.py: end -->"
BATCHES = {32: 64, 64: 32, 224: 8}  # images of a step, by their size
ALL = "ppcls, 1 thread"
EAGER = {"Arch.frozen_engine": "eager"}


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        kind: the function of speed_sides.py that builds its step.
        options: changes of the recipe.
        environment: changes of the environment; None removes a variable.
        python: the interpreter, if it is not this one.
        sizes: of the images it is measured with.
    """

    kind: str = "build_ppcls"
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str | None] = field(default_factory=dict)
    python: str = sys.executable
    sizes: Sequence[int] = tuple(BATCHES)


OFF = {"PPCLS_BLAS": "off", "PPCLS_MALLOC": "off"}
SIDES = {
    ALL: Side(),
    "teacher in bfloat16": Side(options={"Arch.frozen_precision": "bfloat16"}),
    "teacher through Paddle Inference": Side(options={"Arch.frozen_engine": "paddle_inference"}),
    "teacher eager": Side(options=EAGER),
    "convolutions by Paddle's kernels": Side(options={"Global.fast_small_convs": False}),
    "PPCLS_MALLOC=off": Side(environment={"PPCLS_MALLOC": "off"}),
    "PPCLS_BLAS=off": Side(environment={"PPCLS_BLAS": "off"}),
    "everything off": Side(options={**EAGER, "Global.fast_small_convs": False}, environment=OFF),
    "all cores": Side(environment={"OMP_NUM_THREADS": None}),
    "all cores, teacher not ahead": Side(
        options={"Global.teacher_ahead": False}, environment={"OMP_NUM_THREADS": None}
    ),
    "all cores, teacher in bfloat16": Side(
        options={"Arch.frozen_precision": "bfloat16"}, environment={"OMP_NUM_THREADS": None}
    ),
    "student alone": Side(kind="build_student"),
    "engine, teacher eager": Side(options={**EAGER, "metrics": False}),
    "bare loop, teacher eager": Side(kind="build_bare"),
    **{
        f"evaluation of {network}, {engine}": Side(
            "build_evaluation", {"network": network, "engine": engine}, sizes=(224,)
        )
        for network in ("ResNet18", "PPLCNet_x1_0")
        for engine in ("paddle_inference", "eager")
    },
}


class Process:
    """The process of a side."""

    def __init__(self, side: Side) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "2"}
        for name, value in side.environment.items():
            if value is None:
                environment.pop(name)
            else:
                environment[name] = value
        command = [
            side.python,
            "-W",
            "ignore",
            str(SERVER),
            side.kind,
            json.dumps(dict(side.options)),
        ]
        self._process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ask(self, **asked: int) -> tuple[float, float]:
        """Let the side make a step; return its seconds by wall clock and processor time.

        Raises:
            RuntimeError: with what it printed, if it has ended.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError("".join(process.stderr.readlines()[-5:]))
        wall, cpu = json.loads(line)
        return wall, cpu

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


Times = dict[str, list[tuple[float, float]]]


def measure(processes: dict[str, Process], names: Iterable[str], size: int, seconds: float) -> Times:
    """Let the sides `names` take turns until the time is over, at least three turns.

    Sides that fail are named on standard error and left out from then on.
    """
    end = time.monotonic() + seconds
    times: Times = {}
    for name in [name for name in names if name in processes]:
        try:
            processes[name].ask(size=size, batch=BATCHES[size])
            times[name] = []
        except RuntimeError as error:
            print(f"{name}: {str(error).strip()}", file=sys.stderr)
            processes.pop(name).end()
    order = list(times)
    while order and (len(times[order[0]]) < 3 or time.monotonic() < end):
        for name in order:
            times[name].append(processes[name].ask())
        order.append(order.pop(0))  # nobody always follows the same neighbour
    return times


def ratio(times: Times, name: str, other: str, clock: int = 0) -> float | None:
    """Return the median of the ratios of two sides, None if one of them is not there."""
    if name not in times or other not in times:
        return None
    return statistics.median(a[clock] / b[clock] for a, b in zip(times[name], times[other], strict=True))


# Rows of the second table: two sides, and what is to be reached.
RATIOS = (
    (ALL, "everything off", "≤ 0.75; with `PPCLS_BLAS=off` on AMD ≤ 0.60"),
    ("all cores", "reference", "64 px, as installed: on AMD ≤ 0.15"),
    (ALL, "reference", ""),
    ("PPCLS_BLAS=off", "reference", "64 px: on AMD ≤ 0.60"),
    ("all cores, teacher in bfloat16", "reference", "64 px, on AMD with AVX-512 ≤ 0.125"),
    ("teacher in bfloat16", "torch", "32 px ≤ 1.05, 64 px ≤ 0.95"),
    (ALL, "student alone", "64 px ≤ 1.40"),
    ("teacher in bfloat16", "student alone", "64 px ≤ 1.22"),
    ("engine, teacher eager", "bare loop, teacher eager", "≤ 1.02"),
    ("all cores", ALL, "64 px ≤ 0.80 with two cores"),
    ("all cores", "all cores, teacher not ahead", ""),
    (ALL, "teacher through Paddle Inference", "1 without the extra `onnx`"),
    (ALL, "teacher eager", ""),
    (ALL, "convolutions by Paddle's kernels", ""),
    (ALL, "PPCLS_MALLOC=off", ""),
    (ALL, "PPCLS_BLAS=off", "1 where nothing has to be set"),
    ("evaluation of ResNet18, paddle_inference", "evaluation of ResNet18, eager", "≤ 0.60"),
    ("evaluation of PPLCNet_x1_0, paddle_inference", "evaluation of PPLCNet_x1_0, eager", "≤ 0.35"),
)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def render(found: Mapping[int, Times], turns: str) -> str:
    """Return both tables in Markdown."""
    sizes = list(found)
    heads = [f"{size} px, batch {BATCHES[size]}" for size in sizes]
    lines = [
        turns,
        "",
        f"| ms of a step: wall (processor) | {' | '.join(heads)} |",
        "|---" * (1 + len(sizes)) + "|",
    ]
    for name in dict.fromkeys(name for times in found.values() for name in times):
        cells = []
        for size in sizes:
            own = found[size].get(name)
            medians = [statistics.median(t[clock] for t in own) * 1000 for clock in (0, 1)] if own else []
            cells.append("{:.0f} ({:.0f})".format(*medians) if medians else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"| ratio: wall (processor) | {' | '.join(heads)} | goal |",
        "|---" * (2 + len(sizes)) + "|",
    ]
    for name, other, goal in RATIOS:
        pairs = [[ratio(found[size], name, other, clock) for clock in (0, 1)] for size in sizes]
        if any(pair[0] is not None for pair in pairs):
            cells = [f"{_shown(wall)} ({_shown(cpu)})" if wall is not None else "" for wall, cpu in pairs]
            lines.append(f"| {name} / {other} | {' | '.join(cells)} | {goal} |")
    return "\n".join(lines) + "\n"


def describe(found: Mapping[int, Times]) -> str:
    """Return where and how it was measured."""
    import numpy
    import paddle

    from ppcls import __version__
    from ppcls.cpu.processor import available_cores, processor_name

    counts = {size: len(next(iter(times.values()), ())) for size, times in found.items()}
    turns = ", ".join(f"{count} at {size} px" for size, count in counts.items())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    versions = {
        "ppcls": __version__,
        "Paddle": paddle.__version__,
        "numpy": numpy.__version__,
        "Python": platform.python_version(),
    }
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    processor = processor_name() or platform.processor()
    return (
        f"{time.strftime('%Y-%m-%d')}, {processor}, {available_cores()} cores, load {load:.1f} at the end; "
        f"{used}. Turns: {turns}."
    )


def write(text: str) -> None:
    """Put the tables in place of those of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=3.6, help="for all sizes; starting the sides comes on top"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--sides", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--reference", metavar="CHECKOUT", help="a checkout of PaddleClas")
    parser.add_argument("--reference-python", metavar="PYTHON", help="one that has what the checkout needs")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python with torch and torchvision")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/performance.md")
    args = parser.parse_args(arguments)
    sides = dict(SIDES)
    if args.reference:
        checkout = {"checkout": str(Path(args.reference).resolve())}
        sides["reference"] = Side("build_reference", checkout, python=args.reference_python or sys.executable)
    if args.torch:
        sides["torch"] = Side("build_torch", python=args.torch)
    for name in args.sides or ():
        if name not in sides:
            others = f"there is no {name!r}; there are {', '.join(map(repr, sides))}"
            given = name in ("reference", "torch")
            parser.error(f"--sides: {name} needs --{name}, see --help" if given else f"--sides: {others}")
    if args.write and args.sides:
        parser.error("--write: the page has the tables of all sides; leave out --sides")
    processes = {name: Process(side) for name, side in sides.items() if name in (args.sides or sides)}
    found: dict[int, Times] = {}
    try:
        for size in args.sizes:
            names = [name for name in processes if size in sides[name].sizes]
            found[size] = measure(processes, names, size, args.minutes * 60 / len(args.sizes))
    except KeyboardInterrupt:
        print("interrupted: these are the sizes that were complete", file=sys.stderr)
    finally:
        for process in processes.values():
            process.end()
    text = render(found, describe(found))
    print(text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
