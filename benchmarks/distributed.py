"""Compare a step in two processes on the CPU with `paddle.DataParallel`, written by hand.

Each process trains ResNet18 on its own batch, three times in turns: with the training loop of ppcls, with
DataParallel, and without any exchange. Printed are medians of milliseconds per step (wall time and processor
time of process 0) and medians of the ratios of neighbouring steps. The loop of ppcls does more than the
others: it averages the statistics of BatchNorm, allows parameters without gradient, and agrees on a stop.

    python benchmarks/distributed.py [--sizes 32 64] [--rounds 15] [--batch 32] [--processes 2]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from ppcls.cpu.processor import processor_name
from ppcls.job import end_with_parent

ARCH = {"name": "ResNet18", "class_num": 100}
OURS = "ppcls"
BY_HAND = "DataParallel"
ALONE = "no exchange"


def sides(size: int, batch_size: int, rank: int) -> dict[str, Callable[[], None]]:
    """Return functions that make one step, by name."""
    import paddle
    from step_overhead import build_run

    from ppcls.arch import build_model
    from ppcls.data import Batch
    from ppcls.engine.build import moving_buffers
    from ppcls.engine.train import train_step

    paddle.seed(1 + rank)
    image = paddle.randn([batch_size, 3, size, size])
    label = paddle.randint(0, ARCH["class_num"], [batch_size])
    batch = Batch(image.numpy(), label.numpy(), list(range(batch_size)))  # type: ignore[arg-type]
    run = build_run(dict(ARCH), [{"CELoss": {"weight": 1.0}}], [batch], Path("unused"), metrics=False)
    run.parts.buffers = moving_buffers(run.parts.model, run.parts.loss)
    run.parts.model.train()

    def ours() -> None:
        run.progress.batch = 0
        run.meters.reset()
        run._unread.clear()
        train_step(run, batch)

    def by_hand(network: Any) -> Callable[[], None]:
        optimizer = paddle.optimizer.Momentum(0.01, momentum=0.9, parameters=network.parameters())
        criterion = paddle.nn.CrossEntropyLoss()

        def step() -> None:
            criterion(network(image), label).backward()
            optimizer.step()
            optimizer.clear_grad()

        return step

    parallel = paddle.DataParallel(build_model(dict(ARCH)))
    return {OURS: ours, BY_HAND: by_hand(parallel), ALONE: by_hand(build_model(dict(ARCH)))}


def work(size: int, batch_size: int, rounds: int) -> None:
    """Measure in one of the processes; process 0 prints."""
    import paddle

    from ppcls import distributed

    paddle.set_device("cpu")
    distributed.start()
    steps = sides(size, batch_size, distributed.rank())
    names = list(steps)
    wall: dict[str, list[float]] = {name: [] for name in names}
    busy: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 2):
        for name in (
            names[number % len(names) :] + names[: number % len(names)]
        ):  # no side is always the first
            distributed.any_of([True])
            began, used = time.perf_counter(), time.process_time()
            steps[name]()
            if number > 1:
                wall[name].append(1e3 * (time.perf_counter() - began))
                busy[name].append(1e3 * (time.process_time() - used))
    if distributed.is_main():
        for name in names:
            ratios = [_ratio(found[name], found[BY_HAND]) for found in (wall, busy)]
            print(
                f"{size:4} px  {name:14} {statistics.median(wall[name]):8.1f} ms, processor "
                f"{statistics.median(busy[name]):8.1f} ms; to {BY_HAND}: {ratios[0]:.3f}, {ratios[1]:.3f}",
                flush=True,
            )
    distributed.wait_for_all()


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def start(processes: int, arguments: list[str]) -> None:
    """Start the processes, and wait for them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    endpoints = [f"127.0.0.1:{port + 1 + rank}" for rank in range(processes)]
    common = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))} | {
        "OMP_NUM_THREADS": "1",
        "PADDLE_TRAINERS_NUM": str(processes),
        "PADDLE_MASTER": f"127.0.0.1:{port}",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_DISTRI_BACKEND": "gloo",
    }
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env=common | {"PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoints[rank]},
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if rank else None,
            preexec_fn=end_with_parent,
        )
        for rank in range(processes)
    ]
    for process in started:
        if process.wait():
            raise SystemExit(f"a process ended with {process.returncode}")


def main() -> None:
    """Measure each size in new processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64], help="pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32, help="images of a process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work, options.batch, options.rounds)
        return
    print(f"{processor_name()}, {os.cpu_count()} cores, {options.processes} processes of one thread")
    for size in options.sizes:
        start(
            options.processes,
            ["--work", str(size), "--batch", str(options.batch), "--rounds", str(options.rounds)],
        )


if __name__ == "__main__":
    main()
