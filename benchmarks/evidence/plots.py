"""Plots of the results: every run is a point, means have their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evidence.questions import Panel, Point, Question
from evidence.statistics import Gain, mean

_SEED = {"color": "tab:blue", "alpha": 0.45, "s": 22, "linewidths": 0, "zorder": 3}
_MEAN = {"fmt": "o", "color": "tab:blue", "markersize": 6, "capsize": 3, "linewidth": 1.3, "zorder": 4}
_WHITE = {"facecolor": "white", "alpha": 0.75, "pad": 0.3, "linewidth": 0}
_OFFSETS = [
    (side * (7 + abs(y) / 4), y)
    for y in (4, -6, *range(16, 160, 12), *range(-18, -160, -12))
    for side in (1, -1)
]
_OFFSETS.sort(key=lambda place: abs(place[1]))


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_gains(
    runs: Mapping[str, Sequence[float]], found: Mapping[str, Gain], base: str, title: str, path: Path
) -> None:
    """Draw gains in points over `base`, the line at zero, sorted by gain. Hollow points are single runs."""
    pyplot = _pyplot()
    names = sorted(found, key=lambda name: found[name].mean)
    figure, axes = pyplot.subplots(figsize=(8, 1.4 + 0.27 * (len(names) + 1)))
    reference = mean(runs[base])
    for place, name in enumerate([base, *names]):
        axes.scatter([value - reference for value in runs[name]], [place] * len(runs[name]), **_SEED)
        if name != base:
            # Without a second run of any method there is no interval.
            half = 0 if found[name].half != found[name].half else found[name].half
            face = "white" if len(runs[name]) == 1 else "tab:blue"
            axes.errorbar([found[name].mean], [place], xerr=[half], markerfacecolor=face, **_MEAN)
    axes.axvline(0, color="0.35", linewidth=1)
    axes.set_yticks(range(len(names) + 1), [f"labels alone, {reference:.1f} %", *names])
    axes.set_ylim(-0.7, len(names) + 0.7)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("points above labels alone: mean, 95 % interval, runs (hollow: one run)")
    axes.set_title(title, fontsize=11)
    _save(figure, path)


def draw_together(
    columns: Mapping[str, tuple[Mapping[str, Sequence[float]], Mapping[str, Gain]]],
    names: Sequence[str],
    base: str,
    path: Path,
) -> None:
    """Draw the gains of methods in several comparisons: a row for each method, a colour for each comparison.

    The axis is linear between -5 and 5 points and logarithmic outside, so that a loss of 40 points is on it.

    Args:
        columns: runs and gains by the title of the comparison.
        names: the methods, the uppermost first.
        base: what the gains are above.
        path: file to write.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(9, 1.8 + 0.5 * len(names)))
    step = 0.8 / len(columns)
    for number, (title, (runs, found)) in enumerate(columns.items()):
        reference, label = mean(runs[base]), title
        for row, name in enumerate(names):
            if name not in found:
                continue
            place = row + (number - (len(columns) - 1) / 2) * step
            color = f"C{number}"
            values = [value - reference for value in runs[name]]
            axes.scatter(values, [place] * len(values), **{**_SEED, "color": color, "s": 12})
            half = 0.0 if math.isnan(found[name].half) else found[name].half
            face = "white" if len(values) == 1 else color
            style = {**_MEAN, "color": color, "markersize": 4, "capsize": 2, "linewidth": 1.0}
            axes.errorbar(
                [found[name].mean], [place], xerr=[half], markerfacecolor=face, label=label, **style
            )
            label = "_nolegend_"
    ticks = (-80, -40, -20, -10, -5, -2.5, 0, 2.5, 5, 10)
    axes.set_xscale("symlog", linthresh=5)
    axes.set_xticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(0, color="0.35", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color="0.9", linewidth=0.8)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.set_xlabel("points above labels alone: mean, 95 % interval, runs (hollow: one run)")
    axes.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    _save(figure, path)


def draw_against(panels: Mapping[str, Mapping[str, tuple[float, float, float]]], x: str, path: Path) -> None:
    """Draw our gains against other ones, a panel for each setting.

    Args:
        panels: for each title and name the other gain, ours and half the interval of ours.
        x: label of the other gain.
        path: file to write.
    """
    pyplot = _pyplot()
    figure, column = pyplot.subplots(len(panels), 1, figsize=(8, 5.2 * len(panels)), squeeze=False)
    for axes, (title, points) in zip(column[:, 0], panels.items(), strict=True):
        right = max(x for x, _, _ in points.values())
        for place, gain, half in points.values():
            axes.errorbar([place], [gain], yerr=[half], **_MEAN)
        axes.set_xlim(-1, right + 1.2)
        axes.axhline(0, color="0.35", linewidth=1)
        axes.axvline(0, color="0.35", linewidth=1)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.set_xlabel(x)
        axes.set_ylabel("gain here, points, with 95 % interval")
        axes.set_title(title, fontsize=10)
        _name(axes, [(name, (place, gain)) for name, (place, gain, _) in points.items()])
    _save(figure, path)


def _name(axes: Any, points: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Write names beside their points, each at the first place where it hides neither names nor points."""
    axes.figure.canvas.draw()
    taken = [axes.transData.transform(place) for _, place in points]
    boxes: list[Any] = []
    for name, place in sorted(points, key=lambda point: point[1]):
        for x, y in _OFFSETS:
            moved = {"xytext": (x, y), "textcoords": "offset points", "va": "center"}
            text = axes.annotate(
                name, place, ha="left" if x > 0 else "right", fontsize=9, bbox=_WHITE, **moved
            )
            box = text.get_window_extent().expanded(1.02, 1.1)
            if not any(box.overlaps(other) for other in boxes) and not any(box.contains(*p) for p in taken):
                break
            text.remove()
        else:
            continue  # nowhere is room; the table has the point
        boxes.append(box)
        if abs(y) > 12:
            axes.annotate(
                "", place, arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}, **moved
            )


def draw_lines(panels: Sequence[Panel], question: Question, path: Path) -> None:
    """Draw points with intervals and single runs over a number, a line for each series.

    Args:
        panels: their content, side by side; panels of top-1 share the y axis and have labels alone as a band.
        question: has the label, the scale and the ticks of the x axis.
        path: file to write.
    """
    pyplot = _pyplot()
    scale = question.scale
    size = (5.0 * len(panels) + (3.0 if len(panels) == 1 else 0.6), 4.6)
    shared = panels[0].alone is not None
    figure, row = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, sharey=shared)
    for axes, panel in zip(row[0], panels, strict=True):
        _zero_or_band(axes, panel)
        places = sorted({point.x for points in panel.lines.values() for point in points})
        axes.set_xscale(scale)
        width = (math.log(places[-1] / places[0]) if scale == "log" else places[-1] - places[0]) or 1.0
        drawn = [(label, points) for label, points in panel.lines.items() if points]
        for number, (label, points) in enumerate(drawn):
            shift = (
                (number - (len(drawn) - 1) / 2) * 0.018 * width
            )  # so that intervals do not hide each other
            moved = _times(math.exp(shift)) if scale == "log" else _plus(shift)
            _line(axes, points, label, f"C{number}", moved)
        axes.set_xticks(places, [question.ticks.get(place, f"{place:,g}") for place in places])
        axes.minorticks_off()
        axes.margins(x=0.08)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        axes.set_xlabel(question.x)
        axes.set_title(panel.title, fontsize=11)
        axes.legend(fontsize=9, framealpha=0.8)
    row[0][0].set_ylabel(
        "top-1 %: mean, 95 % interval, runs"
        if shared
        else "points above labels alone: mean, 95 % interval, runs"
    )
    _save(figure, path)


def _zero_or_band(axes: Any, panel: Panel) -> None:
    """Draw labels alone: a band of its interval, or the line of no gain."""
    if panel.alone is None:
        axes.axhline(0, color="0.35", linewidth=1)
        return
    middle, half = panel.alone.mean, 0.0 if math.isnan(panel.alone.half) else panel.alone.half
    axes.axhspan(middle - half, middle + half, color="0.85", zorder=0)
    axes.axhline(middle, color="0.35", linewidth=1, label="labels alone")


def _times(factor: float) -> Callable[[float], float]:
    return lambda value: value * factor


def _plus(shift: float) -> Callable[[float], float]:
    return lambda value: value + shift


def _line(
    axes: Any, points: Sequence[Point], label: str, color: str, moved: Callable[[float], float]
) -> None:
    """Draw one series. Points of a single run are hollow."""
    places = [moved(point.x) for point in points]
    axes.plot(places, [point.mean for point in points], color=color, linewidth=1.2, label=label, zorder=2)
    for place, point in zip(places, points, strict=True):
        face = "white" if len(point.runs) == 1 else color
        half = 0.0 if math.isnan(point.half) else point.half
        axes.scatter([place] * len(point.runs), point.runs, **{**_SEED, "color": color})
        axes.errorbar([place], [point.mean], yerr=[half], markerfacecolor=face, **{**_MEAN, "color": color})


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    # No date and no version in the file, so that it changes only with its content.
    figure.savefig(path, dpi=110, metadata={"Software": None})
