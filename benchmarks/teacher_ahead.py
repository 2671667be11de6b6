"""When a teacher should run beside the training: pairs of networks, with a core for the teacher and without.

    python benchmarks/teacher_ahead.py [--threads] [--sizes 64 224] [--pairs ResNet34:ResNet18 ...]

Each side is a run of its own with all cores. They take turns, a step each. Printed are medians of the ratios
of steps of the same turn: the time with the teacher one batch ahead, divided by that within the training, by
the wall clock and by processor time. Processor times do not contain a teacher that Paddle Inference runs.
With `--threads` the sides are runs with a thread for each core and with one thread, both with the teacher
within the training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from speed import BATCHES, Process, Side, describe, measure, ratio

BATCHES[128] = 16
PAIRS = (
    "ResNet50:PPLCNet_x1_0",
    "PPLCNet_x2_5:PPLCNet_x0_5",
    "ResNet50:MobileNetV3_large_x1_0",
    "PPLCNet_x1_0:PPLCNet_x1_0",
    "MobileNetV3_large_x1_0:MobileNetV3_large_x1_0",
    "ResNet34:ResNet18",
    "ResNet18:ResNet18",
    "ResNet50:ResNet34",
    "ResNet34:ResNet50",
    "MobileNetV3_large_x1_0:ResNet18",
)


def sides(pair: str, threads: bool) -> dict[str, Side]:
    """Return both sides of a pair, by name: with what is asked about first."""
    teacher, _, student = pair.partition(":")
    options = {"Arch.models": [{"Teacher": {"name": teacher}}, {"Student": {"name": student}}]}
    within = {**options, "Global.teacher_ahead": False}
    cores = {"OMP_NUM_THREADS": None}
    if threads:
        return {
            f"{pair}, all cores": Side(options=within, environment=cores),
            f"{pair}, 1 thread": Side(options=within),
        }
    return {
        f"{pair}, ahead": Side("build_ahead", options, cores),
        f"{pair}, within": Side(options=within, environment=cores),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="in all; starting the sides comes on top")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224], choices=sorted(BATCHES))
    parser.add_argument("--pairs", nargs="+", metavar="TEACHER:STUDENT", default=PAIRS)
    parser.add_argument("--threads", action="store_true", help="compare all cores with one thread instead")
    args = parser.parse_args(arguments)
    for pair in args.pairs:
        if len(pair.split(":")) != 2 or not all(pair.split(":")):
            parser.error(f"--pairs: {pair!r} is not two networks, such as ResNet34:ResNet18")
    turns = {}
    print(f"| teacher → student | {' | '.join(f'{size} px' for size in args.sizes)} |")
    print("|---" * (1 + len(args.sizes)) + "|")
    for pair in args.pairs:
        processes = {name: Process(side) for name, side in sides(pair, args.threads).items()}
        one, other = processes
        cells = []
        try:
            for size in args.sizes:
                seconds = args.minutes * 60 / len(args.pairs) / len(args.sizes)
                turns[size] = measure(processes, list(processes), size, seconds)
                wall, busy = (ratio(turns[size], one, other, clock) for clock in (0, 1))
                cells.append("failed" if wall is None else f"{wall:.2f} ({busy:.2f})")
        finally:
            for process in processes.values():
                process.end()
        print(f"| {pair.replace(':', ' → ')} | {' | '.join(cells)} |", flush=True)
    print(f"\n{describe(turns)}")


if __name__ == "__main__":
    main()
