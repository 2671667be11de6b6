"""What a training step of ppcls costs beside a bare Paddle loop: same network, batch, data and optimizer.

Both sides run interleaved in one process, a handful of steps at a time; printed are medians per step and the
median of the ratios of neighbouring measurements, by the wall clock and by this process's processor time,
which other work on the machine disturbs less. Then what metrics add to a step (the same comparison, with and
without them), and what a checkpoint adds: the time of one save, spread over the 500 steps of save_steps: 500.

    python benchmarks/step_overhead.py [--rounds 15] [--steps 4] [--size 64] [--batch 16]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ppcls.arch import build_model
from ppcls.data import Batch
from ppcls.engine.checkpoint import Checkpointer
from ppcls.engine.hooks.base import call_hooks
from ppcls.engine.hooks.checkpoint import CheckpointHook
from ppcls.engine.hooks.logging import LogHook
from ppcls.engine.run import Parts, Run, Settings
from ppcls.engine.train import train_epoch
from ppcls.logger import ScalarWriter, setup_logging
from ppcls.loss import build_loss
from ppcls.metric import LOSS, build_metric
from ppcls.optimizer import build_optimizer

OPTIMIZER = {
    "name": "Momentum",
    "momentum": 0.9,
    "lr": {"name": "Cosine", "learning_rate": 0.01},
    "regularizer": {"name": "L2", "coeff": 1e-4},
}
PLAIN = {"name": "ResNet18", "class_num": 100}
PAIR = {
    "name": "DistillationModel",
    "freeze_params_list": [True, False],
    "models": [
        {"Teacher": {"name": "ResNet34", "class_num": 100}},
        {"Student": {"name": "ResNet18", "class_num": 100}},
    ],
}
PAIR_LOSS = [
    {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}},
    {
        "DistillationKLDivLoss": {
            "weight": 0.9,
            "model_name_pairs": [["Student", "Teacher"]],
            "temperature": 4,
        }
    },
]


class SameBatches:
    """Stands in for a loader: the measured difference is the step, not the reading."""

    division = None  # the number of processes does not change

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.dataset = None

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the same batches every epoch."""
        yield from self.batches[start_batch:]


def build_run(
    arch: dict[str, Any], loss: list[Any], batches: list[Batch], folder: Path, metrics: bool = True
) -> Run:
    """Return a run of ppcls, log line and scalars included."""
    main = "Student" if "models" in arch else None
    model, loss_layer = build_model(arch), build_loss(loss, main=main)
    optimizer, schedule = build_optimizer(OPTIMIZER, 100, len(batches), [model, loss_layer])
    parts = Parts(
        model=model,
        loss=loss_layer,
        metric=build_metric([{"TopkAcc": {"topk": [1, 5]}}] if metrics else [], main=main),
        optimizer=optimizer,
        schedule=schedule,
        loader=SameBatches(batches),  # type: ignore[arg-type]
        evaluation=None,
        scaler=paddle.amp.GradScaler(enable=False),
        trained=[p for p in (*model.parameters(), *loss_layer.parameters()) if not p.stop_gradient],
        buffers=[],
    )
    hooks = [LogHook(lambda start: ScalarWriter(folder, start=start), ["Cosine"])]
    return Run(parts, Settings(folder, epochs=100, log_every=10), hooks)


def rounds_of(run: Run) -> Callable[[], None]:
    """Return a function that trains one round."""
    call_hooks(run.hooks, "before_train", run)

    def once() -> None:
        run.progress.batch = 0
        run.meters.reset()
        train_epoch(run)

    return once


def bare(arch: dict[str, Any], batches: list[Batch]) -> Callable[[], None]:
    """Return a function that trains one round as one would write it by hand."""
    student: nn.Layer = build_model(arch["models"][1]["Student"] if "models" in arch else arch)
    teacher = build_model(arch["models"][0]["Teacher"]) if "models" in arch else None
    if teacher is not None:
        teacher.eval()
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.01, 100 * len(batches))
    optimizer = paddle.optimizer.Momentum(
        schedule, 0.9, student.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-4)
    )

    def once() -> None:
        student.train()
        for batch in batches:
            image, label = paddle.to_tensor(batch.image), paddle.to_tensor(batch.label)
            logits = student(image)
            loss = F.cross_entropy(logits, label)
            if teacher is not None:
                with paddle.no_grad():
                    target = F.softmax(teacher(image) / 4, -1)
                loss = loss + 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, -1), target, "batchmean")
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()
        float(loss)

    return once


CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}


def compare(
    name: str, sides: dict[str, Callable[[], None]], rounds: int, steps: int
) -> dict[str, dict[str, float]]:
    """Time two sides in turn and print a row a clock: the first relative to the second.

    Returns:
        seconds of a step by clock and side.
    """
    first, second = sides
    times: dict[str, dict[str, list[float]]] = {c: {side: [] for side in sides} for c in CLOCKS}
    for number in range(rounds + 1):  # the first round warms up
        order = list(sides) if number % 2 else list(reversed(sides))
        for side in order:
            begin = {clock: read() for clock, read in CLOCKS.items()}
            sides[side]()
            for clock, read in CLOCKS.items():
                times[clock][side].append((read() - begin[clock]) / steps)
    medians = {}
    for clock, by_side in times.items():
        ratios = [a / b for a, b in zip(by_side[first][1:], by_side[second][1:], strict=True)]
        medians[clock] = {side: statistics.median(values[1:]) for side, values in by_side.items()}
        shown = "  ".join(f"{side} {seconds * 1000:8.1f} ms" for side, seconds in medians[clock].items())
        print(
            f"{name:22s} {clock:4s} {shown}  median ratio {statistics.median(ratios):.3f}  (quartiles "
            f"{np.percentile(ratios, 25):.3f} .. {np.percentile(ratios, 75):.3f}, {rounds} rounds)",
            flush=True,
        )
    return medians


def save_cost(run: Run, folder: Path, step: dict[str, float], rounds: int) -> None:
    """Print what a save of `run` costs, and the share of it in 500 steps of `step` seconds by clock."""
    hook = CheckpointHook(Checkpointer(folder), LOSS, save_steps=500)
    times: dict[str, list[float]] = {clock: [] for clock in CLOCKS}
    for _ in range(rounds):
        begin = {clock: read() for clock, read in CLOCKS.items()}
        hook.save(run, "latest")
        for clock, read in CLOCKS.items():
            times[clock].append(read() - begin[clock])
    size = sum(file.stat().st_size for file in folder.glob("latest.*")) / 2**20
    for clock, values in times.items():
        seconds = statistics.median(values)
        print(
            f"{'one checkpoint':22s} {clock:4s} {seconds * 1000:8.1f} ms for {size:.0f} MB, every 500 steps "
            f"{100 * seconds / (500 * step[clock]):.3f} %  (slowest of {rounds}: {max(values) * 1000:.0f} ms)"
        )


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    setup_logging(quiet=True)
    paddle.device.set_device("cpu")
    rng = np.random.default_rng(0)
    batches = [
        Batch(
            rng.standard_normal((args.batch, 3, args.size, args.size), dtype="float32"),
            rng.integers(0, 100, (args.batch, 1)),
            np.arange(args.batch),
        )
        for _ in range(args.steps)
    ]
    ce = [{"CELoss": {"weight": 1.0}}]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, arch, loss in (("ResNet18", PLAIN, ce), ("ResNet34 -> ResNet18", PAIR, PAIR_LOSS)):
            run = build_run(arch, loss, batches, folder)
            sides = {"ppcls": rounds_of(run), "bare": bare(arch, batches)}
            step = compare(title, sides, args.rounds, args.steps)
        without = build_run(PAIR, PAIR_LOSS, batches, folder, metrics=False)
        sides = {"with metrics": rounds_of(run), "without": rounds_of(without)}
        compare("ResNet34 -> ResNet18", sides, args.rounds, args.steps)
        save_cost(run, folder, {clock: sides["ppcls"] for clock, sides in step.items()}, args.rounds)


if __name__ == "__main__":
    main()
