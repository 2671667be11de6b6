"""``ppcls check-data``: read all images of a recipe once and report what is wrong with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.command import Command, add_recipe
from ppcls.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ppcls.data.audit import DataAudit


_PICTURES = (".html", ".png", ".jpg", ".jpeg")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--report", metavar="FILE.json", help="also write all findings there")
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="also write a contact sheet, .html or .png: suspicious images, and some of each class; finds "
        "images of Eval that are nearly the same as one of training, too",
    )


def _run(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.data.audit import check_data
    from ppcls.data.mirroring import mirroring_problem
    from ppcls.engine.run_class_names import data_class_names, evaluation_names, names_to_record
    from ppcls.logger import setup_logging
    from ppcls.report.data import render_audit, write_json

    setup_logging()
    config = load_config(args.config, args.override, mode="train")
    report = None if args.report is None else _file(args.report, "--report", (".json",))
    picture = None if args.picture is None else _file(args.picture, "--picture", _PICTURES)
    class_num = config.arch.main.class_count
    names = data_class_names(config, None)
    found = check_data(config.DataLoader, class_num, evaluation_names(config, names, None))
    try:
        found.class_names = names_to_record(config, names, class_num)
    except DataError as error:
        found.wrong_names = str(error)
    if "Train" in found.datasets:
        found.mirrored = mirroring_problem(found.datasets["Train"], found.class_names)
    if picture is not None:
        _find_near(found)
    print(render_audit(found))
    if report is not None:
        write_json(found, report)
    if picture is not None:
        _write_picture(found, picture, str(args.config))
    return 2 if found.stops else 0


def _file(text: str, option: str, suffixes: tuple[str, ...]) -> Path:
    """Return the file to write; check it first, because reading all images takes long."""
    path = Path(text)
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{option}: {path}; expected a name that ends in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: {path.parent} is not a folder")
    return path


def _find_near(found: DataAudit) -> None:
    """Search for images of ``Eval`` that are nearly the same as one of training, but not byte for byte."""
    from ppcls.project.looking import look_at_both, near_pairs
    from ppcls.project.sources import whole

    if not {"Train", "Eval"} <= found.datasets.keys():
        return
    train, held = whole(found.datasets["Train"]), whole(found.datasets["Eval"])
    seen, other = look_at_both(train, held, 0)
    equal = {one for one, _ in found.leaked}
    if other is not None:
        found.near = [pair for pair in near_pairs(train, held, seen, other) if pair[0] not in equal]


def _write_picture(found: DataAudit, path: Path, source: str) -> None:
    from ppcls.errors import WeightsError
    from ppcls.files import write_atomic
    from ppcls.report.contact_picture import sheet_picture
    from ppcls.report.contact_sheet import contact_sheet, sheet_page
    from ppcls.report.data import render_audit

    blocks = contact_sheet(found)
    if path.suffix.lower() == ".html":
        content = sheet_page(blocks, source, render_audit(found))
    else:
        content = sheet_picture(blocks, path.suffix.lower())
    try:
        write_atomic(path, lambda stream: stream.write(content))
    except WeightsError as error:
        raise ConfigError(f"--picture: {error}") from None
    print(f"contact sheet: {path}")


COMMAND = Command(
    "read all images of a recipe once: what would stop a training, and what is odd about them",
    _add_arguments,
    _run,
)
