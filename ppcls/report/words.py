"""Numbers and times as people read them."""

from __future__ import annotations


def percent(value: float | None, digits: int = 2) -> str:
    """Return a share in percent; a dash for None."""
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def points(value: float) -> str:
    """Return a difference of two shares in percentage points, with its sign."""
    return f"{value * 100:+.2f}"


def duration(seconds: float | None) -> str:
    """Return seconds as hours, minutes and seconds; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"


def amount(value: float | None) -> str:
    """Return a large number with three digits and a unit (k, M, G, T); a dash for None."""
    if value is None:
        return "–"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {unit}" if value < size * 999.5 else f"{value / size:.0f} {unit}"
    return f"{value:g}"


def file_size(value: int | None) -> str:
    """Return a number of bytes with a unit; a dash for None."""
    if value is None:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < size * 999.5 else f"{value / size:.0f} {unit}"
    return f"{value} bytes"


def factor(large: float | None, small: float | None) -> str:
    """Return how many times as large one number is as the other; a dash if one of them is not known."""
    if not large or not small:
        return "–"
    ratio = large / small
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.2g} ×"
