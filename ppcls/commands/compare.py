"""``ppcls compare``: several runs beside each other."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppcls.commands.command import Command

FORMATS = ("table", "csv", "json", "markdown")
_PAGES = (".html", ".htm")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of runs, or folders that contain some, such as output"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: %(default)s")
    parser.add_argument(
        "--out", metavar="FILE", help="also write a page with tables and curves, such as compare.html"
    )


def _run(args: argparse.Namespace) -> int:
    from ppcls.errors import ConfigError
    from ppcls.report.comparison import compare
    from ppcls.report.comparison_text import render

    if args.out is not None and Path(args.out).suffix.lower() not in _PAGES:
        raise ConfigError(
            f"--out {args.out}: it is a page, expected a name that ends in .html; --format chooses what is "
            "printed, such as csv"
        )
    folders = [Path(folder) for folder in args.runs]
    print(render(compare(folders), args.format))
    if args.out is not None:
        from ppcls.report import write_comparison

        write_comparison(folders, Path(args.out))
    return 0


COMMAND = Command("compare runs: a table, and a page with their curves", _add_arguments, _run)
