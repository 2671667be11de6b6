"""``ppcls validate``: check recipes without running them, or write their JSON schema for editors."""

from __future__ import annotations

import argparse
import sys

from ppcls.commands.command import Command, add_overrides
from ppcls.errors import ConfigError, PpclsError

_MODES = ("train", "eval", "infer", "export")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", action="append", metavar="FILE", help="repeatable")
    parser.add_argument(
        "--schema",
        action="store_true",
        help="print the JSON schema of recipes, for editors, with the plug-ins of the recipes given",
    )
    parser.add_argument("--mode", choices=_MODES, default="train", help="what the recipe is to be used for")
    add_overrides(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    if args.schema:
        return _print_schema(args.config or [])
    if not args.config:
        raise ConfigError(
            "give the recipes to check with -c FILE; --schema prints the JSON schema of recipes"
        )
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


def _print_schema(recipes: list[str]) -> int:
    from ppcls.config import load_plugins
    from ppcls.config.json_schema import render

    for path in recipes:
        load_plugins(path)
    print(render(), end="")
    return 0


COMMAND = Command("check recipes without running them", _add_arguments, _run)
