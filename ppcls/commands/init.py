"""``ppcls init``: look at images and write the recipes of a distillation."""

from __future__ import annotations

import argparse

from ppcls.commands.command import Command, add_project


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with one folder of images for each class, or with parts such as train/ and val/ of "
        "class folders; a list with lines 'path label'; or shards",
    )
    parser.add_argument("--teacher", metavar="NAME", help="network that teaches; default: by image size")
    parser.add_argument("--student", metavar="NAME", help="network that learns; default: by image size")
    add_project(parser)
    parser.add_argument("--out", default="project", metavar="DIR", help="folder to write (default project)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the split (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier project")


def _run(args: argparse.Namespace) -> int:
    from ppcls.logger import setup_logging
    from ppcls.project import check_choices, check_files, inspect_data, plan, write_project

    setup_logging()
    sizes = {"image_size": args.image_size, "epochs": args.epochs, "batch_size": args.batch_size}
    check_choices(args.teacher, args.student, args.method, **sizes)
    check_files(args.out, overwrite=args.overwrite)
    summary = inspect_data(args.data, val=args.val, seed=args.seed, image_root=args.image_root, out=args.out)
    print(summary.describe())
    chosen = plan(
        summary,
        teacher=args.teacher,
        student=args.student,
        method=args.method,
        from_scratch=args.from_scratch,
        **sizes,
    )
    project = write_project(summary, chosen, args.out, overwrite=args.overwrite)
    for training, role in ((chosen.teacher, "teacher"), (chosen.student, "student")):
        start = "from ImageNet weights" if training.pretrained else "from random weights"
        rate = f"learning rate {training.learning_rate}"
        epochs = f"{training.epochs} epoch{'s' * (training.epochs > 1)}"
        print(f"{role}: {training.network}, {epochs} {start}, {rate}")
    print(f"method: {chosen.method}; images of {chosen.image_size} pixels in batches of {chosen.batch_size}")
    print("\n".join(chosen.notes), end="\n" if chosen.notes else "")
    if project.replaced:
        print(f"replaced: {', '.join(project.replaced)}")
    print(f"\nwritten to {project.folder}; the next commands:")
    print("\n".join(f"  {command}" for command in project.commands))
    print(f"or all of them: ppcls distill {args.out} --baseline")
    return 0


COMMAND = Command(
    "look at your images and write the recipes of teacher, student and distillation",
    _add_arguments,
    _run,
    writes_files=True,
)
