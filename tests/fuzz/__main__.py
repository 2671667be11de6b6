"""Fuzz readers of files: ``PYTHONPATH=tests python -m fuzz --inputs 10000 --seed 1``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from fuzz.harness import HEADER, fuzz
from fuzz.targets import make_targets


def main() -> int:
    """Print a row of figures a target; the exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--target", action="append", help="one of them, may be repeated (default: all)")
    parser.add_argument("--inputs", type=int, default=1000, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    parser.add_argument("--show", type=int, default=5, help="how many failures are printed whole")
    arguments = parser.parse_args()
    if arguments.inputs < 1:  # a row of zeros would look like success
        parser.error(f"--inputs: expected at least 1, got {arguments.inputs}")
    failed = False
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for target in make_targets(Path(folder), arguments.target):
            figures = fuzz(target, arguments.inputs, arguments.seed, arguments.keep, arguments.first)
            print(figures, flush=True)
            for failure in figures.failures[: arguments.show]:
                print(failure, file=sys.stderr, flush=True)
            failed |= bool(figures.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
