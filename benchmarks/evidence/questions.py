"""What users ask beside "which method": a plot for each question, made from the runs there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evidence import comparisons as of
from evidence.settings import DOCS, Setting
from evidence.statistics import gains, mean, pooled_deviation, t_quantile
from evidence.tables import BASE, pool_of, runs_of


@dataclass(frozen=True)
class Point:
    """The runs with one value of what is varied.

    Attributes:
        x: that value.
        runs: every run.
        mean: their mean.
        half: half the width of its 95 % interval; NaN if it is unknown.
    """

    x: float
    runs: Sequence[float]
    mean: float
    half: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it.
        lines: points by the label of their line.
        alone: labels alone, where the y axis is top-1; None where it is the gain over them.
    """

    title: str
    lines: Mapping[str, Sequence[Point]]
    alone: Point | None = None


@dataclass(frozen=True)
class Question:
    """One plot.

    Attributes:
        key: its file is ``docs/images/results_<key>.png``.
        x: label of the x axis.
        scale: ``log`` or ``linear``.
        panels: makes its content; panels without points are left out.
        ticks: names of values on the x axis.
    """

    key: str
    x: str
    scale: str
    panels: Callable[[], list[Panel]]
    ticks: Mapping[float, str] = field(default_factory=dict)

    @property
    def picture(self) -> str:
        """The picture in Markdown."""
        return f"![Results: {self.x}]({self.path})"

    @property
    def path(self) -> str:
        """The picture, seen from the docs."""
        return f"images/results_{self.key}.png"

    def found(self) -> list[Panel]:
        """Return the panels for which there are runs."""
        return [panel for panel in self.panels() if any(panel.lines.values())]

    def answer(self) -> str:
        """Return the picture and a table for each panel, for a page of the docs."""
        found = self.found()
        return "\n\n".join([self.picture, *map(self._table, found)]) if found else "Not run yet."

    def _table(self, panel: Panel) -> str:
        places = sorted({point.x for points in panel.lines.values() for point in points})
        names = [self.ticks.get(place, f"{place:,g}").replace("\n", ", ") for place in places]
        lines = [f"| {panel.title}: {self.x} | {' | '.join(names)} |", f"| --- |{' ---: |' * len(places)}"]
        form = "{:+.2f} ± {:.2f}" if panel.alone is None else "{:.2f} ± {:.2f}"
        for label, points in panel.lines.items():
            cells = {point.x: form.format(point.mean, point.half).replace(" ± nan", "") for point in points}
            lines.append(f"| {label} | {' | '.join(cells.get(place, '') for place in places)} |")
        if panel.alone is not None:
            alone = form.format(panel.alone.mean, panel.alone.half)
            lines.append(f"| labels alone | {' | '.join([alone] * len(places))} |")
        return "\n".join(lines)

    def draw(self) -> bool:
        """Draw what there is; tell whether there is anything."""
        from evidence.plots import draw_lines

        panels = self.found()
        if panels:
            draw_lines(panels, self, DOCS / self.path)
        return bool(panels)


def _points(setting: Setting, names: Iterable[tuple[float, str]]) -> list[Point]:
    """Return top-1 with its interval at each x whose runs exist."""
    runs = runs_of(setting)
    sigma, freedom = pooled_deviation(pool_of(setting))
    return [
        Point(x, runs[name], mean(runs[name]), t_quantile(freedom) * sigma / math.sqrt(len(runs[name])))
        for x, name in names
        if name in runs
    ]


def _alone(setting: Setting) -> Point | None:
    found = _points(setting, [(0.0, BASE)])
    return found[0] if found else None


def _kd() -> list[Panel]:
    panels = []
    for standardize, weights in of.KD_WEIGHTS.items():
        temperatures = sorted({*of.KD_TEMPERATURES, 2}) if standardize else of.KD_TEMPERATURES
        lines = {
            f"weight {weight:g}": _points(
                of.KD, ((t, of.kd_name(standardize, t, weight)) for t in temperatures)
            )
            for weight in weights
        }
        panels.append(Panel("KD, standardised" if standardize else "KD", lines, _alone(of.KD)))
    return panels


def _views() -> list[Panel]:
    names = [(views, of.views_name(views)) for views in of.VIEWS]
    return [Panel("KD with stored views", {"KD": _points(of.KD, names)}, _alone(of.KD))]


def _teachers() -> list[Panel]:
    lines = {
        method: _points(of.TEACHER, ((x, of.teacher_name(method, name)) for name, x in of.TEACHERS.items()))
        for method in of.TEACHER_METHODS
    }
    return [Panel("Teachers of CIFAR-10", lines, _alone(of.TEACHER))]


def _labels() -> list[Panel]:
    return [
        Panel(
            title,
            {
                method: [point for count, setting in settings for point in _gain(setting, method, count)]
                for method in of.FEW_METHODS
                if method != BASE
            },
        )
        for title, settings in (
            ("CIFAR-10", [(setting.labels, setting) for setting in of.BY_LABELS]),
            ("Fashion-MNIST", [(100, of.FASHION), (4700, of.FASHION_ALL)]),
        )
    ]


def _gain(setting: Setting, method: str, x: float) -> list[Point]:
    runs = runs_of(setting)
    if BASE not in runs or method not in runs:
        return []
    gain = gains(runs, BASE)[method]
    return [Point(x, [value - mean(runs[BASE]) for value in runs[method]], gain.mean, gain.half)]


KD = Question("kd_temperature", "temperature", "log", _kd)
VIEWS = Question("views", "views of each image in the teacher's store", "log", _views)
TEACHERS = Question(
    "teachers",
    "top-1 of the teacher, %",
    "linear",
    _teachers,
    {x: f"{name}\n{x:g}" for name, x in of.TEACHERS.items()},
)
LABELS = Question("labels", "labelled images for each class", "log", _labels)
QUESTIONS = (LABELS, TEACHERS, KD, VIEWS)
