"""``ppcls split``: split images into training and validation, as lists."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a folder with one folder for each class, or a list")
    parser.add_argument(
        "--val", type=float, default=0.2, metavar="SHARE", help="of each class, for validation (default 0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another split")
    parser.add_argument("--out", default=".", metavar="DIR", help="folder of the lists (default: here)")
    parser.add_argument("--image-root", metavar="DIR", help="folder that the paths in a list start from")
    parser.add_argument("--overwrite", action="store_true", help="replace lists that are there")


def _run(args: argparse.Namespace) -> int:
    from ppcls.logger import setup_logging
    from ppcls.project import split_data

    setup_logging()
    done = split_data(
        args.data,
        args.out,
        val=args.val,
        seed=args.seed,
        image_root=args.image_root,
        overwrite=args.overwrite,
    )
    print("".join(f"{note}\n" for note in done.source.notes), end="")
    for part, path, count in zip(("Train", "Eval"), (done.train, done.val), done.counts, strict=True):
        dataset = f"{{name: ImageNetDataset, image_root: {done.source.root}, cls_label_path: {path}}}"
        print(f"{path}: {count} images\n  {part}: dataset: {dataset}")
    if done.class_names is not None:
        print(f"{done.class_names}: {len(done.source.class_names or ())} classes")
    return 0


COMMAND = Command(
    "split images into training and validation: two lists", _add_arguments, _run, writes_files=True
)
