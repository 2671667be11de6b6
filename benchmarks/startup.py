"""How long things take before the first step: commands, and networks whose numbers come from a file.

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
NETWORKS = ("PPLCNet_x1_0", "ResNet50", "SwinTransformer_base_patch4_window7_224")


def main() -> None:
    """Time each command in a fresh process, and networks with random numbers and without in turn."""
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
    compare_networks(repeats)


def compare_networks(repeats: int) -> None:
    """Build networks with random first values, as for training, and with zeros, as for a file."""
    from ppcls.arch import build_empty, build_model
    from ppcls.config import ArchSpec
    from ppcls.cpu.processor import processor_name

    print(f"{processor_name()}, processor time of building a network with random numbers and without")
    for name in NETWORKS:
        arch = ArchSpec.read({"name": name, "class_num": 1000})
        found: list[tuple[float, float]] = []
        for _ in range(repeats + 1):
            begin = time.process_time()
            build_model(arch)
            middle = time.process_time()
            build_empty(arch)
            found.append((middle - begin, time.process_time() - middle))
        random, empty = (statistics.median(column) for column in zip(*found[1:], strict=True))
        ratio = statistics.median(second / first for first, second in found[1:])
        print(f"{name:40s} {random:.2f} s, {empty:.2f} s, median of ratios {ratio:.2f}")


if __name__ == "__main__":
    main()
