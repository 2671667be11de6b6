"""``ppcls mine``: list the images of an unlabelled pool that a teacher is sure of (the data of SSLD)."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command, add_recipe


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--pool", required=True, metavar="PATH", help="folder, or list of one path per line")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="list to write; a file next to it gets the counts"
    )
    parser.add_argument("--top-k", type=int, metavar="N", help="images per class (default: all)")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="P", help="lowest probability")
    parser.add_argument("--network", metavar="NAME", help="the teacher (default: the frozen network)")
    parser.add_argument("--label", choices=["teacher", "zero"], default="teacher", help="column of labels")
    parser.add_argument("--image-root", metavar="DIR", help="folder that paths start from")
    parser.add_argument(
        "--distance",
        type=int,
        default=50,
        metavar="D",
        help="validation images whose 255-bit hash differs in up to D bits (default 50) count as duplicates",
    )


def _run(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    setup_logging()
    config = load_config(args.config, args.override, mode="eval")
    from ppcls.engine.mining import Mining, mine

    options = {name: getattr(args, name) for name in Mining.__dataclass_fields__}
    print(mine(config, Mining(**options)).render())
    return 0


COMMAND = Command(
    "list the images of an unlabelled pool that a teacher is sure of (the data of SSLD)",
    _add_arguments,
    _run,
    writes_files=True,
)
