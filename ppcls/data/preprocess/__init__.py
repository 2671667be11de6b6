"""Transforms under the names that scripts written for PaddleClas import: ``ResizeImage(size=32)(image)``.

Ours take a source of random numbers beside the image; what comes from here brings its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ppcls.data.transforms import Compose
from ppcls.registry import BATCH_OPS, TRANSFORMS


def transform(data: Any, ops: Iterable[Callable[[Any], Any]] = ()) -> Any:
    """Return what a sequence of operators makes of `data`."""
    for op in ops:
        data = op(data)
    return data


def __getattr__(name: str) -> Any:
    if TRANSFORMS.find(name) is not None:

        def construct(**options: Any) -> Compose:
            return Compose([TRANSFORMS.create(name, options)])

        construct.__name__ = construct.__qualname__ = name
        construct.__doc__ = TRANSFORMS[name].__doc__
        return construct
    found = BATCH_OPS.find(name)
    if found is not None:
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
