"""``ppcls convert-weights``: turn a PyTorch file into weights of one of our networks."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help=".pth, .pt or .safetensors; PyTorch is not needed")
    parser.add_argument("target", metavar="OUT", help=".pdparams file to write")
    parser.add_argument("--arch", required=True, metavar="NAME", help="our network, as `ppcls models` lists")
    parser.add_argument("--class-num", type=int, default=1000, metavar="N", help="default 1000")


def _run(args: argparse.Namespace) -> int:
    from ppcls.arch import create_model
    from ppcls.logger import setup_logging
    from ppcls.registry import BACKBONES
    from ppcls.weights import convert, find_file, load_into, read_params, torch_options, write_params

    setup_logging()
    BACKBONES[args.arch]  # an unknown name is said first
    target = args.target if args.target.endswith(".pdparams") else f"{args.target}.pdparams"
    source = find_file(args.source, "IN")
    theirs = read_params(source)
    options = torch_options(args.arch, theirs)
    network = create_model(args.arch, class_num=args.class_num, **options)
    params = convert(theirs, network, args.arch, str(source))
    load_into(network, params, str(source), allow_missing_head=False)
    write_params(target, network.state_dict())
    needs = "".join(f"; use it with {option}: {value}" for option, value in options.items())
    print(f"{target}: {len(params)} tensors of {args.arch}{needs}")
    return 0


COMMAND = Command(
    "turn a PyTorch file (timm, torchvision, RepDistiller, mdistiller) into weights of one of our networks",
    _add_arguments,
    _run,
    writes_files=True,
)
