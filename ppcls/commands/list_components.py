"""``ppcls list``: the components of one kind, each with one line that says what it is."""

from __future__ import annotations

import argparse
import json
import sys

from ppcls.commands.command import Command, add_plugins

# Written out, so that messages about wrong arguments need no import; a test compares them.
KINDS = (
    *("losses", "networks", "transforms", "batch-transforms", "datasets", "samplers", "metrics"),
    *("optimizers", "schedules", "postprocesses", "hooks"),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "pattern", nargs="?", default="*", help="names with wildcards, such as 'Distillation*'"
    )
    parser.add_argument("--json", action="store_true", help="a JSON list of objects with name and summary")
    add_plugins(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.plugins import load_plugins
    from ppcls.report.components import LISTED, list_components
    from ppcls.report.explanations import render_list

    load_plugins(args.plugin)
    found = list_components(args.kind, args.pattern)
    if args.json:
        print(json.dumps([{"name": name, "summary": text} for name, text in found.items()], indent=1))
    elif found:
        print(render_list(found))
    if found or args.pattern == "*":
        if not found:
            print(f"none is built in; {LISTED[args.kind].page} shows how to write one", file=sys.stderr)
        return 0
    print(f"none of the {args.kind} matches {args.pattern!r}", file=sys.stderr)
    return 2


COMMAND = Command("list losses, networks, transforms and other components", _add_arguments, _run, quiet=True)
