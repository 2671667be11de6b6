"""``ppcls distill``: from images and a teacher to a student, in one command."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command, add_overrides, add_project


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        help="class folders, a list or shards, as for `ppcls init`; or a project that it has written",
    )
    parser.add_argument(
        "--teacher",
        metavar="WHAT",
        help="a network by name, which is trained first; or what is trained already: a weights file, the "
        "folder of a run, an ONNX file, an exported folder (default: by image size)",
    )
    parser.add_argument("--teacher-network", metavar="NAME", help="network of a weights file")
    parser.add_argument("--student", metavar="NAME", help="network that learns (default: by image size)")
    add_project(parser)
    parser.add_argument("--out", metavar="DIR", help="folder of recipes and runs (default: distilled)")
    parser.add_argument(
        "--baseline", action="store_true", help="also train the student without a teacher, to compare"
    )
    parser.add_argument(
        "--export",
        nargs="?",
        const=True,
        default=False,
        metavar="DIR",
        help="write the student for deployment (default: into the folder inference of its run)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the trainings, not of the split")
    parser.add_argument(
        "--nproc",
        type=int,
        metavar="N",
        help="train in N processes on this machine, one for each GPU; they share the images of a step",
    )
    add_overrides(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.api import distill
    from ppcls.distilling.result import shown_path

    result = distill(
        args.data,
        args.teacher,
        args.student,
        method=args.method,
        image_size=args.image_size,
        epochs=args.epochs,
        batch_size=args.batch_size,
        out=args.out,
        baseline=args.baseline,
        export=args.export,
        overrides=args.override,
        teacher_network=args.teacher_network,
        val=args.val,
        seed=args.seed,
        image_root=args.image_root,
        from_scratch=args.from_scratch,
        processes=args.nproc,
    )
    print(f"\n{result}")
    if result.exported is not None:
        print(f"use it: ppcls predict --model-dir {shown_path(result.exported)} IMAGES")
    else:
        print(f"next: ppcls export {shown_path(result.folder)}")
    return 0


COMMAND = Command(
    "train a student with a teacher, from a folder of images, in one command",
    _add_arguments,
    _run,
    writes_files=True,
)
