"""``ppcls check-data``: read all images of a recipe once and report what is wrong with them."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppcls.commands.command import Command, add_recipe
from ppcls.errors import ConfigError, DataError


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument("--report", metavar="FILE.json", help="also write all findings there")


def _run(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.data.audit import check_data
    from ppcls.engine.run_class_names import data_class_names, evaluation_names, names_to_record
    from ppcls.logger import setup_logging
    from ppcls.report.data import render_audit, write_json

    setup_logging()
    config = load_config(args.config, args.override, mode="train")
    report = None if args.report is None else _report_file(args.report)
    class_num = config.arch.main.class_count
    names = data_class_names(config, None)
    found = check_data(config.DataLoader, class_num, evaluation_names(config, names, None))
    try:
        found.class_names = names_to_record(config, names, class_num)
    except DataError as error:
        found.wrong_names = str(error)
    print(render_audit(found))
    if report is not None:
        write_json(found, report)
    return 2 if found.stops else 0


def _report_file(text: str) -> Path:
    """Return the file to write; check it first, because reading all images takes long."""
    path = Path(text)
    if path.suffix.lower() != ".json":
        raise ConfigError(f"--report: {path}; expected a name that ends in .json")
    if not path.parent.is_dir():
        raise ConfigError(f"--report: {path.parent} is not a folder")
    return path


COMMAND = Command(
    "read all images of a recipe once: what would stop a training, and what is odd about them",
    _add_arguments,
    _run,
)
