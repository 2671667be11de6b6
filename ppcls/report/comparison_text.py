"""A comparison of runs as text: a table, CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from ppcls.report.comparison import Group, Row, evaluations_differ, groups_of, score_names
from ppcls.report.tables import aligned, markdown
from ppcls.report.words import duration

FORMATS = ("table", "csv", "json", "markdown")
OTHER_IMAGES = "These runs were evaluated on different images: their scores do not tell which one is better."


def render(rows: Sequence[Row], form: str = "table") -> str:
    """Return a comparison as text.

    Args:
        rows: result of :func:`compare`.
        form: one of `FORMATS`.
    """
    if form == "json":
        return json.dumps([row.as_dict() for row in rows], ensure_ascii=False, indent=1)
    if form == "csv":
        return _csv(rows)
    header, lines, right = _table(rows)
    text = aligned(header, lines, right) if form == "table" else markdown(header, lines, right)
    if evaluations_differ(rows):
        text += f"\n\n{OTHER_IMAGES}"
    groups = [group for group in groups_of(rows) if len(group.counted) > 1]
    if not groups:
        return text
    header = ["recipe", "runs", header[2], "differs in"]
    means = [
        [str(group.number + 1), str(len(group.counted)), mean_text(group), group.rows[0].differs_in]
        for group in groups
    ]
    title = "mean ± standard deviation over the seeds of a recipe"
    if form == "table":
        return f"{text}\n\n{title}\n{aligned(header, means, (0, 1, 2))}"
    return f"{text}\n\n{title}\n\n{markdown(header, means, (0, 1, 2))}"


def mean_text(group: Group) -> str:
    """Return mean and standard deviation of a recipe."""
    if group.mean is None:
        return "-"
    return f"{group.mean:.4f}" + ("" if group.deviation is None else f" ± {group.deviation:.4f}")


def _table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], tuple[int, ...]]:
    scores = score_names(rows)
    score = "score" if scores <= {"top1"} else f"score ({', '.join(sorted(scores))})"
    header = ["run", "recipe", score, "epoch", "network", "teacher", "agrees", "seed", "time"]
    methods = len({row.method for row in rows}) > 1
    header += ["losses", "differs in"] if methods else ["differs in"]
    lines = [
        [
            row.name,
            str(row.group + 1),
            _score(row, len(scores) > 1),
            _epochs(row),
            row.network,
            row.teacher or "-",
            "-" if row.agreement is None else f"{row.agreement:.4f}",
            str(row.record.run.settings.get("seed")),
            duration(row.record.seconds),
            *([row.method] if methods else []),
            row.differs_in,
        ]
        for row in rows
    ]
    return header, lines, (1, 2, 3, 6, 7, 8)


def _score(row: Row, named: bool) -> str:
    if row.score is None:
        return "-"
    return f"{row.score:.4f}" + (f" {row.score_name}" if named else "")


def _epochs(row: Row) -> str:
    run = row.record.run
    best = "-" if run.best_epoch is None else str(run.best_epoch)
    return f"{best}/{run.epochs}" if run.finished else f"{best}/{run.epochs_done} of {run.epochs}"


def _csv(rows: Sequence[Row]) -> str:
    table = [row.as_dict() for row in rows]
    for line, row in zip(table, rows, strict=True):
        line["differs_in"] = row.differs_in
        line.update({f"best_{name}": value for name, value in line.pop("best").items()})
    names = list(dict.fromkeys(name for line in table for name in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue().removesuffix("\n")
