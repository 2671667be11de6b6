"""``ppcls report``: one run on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppcls.commands.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, such as output/DistillationModel")
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="folder of a run of the student alone, to compare with (default: one beside the run, "
        "if there is one with the same network and evaluation images)",
    )


def _run(args: argparse.Namespace) -> int:
    from ppcls.report import write_report

    print(write_report(Path(args.run), None if args.baseline is None else Path(args.baseline)))
    return 0


COMMAND = Command(
    "write report.html: accuracy, curves, mistakes, sizes and cost of a run on one page",
    _add_arguments,
    _run,
    writes_files=True,
)
