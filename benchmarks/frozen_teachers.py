"""What a frozen teacher costs by itself and through engines, and what an evaluation costs as a program.

All sides run in turn in one process, so that other work on the machine disturbs them alike. Printed are
medians of milliseconds, and medians of the ratios to the first side.

    python benchmarks/frozen_teachers.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls.arch import build_model, create_model
from ppcls.arch.answering import Answering
from ppcls.loss import build_loss
from ppcls.teacher import Answer, answer_frozen

Sides = dict[str, Callable[[], Any]]
PAIR = {
    "name": "DistillationModel",
    "class_num": 100,
    "freeze_params_list": [True, False],
    "models": [{"Teacher": {"name": "ResNet34"}}, {"Student": {"name": "ResNet18"}}],
}
LOSSES = [
    {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}},
    {"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]], "temperature": 4}},
]


def step_sides(size: int, batch: int) -> Sides:
    """Return forward and backward passes: of the student alone, and with a teacher run in several ways."""
    rng = np.random.default_rng(0)
    image = paddle.to_tensor(rng.standard_normal((batch, 3, size, size)).astype(np.float32))
    label = paddle.to_tensor(rng.integers(0, 100, (batch, 1)))

    def side(arch: dict[str, Any], losses: list[Any], main: str | None) -> Callable[[], None]:
        paddle.seed(0)
        model, loss = build_model(copy.deepcopy(arch)), build_loss(losses, main=main)
        if main is not None:  # logits of a network without statistics are too large for any comparison
            teacher = model.network("Teacher")
            for layer in teacher.sublayers(include_self=True):
                layer.training = True
            for _ in range(20):
                teacher(image)
        model.train()
        answer_frozen(model, (3, size, size), 1)

        def step() -> None:
            loss(model(image), label)["loss"].backward()
            for parameter in model.parameters():
                parameter.clear_gradient()

        return step

    alone = {"name": "ResNet18", "class_num": 100}
    sides = {"student alone": side(alone, [{"CELoss": {}}], None)}
    for title, options in {
        "teacher eager": {"frozen_engine": "eager"},
        "teacher float32 program": {"frozen_engine": "paddle_inference"},
        "teacher bfloat16 program": {"frozen_engine": "paddle_inference", "frozen_precision": "bfloat16"},
    }.items():
        sides[title] = side({**PAIR, **options}, LOSSES, "Student")
    return sides


def evaluation_sides(name: str, size: int, batch: int) -> Sides:
    """Return forward passes of a network in eval mode: by itself and as a program."""
    network = create_model(name, class_num=1000)
    network.eval()
    values = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    image = paddle.to_tensor(values)
    program = Answer(network, name, Answering("paddle_inference"), 1)

    def side(run: Callable[[Any], Any]) -> Callable[[], None]:
        def ask() -> None:
            with paddle.no_grad():
                run(image)

        return ask

    return {"eager": side(network), "program": side(program)}


def compare(title: str, sides: Sides, rounds: int) -> None:
    """Run the sides in turn and print a row for each."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, run in sides.items():
            begin = time.perf_counter()
            run()
            if round_:  # the first makes programs
                taken[name].append(1000 * (time.perf_counter() - begin))
    first = next(iter(taken.values()))
    print(f"\n{title}\n| side | ms | ratio |\n| --- | --- | --- |")
    for name, values in taken.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"| {name} | {statistics.median(values):.0f} | {ratio:.2f} |", flush=True)


def cpu() -> str:
    """Return the name of the processor, where Linux says it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{cpu()}, Paddle {paddle.__version__}")
    for size, batch in ((32, 64), (64, 32), (224, 8)):
        compare(f"ResNet34 -> ResNet18, {size} px, batch {batch}", step_sides(size, batch), rounds)
    for name in ("ResNet18", "PPLCNet_x1_0"):
        compare(f"Evaluation of {name}, 224 px, batch 16", evaluation_sides(name, 224, 16), rounds)


if __name__ == "__main__":
    main()
