"""Plots of the results: every run is a point, means have their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence.statistics import Gain, mean

_SEED = {"color": "tab:blue", "alpha": 0.45, "s": 22, "linewidths": 0, "zorder": 3}
_MEAN = {"fmt": "o", "color": "tab:blue", "markersize": 6, "capsize": 3, "linewidth": 1.3, "zorder": 4}


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_gains(
    runs: Mapping[str, Sequence[float]], found: Mapping[str, Gain], base: str, title: str, path: Path
) -> None:
    """Draw gains in points over `base`, which is the line at zero; sorted by gain."""
    pyplot = _pyplot()
    names = sorted(found, key=lambda name: found[name].mean)
    figure, axes = pyplot.subplots(figsize=(8, 1.4 + 0.27 * (len(names) + 1)))
    reference = mean(runs[base])
    for place, name in enumerate([base, *names]):
        axes.scatter([value - reference for value in runs[name]], [place] * len(runs[name]), **_SEED)
        if name != base:
            # Without a second run of any method there is no interval.
            half = 0 if found[name].half != found[name].half else found[name].half
            axes.errorbar([found[name].mean], [place], xerr=[half], **_MEAN)
    axes.axvline(0, color="0.35", linewidth=1)
    axes.set_yticks(range(len(names) + 1), [f"labels alone, {reference:.1f} %", *names])
    axes.set_ylim(-0.7, len(names) + 0.7)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("points of top-1 above labels alone: mean with 95 % interval, and single runs")
    axes.set_title(title, fontsize=11)
    _save(figure, path)


def draw_against(
    points: Mapping[str, tuple[float, float, float]], title: str, labels: tuple[str, str], path: Path
) -> None:
    """Draw named points.

    Args:
        points: for each name x, y and half the interval of y.
        title: title of the plot.
        labels: of the axes.
        path: file to write.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(7.5, 5.5))
    for name, (x, y, half) in points.items():
        axes.errorbar([x], [y], yerr=[half], **_MEAN)
        axes.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.axhline(0, color="0.35", linewidth=1)
    axes.axvline(0, color="0.35", linewidth=1)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title, fontsize=11)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    # No date and no version in the file, so that it changes only with its content.
    figure.savefig(path, dpi=110, metadata={"Software": None})
