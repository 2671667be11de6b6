"""``report.html``: one run on one page, in one file."""

from __future__ import annotations

from pathlib import Path

from ppcls.errors import mask_credentials
from ppcls.files import write_atomic
from ppcls.logger import LOGGER
from ppcls.report.baseline import evaluated_alike, find_baseline
from ppcls.report.cost_sections import command_and_environment, sizes, time_and_cost
from ppcls.report.curve_sections import curves
from ppcls.report.html import both, escaped, page
from ppcls.report.image_sections import classes, confusion, wrong_images
from ppcls.report.record import Record, read_record
from ppcls.report.run_sections import accuracies, cards, warnings, what_on_what

REPORT = "report.html"


def write_report(run_folder: Path, baseline: Path | None = None) -> Path:
    """Write ``report.html`` into the folder of a run, finished or not; return its path.

    Args:
        run_folder: folder of the run.
        baseline: folder of a run of the student alone; None looks for one beside the run.

    Raises:
        ConfigError: if a folder is not that of a run.
        WeightsError: if the file cannot be written.
    """
    record = read_record(Path(run_folder))
    alone = find_baseline(record) if baseline is None else read_record(Path(baseline))
    if alone is not None and not evaluated_alike(record, alone):
        LOGGER.warning("%s was evaluated on other images than %s: not compared", alone.folder, record.folder)
        alone = None
    path = record.folder / REPORT
    content = render(record, alone).encode("utf-8")
    write_atomic(path, lambda stream: stream.write(content))
    return path


def render(record: Record, baseline: Record | None) -> str:
    """Return the page of a run.

    Args:
        record: the run.
        baseline: a run of its student alone, if there is one.
    """
    name = record.student.network if record.student is not None else record.run.name
    teachers = ", ".join(teacher.network for teacher in record.teachers)
    heading = (
        both(f"{escaped(name)}, taught by {escaped(teachers)}", f"{escaped(teachers)} 蒸馏 {escaped(name)}")
        if teachers
        else both(f"Training of {escaped(name)}", f"{escaped(name)} 的训练")
    )
    config = mask_credentials(record.run.config_file.read_text("utf-8", "replace"))
    sections = [
        cards(record, baseline),
        what_on_what(record),
        accuracies(record, baseline),
        curves(record, baseline),
        confusion(record),
        classes(record),
        wrong_images(record),
        sizes(record),
        time_and_cost(record),
        warnings(record),
        command_and_environment(record, config),
    ]
    footer = both("Made by ppcls.", "由 ppcls 生成。")
    folder = f"<code>{escaped(record.folder)}</code>"
    return page(f"{name} – {record.run.name}", heading, folder, filter(None, sections), footer)
