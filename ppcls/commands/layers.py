"""``ppcls layers``: list the layers of networks with their output shapes."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command, add_overrides, add_plugins, image_shape
from ppcls.errors import ConfigError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", nargs="?", help="as `ppcls models` lists it; or give a recipe with -c")
    parser.add_argument("-c", "--config", metavar="FILE", help="recipe (YAML)")
    add_overrides(parser)
    parser.add_argument(
        "--input",
        type=image_shape,
        metavar="C,H,W",
        help="image size (default: Global.image_shape of the recipe, else 3,224,224)",
    )
    parser.add_argument("--class-num", type=int, metavar="N", help="classes of a network given by name")
    add_plugins(parser)
    parser.add_argument("--stages", action="store_true", help="only the layers that end a stage")


def _run(args: argparse.Namespace) -> int:
    if (args.network is None) == (args.config is None):
        raise ConfigError("layers: give the name of a network, or a recipe with -c")
    if args.config is None and args.override:
        raise ConfigError("layers: -o changes a recipe; give one with -c")
    if args.config is not None and args.class_num is not None:
        raise ConfigError("layers: --class-num is for a network given by name; use -o Arch.class_num=...")
    from ppcls.config import ArchSpec
    from ppcls.plugins import load_plugins
    from ppcls.report.layer_tables import list_layers, read_arch, render_layers

    load_plugins(args.plugin)
    if args.config is None:
        class_num = 1000 if args.class_num is None else args.class_num
        arch = ArchSpec.read({"name": args.network, "class_num": class_num})
        shape = [3, 224, 224]
    else:
        arch, shape = read_arch(args.config, args.override)
    print(render_layers(list_layers(arch, args.input or shape), args.stages))
    return 0


COMMAND = Command(
    "list the layers of networks with their output shapes: what return_patterns can name",
    _add_arguments,
    _run,
    quiet=True,
)
