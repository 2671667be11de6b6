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
        for number, (names, place, half) in enumerate(sorted(_together(points), key=lambda item: item[1][1])):
            axes.errorbar([place[0]], [place[1]], yerr=[half], **_MEAN)
            left = number % 2 and place[0] > right - 1  # names on both sides, where there are many points
            offset, side = ((-6, 3), "right") if left else ((6, 3), "left")
            box = {"facecolor": "white", "alpha": 0.75, "pad": 0.3, "linewidth": 0}
            axes.annotate(
                names, place, xytext=offset, textcoords="offset points", ha=side, fontsize=9, bbox=box
            )
        axes.set_xlim(-1, right + 1.2)
        axes.axhline(0, color="0.35", linewidth=1)
        axes.axvline(0, color="0.35", linewidth=1)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.set_xlabel(x)
        axes.set_ylabel("gain here, points, with 95 % interval")
        axes.set_title(title, fontsize=10)
    _save(figure, path)


def _together(
    points: Mapping[str, tuple[float, float, float]],
) -> list[tuple[str, tuple[float, float], float]]:
    """Join the names of points that lie on each other."""
    joined: list[tuple[str, tuple[float, float], float]] = []
    for name, (x, y, half) in points.items():
        for number, (names, place, width) in enumerate(joined):
            if abs(place[0] - x) < 0.05 and abs(place[1] - y) < 0.3:
                joined[number] = (f"{names}, {name}", place, width)
                break
        else:
            joined.append((name, (x, y), half))
    return joined


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    # No date and no version in the file, so that it changes only with its content.
    figure.savefig(path, dpi=110, metadata={"Software": None})
