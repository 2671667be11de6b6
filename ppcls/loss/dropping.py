"""Teachers that a step leaves out: what is learned from them alone counts nothing in this step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

_dropped: frozenset[str] = frozenset()


@contextmanager
def without_teachers(names: Collection[str]) -> Iterator[None]:
    """Let losses of pairs whose second network is one of `names` count nothing while the block runs."""
    global _dropped
    before = _dropped
    _dropped = frozenset(names)
    try:
        yield
    finally:
        _dropped = before


def counted(weight: float, teacher: str) -> float:
    """Return the weight of a part of a loss that is learned from `teacher`: 0 if the step leaves it out."""
    return 0.0 if teacher in _dropped else weight
