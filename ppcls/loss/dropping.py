"""Teachers that a step leaves out: what is learned from them alone counts nothing in this step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

_dropped: frozenset[str] = frozenset()


@contextmanager
def without_teachers(names: Collection[str]) -> Iterator[None]:
    """Let losses of pairs with one of the networks `names` count nothing while the block runs."""
    global _dropped
    before = _dropped
    _dropped = frozenset(names)
    try:
        yield
    finally:
        _dropped = before


def counted(weight: float, *names: str) -> float:
    """Return the weight of a part of a loss of these networks: 0 if the step leaves out one of them."""
    return 0.0 if _dropped.intersection(names) else weight
