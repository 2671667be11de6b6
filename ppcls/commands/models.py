"""``ppcls models``: list the networks."""

from __future__ import annotations

import argparse
import sys

from ppcls.commands.command import Command, add_plugins, image_shape


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="with wildcards, such as 'ResNet*'")
    parser.add_argument(
        "--details",
        action="store_true",
        help="parameters, multiply-adds (of convolutions and matrix products alone, one for each "
        "multiplication), published top-1 with and without SSLD, weights in the cache",
    )
    parser.add_argument("--json", action="store_true", help="the details as JSON")
    parser.add_argument(
        "--input",
        type=image_shape,
        metavar="C,H,W",
        help="image size of the details (default: that of the published accuracy, mostly 3,224,224); "
        "another size takes a second per network",
    )
    add_plugins(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.plugins import load_plugins
    from ppcls.report.network_tables import describe_models, network_names, render_models, to_json

    load_plugins(args.plugin)
    names = network_names(args.pattern)
    if not names:
        print(f"no network matches {args.pattern!r}", file=sys.stderr)
        return 2
    if not (args.details or args.json or args.input):
        print("\n".join(names))
        return 0
    rows = describe_models(names, args.input)
    print(to_json(rows) if args.json else render_models(rows))
    return 0


COMMAND = Command(
    "list the networks: names, or sizes and published accuracies", _add_arguments, _run, quiet=True
)
