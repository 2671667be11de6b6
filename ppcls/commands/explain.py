"""``ppcls explain``: what a component or a setting is, and what can be set."""

from __future__ import annotations

import argparse
import json

from ppcls.commands.command import Command, add_plugins


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        help="a component, such as DistillationDKDLoss or ResNet18, one of its options, such as "
        "DistillationDKDLoss.beta, or a setting of recipes, such as Global.save_interval",
    )
    parser.add_argument("--json", action="store_true", help="the same as a JSON list of objects")
    add_plugins(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.plugins import load_plugins
    from ppcls.report.explanations import explain, render

    load_plugins(args.plugin)
    found = explain(args.name)
    if args.json:
        print(json.dumps([one.as_json() for one in found], indent=1, default=str))
    else:
        print("\n\n".join(render(one) for one in found))
    return 0


COMMAND = Command(
    "explain a component or a setting: what it does, options, recipes that use it",
    _add_arguments,
    _run,
    quiet=True,
)
