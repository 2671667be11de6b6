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
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/speed.py: begin -->", "<!-- benchmarks/speed.py: end -->"
BATCHES = {32: 64, 64: 32, 224: 8}  # images of a step, by their size
CLASSES = 100
ALL = "ppcls, 1 thread"
EAGER = {"Arch.frozen_engine": "eager"}


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        kind: the function of this file that builds its step.
        options: changes of the recipe.
        environment: changes of the environment; None removes a variable.
        python: the interpreter, if it is not this one.
    """

    kind: str = "build_ppcls"
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str | None] = field(default_factory=dict)
    python: str = sys.executable


OFF = {"PPCLS_BLAS": "off", "PPCLS_MALLOC": "off"}
SIDES = {
    ALL: Side(),
    "teacher in bfloat16": Side(options={"Arch.frozen_precision": "bfloat16"}),
    "teacher eager": Side(options=EAGER),
    "convolutions by Paddle's kernels": Side(options={"Global.fast_small_convs": False}),
    "PPCLS_MALLOC=off": Side(environment={"PPCLS_MALLOC": "off"}),
    "PPCLS_BLAS=off": Side(environment={"PPCLS_BLAS": "off"}),
    "everything off": Side(options={**EAGER, "Global.fast_small_convs": False}, environment=OFF),
    "all cores": Side(environment={"OMP_NUM_THREADS": None}),
    "student alone": Side(kind="build_student"),
    "engine, teacher eager": Side(options={**EAGER, "metrics": False}),
    "bare loop, teacher eager": Side(kind="build_bare"),
}


# --------------------------------------------------------------------------- one side, in its process


def recipe(folder: Path, size: int, batch: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of the distillation; without a teacher if an option says so.

    It has so many epochs that making a program for the teacher pays.
    """
    made: dict[str, Any] = {
        "Global": {"device": "cpu", "epochs": 10_000, "seed": 1, "eval_during_train": False},
        "Arch": {
            "name": "DistillationModel",
            "class_num": CLASSES,
            "freeze_params_list": [True, False],
            "models": [{"Teacher": {"name": "ResNet34"}}, {"Student": {"name": "ResNet18"}}],
        },
        "Loss": {
            "Train": [
                {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}},
                {
                    "DistillationKLDivLoss": {
                        "weight": 0.9,
                        "model_name_pairs": [["Student", "Teacher"]],
                        "temperature": 4,
                    }
                },
            ]
        },
        "Optimizer": {
            "name": "Momentum",
            "momentum": 0.9,
            "lr": {"name": "Cosine", "learning_rate": 0.01},
            "regularizer": {"name": "L2", "coeff": 1e-4},
        },
        "DataLoader": {
            "Train": {
                "dataset": {
                    "name": "ImageNetDataset",
                    "image_root": str(folder),
                    "cls_label_path": str(folder / "list.txt"),
                    "transform_ops": [{"DecodeImage": {}}, {"NormalizeImage": {"order": ""}}],
                },
                "sampler": {"name": "DistributedBatchSampler", "batch_size": batch, "shuffle": True},
                "loader": {"num_workers": 2},
            }
        },
        "Metric": {"Train": [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 5]}}]},
    }
    made["Global"] |= {"output_dir": str(folder / "output"), "image_shape": [3, size, size]}
    for key, value in options.items():
        if key == "metrics":
            made.pop("Metric")
        else:
            section, _, name = key.partition(".")
            made[section][name] = value
    return made


def random_batch(size: int, batch: int) -> tuple[Any, Any]:
    """Return images [batch, 3, size, size] and labels [batch, 1], the same on every side."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, size, size), dtype="float32")
    return images, rng.integers(0, CLASSES, (batch, 1))


def build_ppcls(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build a run of our engine, log lines and scalars included; return its step."""
    import cv2
    import numpy as np

    from ppcls.config import load_config
    from ppcls.data import Batch
    from ppcls.engine import Engine
    from ppcls.engine.hooks.base import call_hooks
    from ppcls.engine.start.trial import try_out
    from ppcls.engine.train import train_epoch
    from ppcls.logger import only_warnings

    picture = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "0.png"), picture)
    (folder / "list.txt").write_text(
        "\n".join(f"0.png {n % CLASSES}" for n in range(batch)), encoding="utf-8"
    )
    (folder / "recipe.yaml").write_text(json.dumps(recipe(folder, size, batch, options)), encoding="utf-8")
    images, labels = random_batch(size, batch)
    with only_warnings():
        run = Engine(load_config(str(folder / "recipe.yaml"))).build_run()
        try_out(run)
        run.parts.loader.close()
    run.parts.loader = SameBatch(Batch(images, labels, np.arange(batch)))
    call_hooks(run.hooks, "before_train", run)

    def step() -> None:
        run.progress.batch = 0
        train_epoch(run)

    return step


class SameBatch:
    """Stands in for a loader: compared are steps, not reading."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.dataset = None

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, start_batch: int = 0) -> Any:
        """Yield the batch."""
        yield self.batch


def build_student(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the bare loop without a teacher; the targets are stored."""
    return build_bare(size, batch, {**options, "teacher": False}, folder)


def build_bare(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build what one would write by hand with our networks, with the same settings; return its step."""
    import paddle
    from paddle.nn import functional as F

    from ppcls.arch import create_model
    from ppcls.cpu.memory import keep_freed_memory

    keep_freed_memory()
    student = create_model("ResNet18", class_num=CLASSES)
    teacher = create_model("ResNet34", class_num=CLASSES) if options.get("teacher", True) else None
    if teacher is not None:
        teacher.eval()
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.01, 100)
    decay = paddle.regularizer.L2Decay(1e-4)
    optimizer = paddle.optimizer.Momentum(schedule, 0.9, student.parameters(), weight_decay=decay)
    images, labels = random_batch(size, batch)
    stored = F.softmax(paddle.to_tensor(images.reshape(batch, -1)[:, :CLASSES]) / 4, -1)

    def step() -> None:
        image, label = paddle.to_tensor(images), paddle.to_tensor(labels)
        logits = student(image)
        target = stored
        if teacher is not None:
            with paddle.no_grad():
                target = F.softmax(teacher(image) / 4, -1)
        loss = F.cross_entropy(logits, label)
        loss = loss + 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, -1), target, "batchmean")
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        float(loss)

    return step


def build_reference(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the networks of a PaddleClas checkout in a loop like that of its engine; return its step."""
    sys.path[:] = [options["checkout"], *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    import paddle
    from paddle.nn import functional as F

    from ppcls.arch import build_model  # all of ppcls here is the checkout's
    from ppcls.utils import logger

    logger.init_logger()

    arch = recipe(folder, size, batch, {})["Arch"]
    for entry in arch["models"]:
        next(iter(entry.values())).update(class_num=arch["class_num"], pretrained=False)
    model = build_model({"Arch": {**arch, "pretrained_list": None}, "Global": {}})
    model.train()
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.01, 100)
    decay = paddle.regularizer.L2Decay(1e-4)
    optimizer = paddle.optimizer.Momentum(schedule, 0.9, trained, weight_decay=decay)
    images, labels = random_batch(size, batch)

    def step() -> None:
        image, label = paddle.to_tensor(images), paddle.to_tensor(labels)
        found = model(image)
        logits, target = found["Student"], F.softmax(found["Teacher"] / 4, -1)
        loss = F.cross_entropy(logits, label)
        loss = loss + 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, -1), target, "batchmean")
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        float(loss)

    return step


def build_torch(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the same with torch and torchvision; return its step."""
    import torch
    from torch.nn import functional as F
    from torchvision.models import resnet18, resnet34

    torch.set_num_threads(1)
    student, teacher = resnet18(num_classes=CLASSES), resnet34(num_classes=CLASSES).eval()
    optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    images, labels = random_batch(size, batch)

    def step() -> None:
        image, label = torch.from_numpy(images), torch.from_numpy(labels[:, 0])
        logits = student(image)
        with torch.no_grad():
            target = F.softmax(teacher(image) / 4, -1)
        loss = F.cross_entropy(logits, label)
        loss = loss + 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, -1), target, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss)

    return step


def serve(kind: str, options: Mapping[str, Any]) -> None:
    """Build steps and make them, as lines of standard input say, and answer with times."""
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    step: Callable[[], None] | None = None
    with tempfile.TemporaryDirectory() as name:
        for line in sys.stdin:
            asked = json.loads(line)
            if "size" in asked:
                step = None  # the networks before are freed first
                folder = Path(name) / str(asked["size"])
                folder.mkdir()
                step = globals()[kind](asked["size"], asked["batch"], options, folder)
                step()
            begin = time.perf_counter(), time.process_time()
            assert step is not None
            step()
            times = time.perf_counter() - begin[0], time.process_time() - begin[1]
            print(json.dumps(times), file=answers, flush=True)


# --------------------------------------------------------------------------- all sides


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
            __file__,
            "--serve",
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


def measure(processes: dict[str, Process], size: int, seconds: float) -> Times:
    """Let all sides take turns until the time is over, at least three turns.

    Sides that fail are named on standard error and left out from then on.
    """
    end = time.monotonic() + seconds
    times: Times = {}
    for name in list(processes):
        try:
            processes[name].ask(size=size, batch=BATCHES[size])
            times[name] = []
        except RuntimeError as error:
            print(f"{name}: {str(error).strip()}", file=sys.stderr)
            processes.pop(name).end()
    names = list(times)
    if not names:
        sys.exit("no side is left")
    while len(times[names[0]]) < 3 or time.monotonic() < end:
        for name in names:
            times[name].append(processes[name].ask())
        names.append(names.pop(0))  # nobody always follows the same neighbour
    return times


def ratio(times: Times, name: str, other: str, clock: int = 0) -> float | None:
    """Return the median of the ratios of two sides, None if one of them is not there."""
    if name not in times or other not in times:
        return None
    return statistics.median(a[clock] / b[clock] for a, b in zip(times[name], times[other], strict=True))


# Rows of the second table: two sides, and what is to be reached.
RATIOS = (
    (ALL, "everything off", "≤ 0.75; with `PPCLS_BLAS=off` on AMD ≤ 0.60"),
    (ALL, "reference", "on AMD ≤ 0.15"),
    ("teacher in bfloat16", "reference", "on AMD ≤ 0.125"),
    ("teacher in bfloat16", "torch", "32 px ≤ 1.05, 64 px ≤ 0.95"),
    (ALL, "student alone", "64 px ≤ 1.40"),
    ("teacher in bfloat16", "student alone", "64 px ≤ 1.22"),
    ("engine, teacher eager", "bare loop, teacher eager", "≤ 1.02"),
    ("all cores", ALL, "64 px ≤ 0.80 with two cores"),
    (ALL, "teacher eager", ""),
    (ALL, "convolutions by Paddle's kernels", ""),
    (ALL, "PPCLS_MALLOC=off", ""),
    (ALL, "PPCLS_BLAS=off", "1 where nothing has to be set"),
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

    turns = ", ".join(f"{len(next(iter(times.values())))} at {size} px" for size, times in found.items())
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
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.serve:
        serve(args.serve[0], json.loads(args.serve[1]))
        return
    sides = dict(SIDES)
    if args.reference:
        checkout = {"checkout": str(Path(args.reference).resolve())}
        sides["reference"] = Side("build_reference", checkout, python=args.reference_python or sys.executable)
    if args.torch:
        sides["torch"] = Side("build_torch", python=args.torch)
    processes = {name: Process(side) for name, side in sides.items() if name in (args.sides or sides)}
    found: dict[int, Times] = {}
    try:
        for size in args.sizes:
            found[size] = measure(processes, size, args.minutes * 60 / len(args.sizes))
    finally:
        for process in processes.values():
            process.end()
    text = render(found, describe(found))
    print(text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
