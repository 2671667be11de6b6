"""How long the command line takes to answer: `ppcls --help`, and `ppcls validate` of a recipe.

python benchmarks/startup.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "ppcls --help": ["--help"],
    "ppcls validate, ResNet18": ["validate", "-c", "ImageNet/ResNet/ResNet18.yaml"],
    "ppcls validate, SSLD pair": ["validate", "-c", "ImageNet/Distillation/PPLCNet_x2_5_ssld.yaml"],
}


def main() -> None:
    """Time each command in a fresh process and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "ppcls", *arguments], check=True, capture_output=True)
            times[name].append(time.perf_counter() - begin)
    for name, values in times.items():
        print(f"{name:28s} median {statistics.median(values):.2f} s, worst {max(values):.2f} s")


if __name__ == "__main__":
    main()
