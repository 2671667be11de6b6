"""The result of a distillation."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcls.engine import Engine
from ppcls.engine.export import ExportedFiles
from ppcls.engine.from_run import load_run
from ppcls.metric import LOSS
from ppcls.report.runs import RunFolder


def measure_of(run: RunFolder) -> str | None:
    """Return what tells how good a run is: ``top1``, else the value that chose its best evaluation.

    It is None before the first evaluation.
    """
    known, metrics = run.progress or run.best, run.best_metrics
    if known is None or not metrics:
        return None
    names = ("top1", known.best_by.partition(" of ")[0], next(iter(metrics)))
    return next(name for name in names if name in metrics)


def shown_path(path: Path) -> str:
    """Return a path as short as a command in this folder may have it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


@dataclass(frozen=True)
class DistillationResult:
    """A distilled student and what it is compared with.

    Attributes:
        project: folder of the recipes and of all runs.
        folder: folder of the student's run.
        student: name of the student's network.
        teacher: name of the teacher's network, or of the file or folder that it comes from.
        method: losses with which it was taught, as the recipe names them.
        accuracy: share of the evaluation images that the student gets right, at its best epoch; where the
            recipe does not measure it, the value of `measure`.
        teacher_accuracy: the same of the teacher; None if it is unknown.
        baseline_accuracy: the same of the student trained without a teacher; None if it was not trained.
        report: the page about the run; None if there is none.
        exported: folder of the exported student; None if it was not exported.
        measure: what `accuracy` is, such as ``top1``.
    """

    project: Path
    folder: Path
    student: str
    teacher: str
    method: str
    accuracy: float
    teacher_accuracy: float | None = None
    baseline_accuracy: float | None = None
    report: Path | None = None
    exported: Path | None = None
    measure: str = "top1"

    @property
    def gain(self) -> float | None:
        """By how much the student is better than without a teacher."""
        if self.baseline_accuracy is None:
            return None
        more = self.accuracy - self.baseline_accuracy
        return -more if self.measure == LOSS.name else more

    def export(
        self, folder: str | Path | None = None, *, onnx: bool = False, overrides: Sequence[str] = ()
    ) -> ExportedFiles:
        """Write the student for deployment, and check the files against the network in memory.

        Args:
            folder: where to write; None for ``inference`` in the folder of the run.
            onnx: also write an ONNX file (needs the extra ``onnx``).
            overrides: further settings, such as ``Global.export_format=paddle``.
        """
        recipe = load_run(self.folder, overrides, "export")
        if folder is not None:
            recipe.Global.save_inference_dir = str(folder)
        recipe.Global.export_onnx = onnx or recipe.Global.export_onnx
        return Engine(recipe, "export").export()

    def rows(self) -> list[tuple[str, str, str]]:
        """Return network, accuracy and gain over the baseline of each network that is known, as texts."""
        share = self.measure != LOSS.name
        gain = "" if self.gain is None else f"{100 * self.gain:+.2f}" if share else f"{self.gain:+.5f}"
        found = [(f"teacher, {self.teacher}", self.teacher_accuracy, "")]
        found += [(f"{self.student} alone", self.baseline_accuracy, "")]
        found += [(f"{self.student} with the teacher ({self.method})", self.accuracy, gain)]
        kind = "" if self.measure == "top1" else f"{self.measure} "
        return [
            (name, f"{kind}{100 * value:.2f} %" if share else f"{kind}{value:.5f}", more)
            for name, value, more in found
            if value is not None
        ]

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _, _ in rows)
        lines = [f"{name:{width}}  {value:>8}  {more}".rstrip() for name, value, more in rows]
        places = {"run": self.folder, "report": self.report, "exported": self.exported}
        lines += [f"{title}: {shown_path(place)}" for title, place in places.items() if place is not None]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the result in a notebook."""
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td style='text-align:right'>{value}</td>"
            f"<td style='text-align:right'>{more}</td></tr>"
            for name, value, more in self.rows()
        )
        measure = "accuracy" if self.measure == "top1" else self.measure
        head = f"<tr><th>network</th><th>{html.escape(measure)}</th><th>gain</th></tr>"
        places = {"run": self.folder, "report": self.report, "exported": self.exported}
        rest = "".join(
            f"<div>{title}: <code>{html.escape(str(place))}</code></div>"
            for title, place in places.items()
            if place is not None
        )
        return f"<table>{head}{cells}</table>{rest}"
