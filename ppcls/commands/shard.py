"""``ppcls shard``: write images into tar shards with an index."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.command import Command, add_recipe
from ppcls.errors import ConfigError

if TYPE_CHECKING:
    from ppcls.data import Dataset
    from ppcls.data.dataset import OnError

_PARTS = ("Train", "Eval", "UnLabelTrain")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_OF_DATA = ("image_root", "delimiter", "class_names", "on_error")


def _bytes(text: str) -> int:
    """Return the number of bytes of a text such as ``256MB`` or ``1GiB``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 256MB, 1GB or 512MiB, got {text!r}")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="DATA OUT, side by side: a folder of class folders or a list file, and the folder to write; "
        "with -c only OUT, which gets a folder for each part of the recipe",
    )
    add_recipe(parser, required=False)
    parser.add_argument("--part", action="append", choices=_PARTS, help="only this part of the recipe")
    parser.add_argument("--image-root", metavar="DIR", help="folder that the paths in a list start from")
    parser.add_argument("--delimiter", metavar="TEXT", help="between path and label of a list")
    parser.add_argument("--class-names", metavar="FILE", help="one line 'id name' per class, for a list")
    parser.add_argument(
        "--on-error", choices=["raise", "skip"], help="skip: leave out images that cannot be read"
    )
    parser.add_argument(
        "--size", type=_bytes, default="256MB", help="largest size of a shard (default 256MB)"
    )
    parser.add_argument(
        "--resize-short",
        type=int,
        metavar="N",
        help="shrink images whose shorter side is above N pixels",
    )
    parser.add_argument(
        "--quality", type=int, metavar="Q", help="JPEG quality with --resize-short (default 92)"
    )
    parser.add_argument(
        "--json", action="store_true", help="also store the names of image and class (key.json)"
    )
    parser.add_argument(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="order in the shards, for tools that read them from beginning to end; ppcls does not need it",
    )


def _run(args: argparse.Namespace) -> int:
    if args.quality is not None and args.resize_short is None:
        raise ConfigError("--quality: images keep their bytes unless --resize-short is given")
    expected = 2 if args.config is None else 1
    if len(args.paths) != expected:
        form = "DATA OUT" if args.config is None else "OUT (-c names the data)"
        raise ConfigError(f"shard: expected {form}, got {' '.join(args.paths)}")
    from ppcls.data.shard_writer import ShardOptions, write_shards
    from ppcls.logger import setup_logging

    setup_logging()
    quality = {} if args.quality is None else {"quality": args.quality}
    options = ShardOptions(args.size, args.resize_short, json=args.json, shuffle=args.shuffle, **quality)
    options.check()
    parts = list(_of_data(args) if args.config is None else _of_recipe(args))
    for part, dataset, names, folder in parts:
        done = write_shards(dataset, folder, options, names)
        new = "all were there" if not done.written else f"{done.written} written now"
        left_out = f"; {len(done.skipped)} images left out" if done.skipped else ""
        print(f"{folder}: {done.samples} images in {done.shards} shards, {done.size} bytes, {new}{left_out}")
        print(f"  {part}: dataset: {{name: ShardDataset, path: {folder}, transform_ops: [...]}}")
    return 0


_Part = tuple[str, "Dataset", "list[str] | None", Path]


def _of_data(args: argparse.Namespace) -> Iterator[_Part]:
    """Yield the data that are given as a folder or a list."""
    from ppcls.class_names import read_fitting_names
    from ppcls.data import FolderDataset, ImageNetDataset
    from ppcls.texts import near_path, sentence

    if args.part or args.override:
        raise ConfigError("shard: --part and -o change a recipe; give one with -c")
    data, out = args.paths
    on_error: OnError = args.on_error or "raise"
    dataset: Dataset
    if Path(data).is_dir():
        for option in ("image_root", "delimiter", "class_names"):
            if getattr(args, option) is not None:
                raise ConfigError(f"shard: --{option.replace('_', '-')} is for lists; {data} is a folder")
        dataset = FolderDataset(data, on_error=on_error)
        yield "Train", dataset, None, Path(out)
        return
    if not Path(data).is_file():
        raise ConfigError(f"DATA: {data}: no such folder or list{sentence(near_path(data))}")
    if args.image_root is None:
        raise ConfigError(f"--image-root: give the folder that the paths in {data} start from")
    names = None if args.class_names is None else read_fitting_names(args.class_names, None)
    class_num = None if names is None else len(names)
    dataset = ImageNetDataset(
        args.image_root, data, delimiter=args.delimiter, on_error=on_error, class_num=class_num
    )
    yield "Train", dataset, names, Path(out)


def _of_recipe(args: argparse.Namespace) -> Iterator[_Part]:
    """Yield the parts of a recipe."""
    from ppcls.config import load_config
    from ppcls.data import build_dataset
    from ppcls.engine.run_class_names import data_class_names, evaluation_names, names_to_record

    for option in _OF_DATA:
        if getattr(args, option) is not None:
            raise ConfigError(f"shard: --{option.replace('_', '-')} does not go with -c; use -o")
    config = load_config(args.config, args.override, mode="train")
    class_num = config.arch.main.class_count
    of_data = data_class_names(config, None)
    recorded = names_to_record(config, of_data, class_num)
    for part in args.part or _PARTS:
        node = config.DataLoader[part]
        if node is None and not args.part:
            continue
        if node is None:
            raise ConfigError(f"--part: the recipe has no DataLoader.{part}")
        unlabelled = part == "UnLabelTrain"
        if not (unlabelled or node.labelled):
            raise ConfigError(
                "False, but shards keep a label of each image and have no such option; shard these images as "
                "DataLoader.UnLabelTrain, or name the other parts with --part",
                path=f"DataLoader.{part}.dataset.labelled",
            )
        known = evaluation_names(config, of_data, None) if part == "Eval" else None
        dataset = build_dataset(node.dataset, part, None if unlabelled else class_num, known)
        names = dataset.class_names if unlabelled or dataset.class_names is not None else recorded
        names = names or None  # a folder of images without labels has no classes
        yield part, dataset, names, Path(args.paths[0]) / part


COMMAND = Command(
    "write images into tar shards with an index (WebDataset's layout)",
    _add_arguments,
    _run,
    writes_files=True,
)
