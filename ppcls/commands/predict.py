"""``ppcls predict``: classify images with an exported network."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command, add_plugins


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-dir", required=True, metavar="DIR", help="folder written by `ppcls export`")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or .txt lists")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"])
    parser.add_argument("--on-error", default="raise", choices=["raise", "skip"], help="unreadable images")
    add_plugins(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.deploy import Predictor
    from ppcls.logger import setup_logging
    from ppcls.plugins import load_plugins

    setup_logging()
    load_plugins(args.plugin)
    predictor = Predictor(
        args.model_dir, batch_size=args.batch_size, device=args.device, on_error=args.on_error
    )
    for result in predictor.predict(args.images):
        print(result)
    return 0


COMMAND = Command("classify images with an exported network", _add_arguments, _run)
