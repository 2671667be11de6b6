"""The description of a command, and arguments that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command of ``ppcls``.

    Attributes:
        help: one line for ``ppcls --help``.
        add_arguments: adds the command's arguments to its parser.
        run: runs the command with parsed arguments and returns the exit code. It imports slow modules
            itself, so that ``--help`` and messages about wrong arguments appear at once.
        writes_files: its result is files. Otherwise its output is the result, and the command fails if
            standard output cannot be written.
        joins_processes: if a launcher started several processes, all of them run it together.
        quiet: suppress Paddle's warnings about networks that are only inspected.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    writes_files: bool = False
    joins_processes: bool = False
    quiet: bool = False


def add_recipe(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``-c FILE`` and ``-o KEY=VALUE``."""
    parser.add_argument("-c", "--config", required=required, metavar="FILE", help="recipe (YAML)")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add ``-o KEY=VALUE``."""
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, such as -o Global.epochs=2 (repeatable; the value is read as YAML)",
    )


def add_project(parser: argparse.ArgumentParser) -> None:
    """Add what decides the recipes of a project, besides its data and networks."""
    parser.add_argument("--method", default="dkd", metavar="NAME", help="distillation method (default dkd)")
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the images that networks see")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: 240, or 30 with ImageNet weights")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: by image size and number")
    parser.add_argument("--from-scratch", action="store_true", help="begin without official ImageNet weights")
    parser.add_argument(
        "--val",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of each class to validate with, if the data have no such part (default 0.2)",
    )
    parser.add_argument("--image-root", metavar="DIR", help="folder that the paths in a list start from")


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add ``--plugin``, for a command that may run without a recipe."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file, package folder or module that registers components of your own (repeatable)",
    )


def image_shape(text: str) -> tuple[int, ...]:
    """Return the shape (channels, height, width) from a text such as ``3,224,224``.

    Raises:
        argparse.ArgumentTypeError: if the text is not a shape.
    """
    sides = [int(side) for side in text.split(",") if side.strip().isdecimal()]
    if len(sides) != 3 or len(text.split(",")) != 3 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"expected channels,height,width such as 3,224,224, got {text!r}")
    return tuple(sides)
