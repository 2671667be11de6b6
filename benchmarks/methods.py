"""What each distillation method brings on real images: one teacher, one student, the same data and steps.

    python benchmarks/methods.py run --settings fashion_mnist
    python benchmarks/methods.py run --settings cifar10 --cifar FOLDER --teacher resnet56.pth
    python benchmarks/methods.py tune     # the factor of MGD, on training images that no run trains on
    python benchmarks/methods.py time     # step times, all methods in turn in one process
    python benchmarks/methods.py table    # writes the pages and plots of docs from docs/results_*.jsonl

`run` trains what is missing in docs/results_<setting>.jsonl, appends a line for every finished run, and can
be stopped and started at any time. FOLDER contains train/<class>/* and test/<class>/*; resnet56.pth is a
CIFAR-10 network with option-A short cuts. Lists, stores and unfinished runs are in --work, which may be
deleted afterwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from evidence import pages, timing
from evidence.methods import METHODS
from evidence.runner import Job, run
from evidence.settings import FASHION, ROOT, SETTINGS, Places, Variant


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "tune", "time", "table"])
    parser.add_argument("--settings", nargs="+", default=["fashion_mnist"], choices=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="default: all of a setting")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--cifar", type=Path, help="folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--teacher", type=Path, help="weights of resnet56 for CIFAR-10")
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
    run(jobs, Places(args.work.resolve(), args.cifar, args.teacher), args.jobs)


def all_jobs(args: argparse.Namespace) -> list[Job]:
    """Return the runs that were asked for, the first seed of everything first."""
    jobs = []
    for seed in args.seeds:
        for setting in (SETTINGS[key] for key in args.settings):
            jobs += [Job(setting, name, seed) for name in args.methods or setting.methods(METHODS)]
            if not args.methods:
                jobs += [Job(setting, variant.method, seed, variant) for variant in setting.variants]
    return jobs


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
