"""Curves as pictures inside a page (SVG), drawn without any package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ppcls.report.html import both, embedded_json, escaped

WIDTH, HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 24
_POINTS = 300  # of a line; more are not visible
# Distinguishable with any colour vision, on paper too.
COLORS = ("#2563eb", "#d97706", "#0f8a5f", "#9333ea", "#c2255c", "#0e7490", "#6b7280", "#84590a")
GREY = "#6b7280"


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: its name, HTML; without one, it is not in the legend.
        x: places from 0, in increasing order.
        y: values at these places; those that are not finite are left out.
        color: CSS colour.
        dashed: drawn with a dashed line.
        level: one value for all places, such as the accuracy of a teacher; `x` and `y` are empty.
    """

    label: str
    x: Sequence[float] = field(default_factory=list)
    y: Sequence[float] = field(default_factory=list)
    color: str = COLORS[0]
    dashed: bool = False
    level: float | None = None

    def points(self) -> list[tuple[float, float]]:
        """Return the finite points, at most `_POINTS` of them."""
        found = [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(y)]
        if len(found) <= _POINTS:
            return found
        last = len(found) - 1
        return [found[round(place * last / (_POINTS - 1))] for place in range(_POINTS)]


def chart(title: str, lines: Sequence[Line], *, form: str = ".4f", clipped: bool = False) -> str:
    """Return curves in one picture with a legend, whose values follow the pointer; empty without points.

    Args:
        title: HTML.
        lines: the curves.
        form: how values are written, such as ``.4f``, or ``%`` for shares in percent.
        clipped: large values of the beginning may be cut off at the upper edge, so that later ones are seen.
    """
    drawn = [(line, line.points()) for line in lines]
    drawn = [(line, points) for line, points in drawn if points or line.level is not None]
    xs = [x for _, points in drawn for x, _ in points]
    if not xs:
        return ""
    ys = [y for _, points in drawn for _, y in points] + [
        line.level for line, _ in drawn if line.level is not None and math.isfinite(line.level)
    ]
    if clipped:
        ys = _without_beginning(drawn, max(xs), ys)
    x_range = _widened(0.0, max(xs), 0.0)
    low, high = _widened(min(ys), max(ys), 0.04)
    if form == "%" and max(ys) <= 1:
        high = min(high, 1.0)
    ticks = _ticks(max(low, 0.0) if min(ys) >= 0 else low, high)
    y_range = (min(ticks[0], *ys), max(ticks[-1], *ys))
    plot = _Plot(x_range, y_range)
    peak = max(y for _, points in drawn for _, y in points)
    if peak > y_range[1]:
        peak_text = shown(peak, form)
        remark = both(f"cut off, peak {peak_text}", f"已截断，峰值 {peak_text}")
        title += f' <span class="note">({remark})</span>'
    body = "".join([plot.grid(ticks, form), *(plot.curve(line, points) for line, points in drawn)])
    data = {
        "size": [WIDTH, HEIGHT],
        "left": _LEFT,
        "width": WIDTH - _LEFT - _RIGHT,
        "x": x_range,
        "lines": [_followed(line, points, x_range, form) for line, points in drawn],
    }
    legend = "".join(
        f"<span{'' if line.label else ' class=mute'}>"
        f'<i class="{"dash" if line.dashed else "line"}" style="color:{line.color}"></i>{line.label} '
        f"<b>{escaped(entry['last'])}</b></span>"
        for (line, _), entry in zip(drawn, data["lines"], strict=True)  # type: ignore[call-overload]
    )
    return (
        f'<div class="chart"><h3>{title} <span class="where note"></span></h3>'
        f'<div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{body}<line class="mark" y1="{_TOP}" '
        f'y2="{HEIGHT - _BOTTOM}" stroke="#9aa5b1" style="display:none"/></svg>'
        f'<script type="application/json">{embedded_json(data)}</script></div>'
    )


def _without_beginning(
    drawn: Sequence[tuple[Line, Sequence[tuple[float, float]]]], last: float, ys: list[float]
) -> list[float]:
    """Return the values without those of the first third, if these are more than three times as large."""
    later = [y for _, points in drawn for x, y in points if x > last / 3]
    if not later or max(ys) <= 3 * max(later) or max(later) <= 0:
        return ys
    return [min(y, 1.5 * max(later)) for y in ys]


def shown(value: float, form: str) -> str:
    """Return a value as text; `form` as in :func:`chart`."""
    if form == "%":
        return f"{value * 100:.2f} %"
    return f"{value:{form}}"


def _followed(
    line: Line, points: Sequence[tuple[float, float]], x_range: tuple[float, float], form: str
) -> dict[str, object]:
    if line.level is not None:
        points = [(x_range[0], line.level)]
    texts = [shown(y, form) for _, y in points]
    return {"x": [round(x, 4) for x, _ in points], "t": texts, "last": texts[-1]}


@dataclass(frozen=True)
class _Plot:
    """Maps values to places in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(_LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        value = min(value, high)
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def grid(self, ticks: Sequence[float], form: str) -> str:
        parts = []
        step = ticks[1] - ticks[0]
        for tick in ticks:
            y = self.y(tick)
            parts.append(
                f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#e3e8ee"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_tick(tick, step, form)}</text>'
            )
        for tick in _ticks(*self.x_range):
            if self.x_range[0] <= tick <= self.x_range[1]:
                parts.append(
                    f'<text x="{self.x(tick)}" y="{HEIGHT - 6}" text-anchor="middle">{tick:g}</text>'
                )
        return "".join(parts)

    def curve(self, line: Line, points: Sequence[tuple[float, float]]) -> str:
        style = f'stroke="{line.color}" fill="none" stroke-width="2" stroke-linejoin="round"'
        if line.dashed:
            style += ' stroke-dasharray="6 4"'
        if line.level is not None:
            y = self.y(line.level)
            return f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}" {style}/>'
        places = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        dots = ""
        if len(points) <= 25:  # those that are cut off have none
            dots = "".join(
                f'<circle cx="{self.x(x)}" cy="{self.y(y)}" r="2.5" fill="{line.color}"/>'
                for x, y in points
                if y <= self.y_range[1]
            )
        return f'<polyline points="{places}" {style}/>{dots}'


def _tick(value: float, step: float, form: str) -> str:
    if form == "%":
        return f"{value * 100:.{_decimals(step * 100)}f}%"
    if abs(step) < 1e-4 or abs(value) >= 1e5:
        return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    """Return how many decimals a multiple of a round number needs."""
    return len(f"{step:.8f}".rstrip("0").partition(".")[2])


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """Return a range with a margin; one without extent is given some."""
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = abs(low) * 0.1 or 1.0
        return (low - room, high + room)
    return (low - share * (high - low), high + share * (high - low))


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from at most `low` to at least `high`."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]
