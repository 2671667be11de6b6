"""The gain of distillation in `make demo`, over several seeds: mean and standard deviation.

    python benchmarks/demo_seeds.py [--seeds 1 2 3]

Trains the demo's student from labels, by KD and SSLD-style, with every seed, in a temporary folder. The
accuracies are those on the validation part after the last epoch, in per cent; gains are taken seed by seed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import demo  # noqa: E402


def spread(values: Sequence[float]) -> str:
    """Return ``mean +- standard deviation`` (of a sample)."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):6.2f} +- {deviation:.2f}"


def main() -> None:
    """Train, then print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    os.chdir(ROOT)
    demo.unpack()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [(student, folder / str(seed), seed) for seed in seeds for student in demo.STUDENTS]
        results = demo.train_all(jobs)
        teacher = demo.evaluate("teacher", folder) * 100
    accuracy: dict[str, list[float]] = {student: [] for student in demo.STUDENTS}
    for (student, _, _), metrics in zip(jobs, results, strict=True):
        accuracy[student].append(metrics["top1"] * 100)
    print(f"teacher {teacher:.2f}; seeds {' '.join(map(str, seeds))}")
    print(f"{'network':46s} {'accuracy':>16s} {'gain':>16s}  by seed")
    for student in ("student", "kd", "ssld"):
        values, base = accuracy[student], accuracy["student"]
        gain = "" if student == "student" else spread([a - b for a, b in zip(values, base, strict=True)])
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{demo.TITLES[student]:46s} {spread(values):>16s} {gain:>16s}  {each}")


if __name__ == "__main__":
    main()
