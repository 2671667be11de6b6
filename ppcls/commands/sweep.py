"""``ppcls sweep``: train a recipe with other settings and seeds, and compare."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from ppcls.commands.command import Command, add_recipe


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="a setting with several values, such as Optimizer.lr.learning_rate=0.1,0.2 (repeatable: every "
        "combination is trained)",
    )
    parser.add_argument("--seeds", metavar="N,N", help="train each combination with these seeds")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the runs (default: sweep_<recipe> in Global.output_dir)"
    )
    parser.add_argument("--nproc", type=int, metavar="N", help="processes of each run")
    parser.add_argument("--dry-run", action="store_true", help="check everything and list the runs")


def _run(args: argparse.Namespace) -> int:
    from ppcls.launch import require_processes

    if args.nproc is not None:
        require_processes(args.nproc)
    from ppcls.report import write_comparison
    from ppcls.report.comparison import compare
    from ppcls.report.comparison_text import render
    from ppcls.sweeps import is_finished, plan_sweep, run_sweep

    out = None if args.out is None else Path(args.out)
    sweep = plan_sweep(args.config, args.set, args.seeds, out, args.override)
    if args.dry_run:
        for trial in sweep.trials:
            print(f"{trial.folder}{': finished' if is_finished(trial) else ''}")
        return 0
    code = run_sweep(sweep, functools.partial(print, flush=True), args.nproc)
    made = [trial.folder for trial in sweep.trials if (trial.folder / "config.yaml").is_file()]
    if code < 2 and made:
        print(f"\n{render(compare(made))}\n\n{write_comparison(made, sweep.out / 'compare.html')}")
    return code


COMMAND = Command(
    "train a recipe several times with other settings and seeds, and compare the runs",
    _add_arguments,
    _run,
    writes_files=True,
)
