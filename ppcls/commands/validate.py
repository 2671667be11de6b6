"""``ppcls validate``: check recipes without running them, or write their JSON schema for editors."""

from __future__ import annotations

import argparse
import sys

from ppcls.commands.command import Command, add_overrides
from ppcls.errors import PpclsError

_MODES = ("train", "eval", "infer", "export")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", "--config", action="append", metavar="FILE", help="repeatable")
    what.add_argument("--schema", action="store_true", help="print the JSON schema of recipes, for editors")
    parser.add_argument("--mode", choices=_MODES, default="train", help="what the recipe is to be used for")
    add_overrides(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    if args.schema:
        from ppcls.config.json_schema import render

        print(render(), end="")
        return 0
    setup_logging()
    failed = 0
    for path in args.config:
        try:
            load_config(path, args.override, mode=args.mode)
        except PpclsError as error:
            failed += 1
            print(error, file=sys.stderr)
        else:
            print(f"{path}: valid")
    return 2 if failed else 0


COMMAND = Command("check recipes without running them", _add_arguments, _run)
