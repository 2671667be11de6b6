"""What each distillation method brings on real images: one teacher, one student, the same data and steps.

    python benchmarks/methods.py run --settings fashion_mnist
    python benchmarks/methods.py run --settings cifar10 --cifar FOLDER --teacher resnet56.pth
    python benchmarks/methods.py run --settings cifar10_teachers --cifar FOLDER
        --teacher resnet56.pth --small-teacher resnet20.pth
    python benchmarks/methods.py run --settings fashion_mnist_all_labels --fashion FOLDER
    python benchmarks/methods.py run --settings all --cifar FOLDER --teacher resnet56.pth
        --small-teacher resnet20.pth --fashion FOLDER
    python benchmarks/methods.py tune     # the factor of MGD, on training images that no run trains on
    python benchmarks/methods.py time     # step times, all methods in turn in one process
    python benchmarks/methods.py table    # writes the pages and plots of docs from docs/results_*.jsonl

`run` trains what is missing in docs/results_<setting>.jsonl, the first seed of everything first, appends a
line for every finished run, and can be stopped and started at any time; with `--hours 4` no run starts later.
The FOLDER of CIFAR-10 contains train/<class>/* and test/<class>/*; resnet56.pth and resnet20.pth are CIFAR-10
networks with option-A short cuts. The FOLDER of Fashion-MNIST is written by
`python dataset/prepare_fashion_mnist.py SOURCE --full FOLDER` (dataset/README.md). Lists, stores and
unfinished runs are in --work, which may be deleted afterwards.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from evidence import pages, timing
from evidence.comparisons import FASHION, SETTINGS, TOGETHER
from evidence.methods import METHODS
from evidence.runner import Job, run
from evidence.settings import ROOT, Places, Setting, Variant

_REPEATED = ("baseline", "KD", "KD standardised", "DKD", "DIST")  # five seeds in comparisons of all methods
_ALL = "all"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "tune", "time", "table"])
    parser.add_argument("--settings", nargs="+", default=["fashion_mnist"], choices=[*SETTINGS, _ALL])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="default: all of a setting")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="default: 0 to 2, and 0 to 4 for labels alone and the first four methods where all are compared",
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--hours", type=_hours, default=math.inf, help="start no run later than this")
    parser.add_argument("--cifar", type=Path, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--teacher", type=Path, help="weights of resnet56 for CIFAR-10")
    parser.add_argument("--small-teacher", type=Path, help="weights of resnet20 for CIFAR-10")
    parser.add_argument("--fashion", type=Path, help="folder with the further images of Fashion-MNIST")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "output" / "methods", help="folder of lists, stores and runs"
    )
    parser.add_argument("--steps", type=int, default=30, help="steps to time")
    args = parser.parse_args()
    if args.command == "table":
        pages.write()
        return
    subprocess.run([sys.executable, str(ROOT / "dataset" / "unpack.py")], check=True)
    if args.command == "time":
        timing.measure(args.steps)
        return
    jobs = tuning_jobs() if args.command == "tune" else all_jobs(args)
    places = Places(args.work.resolve(), args.cifar, args.teacher, args.small_teacher, args.fashion)
    run(jobs, places, args.jobs, args.hours)


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:  # NaN hours would never be over
        raise argparse.ArgumentTypeError(f"expected a number of hours above 0, not {text}")
    return value


def all_jobs(args: argparse.Namespace) -> list[Job]:
    """Return the runs that were asked for, the first seed of everything first.

    Raises:
        SystemExit: if a comparison does not have a method.
    """
    jobs = []
    settings = [SETTINGS[key] for key in (SETTINGS if _ALL in args.settings else args.settings)]
    for setting in settings:
        unknown = set(args.methods or ()) - set(setting.methods(METHODS))
        if unknown:
            names = ", ".join(setting.methods(METHODS)) or "variants of them"
            raise SystemExit(f"{setting.key} does not compare {', '.join(sorted(unknown))}, but {names}")
    for seed in args.seeds or range(5):
        for setting in settings:
            found = [Job(setting, name, seed) for name in args.methods or setting.methods(METHODS)]
            if not args.methods:
                trained = (variant for variant in setting.variants if not variant.reused)
                found += [Job(setting, variant.method, seed, variant) for variant in trained]
            jobs += [job for job in found if args.seeds or seed < _seeds(setting, job.name)]
    return jobs


def _seeds(setting: Setting, name: str) -> int:
    compared = any(setting == each for each, _ in TOGETHER)
    return 5 if compared and name in _REPEATED else 3


def tuning_jobs() -> list[Job]:
    """Return the runs that chose MGD's factor.

    Raises:
        SystemExit: if the images are missing.
    """
    full = ROOT / "dataset" / "fashion_mnist_full"
    if not full.is_dir():
        raise SystemExit(f"{full} is missing: run python dataset/prepare_fashion_mnist.py first")
    images = (
        f"DataLoader.Eval.dataset.image_root={full}",
        f"DataLoader.Eval.dataset.cls_label_path={full / 'tune_list.txt'}",
    )
    setting = replace(FASHION, key="tuning")
    factor = "Loss.Train.1.DistillationPairLoss.alpha_mgd"
    return [
        Job(setting, "baseline", 0, Variant("baseline", "baseline", images)),
        *(
            Job(setting, "MGD", 0, Variant(f"MGD, alpha_mgd {value}", "MGD", (f"{factor}={value}", *images)))
            for value in (0.01, 0.112, 0.5, 2.0, 8.0)
        ),
    ]


if __name__ == "__main__":
    main()
