"""The end of a run in a few lines: how well, how long, which files, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ppcls.report.record import Record
from ppcls.report.words import duration, file_size

_FILES = ("best_model.pdparams", "best_model_student.pdparams", "best_model_ema.pdparams", "report.html")


def render_summary(record: Record) -> str:
    """Return the lines that a run ends with, at most 100 characters wide unless paths are longer."""
    return "\n".join([_head(record), *_accuracies(record), *_files(record), *_next(record)])


def _head(record: Record) -> str:
    run = record.run
    best = "" if run.best_epoch is None else f"; best epoch {run.best_epoch}, by {record.criterion}"
    return f"{run.epochs_done} of {run.epochs} epochs in {duration(record.seconds)}{best}"


def _accuracies(record: Record) -> Iterator[str]:
    names = [network.shown for network in record.networks]
    width = max(map(len, names), default=0)
    for network, name in zip(record.networks, names, strict=True):
        accuracy = record.accuracy(network)
        if accuracy is None:
            continue
        line = f"  {name.ljust(width)}  top1 {accuracy:.5f}"
        if network.role == "student":
            for teacher in record.references:
                agreement = record.agreement(teacher)
                if agreement is not None:
                    line += f", agrees with {teacher.title} on {agreement:.5f}"
        yield line


def _files(record: Record) -> Iterator[str]:
    yield f"files in {record.folder}:"
    for name in _FILES:
        path = record.folder / name
        if path.is_file():
            yield f"  {name} ({file_size(path.stat().st_size)})"


def _next(record: Record) -> Iterator[str]:
    folder = shlex.quote(str(record.folder))
    best = record.folder / "best_model.pdparams"
    exported = record.folder / "inference/inference.yml"  # where `ppcls export` writes for a run
    if best.is_file():
        if exported.is_file() and exported.stat().st_mtime < best.stat().st_mtime:
            yield f"{exported.parent} holds earlier weights than the best ones of now: export again"
        yield "next:"
        yield f"  ppcls export {folder}"
        yield f"  ppcls infer {folder} photo.jpg"
    elif (record.folder / "latest.pdparams").is_file():
        yield "next:"
        yield f"  ppcls export {folder} --weights latest"
