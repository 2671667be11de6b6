"""Outputs of networks as a flat list of tensors, and a layout that describes what each tensor is.

A program returns a list of arrays; a network returns a tensor, or maps and lists of tensors. The layout can
be written as JSON, because it is stored with the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor

from ppcls.errors import ConfigError

Layout = Any  # an index of the list, {"map": {key: Layout}} or {"list": [Layout]}


@paddle.jit.not_to_static
def flatten(output: Any, kind: type = Tensor) -> tuple[list[Any], Layout]:
    """Return the different tensors in an output, each once, and the layout that :func:`rebuild` takes.

    Args:
        output: a tensor, or maps, lists and tuples of tensors.
        kind: the class of tensors; while a network is traced, that of symbolic tensors.

    Raises:
        ConfigError: if it contains something else.
    """
    tensors: list[Any] = []
    places: dict[int, int] = {}

    def place(value: Any, path: str) -> Layout:
        if isinstance(value, kind):
            if id(value) not in places:
                places[id(value)] = len(tensors)
                tensors.append(value)
            return places[id(value)]
        if isinstance(value, Mapping):
            return {"map": {str(key): place(inner, f"{path}[{key!r}]") for key, inner in value.items()}}
        if isinstance(value, list | tuple):
            return {"list": [place(inner, f"{path}[{i}]") for i, inner in enumerate(value)]}
        raise ConfigError(f"output{path} is of the type {type(value).__name__}, expected tensors")

    layout = place(output, "")
    return tensors, layout


def rebuild(layout: Layout, tensors: Sequence[Any]) -> Any:
    """Return the output whose flat list is `tensors`.

    Raises:
        ConfigError: if the layout is damaged, or belongs to another number of tensors.
    """
    if isinstance(layout, int) and 0 <= layout < len(tensors):
        return tensors[layout]
    if isinstance(layout, Mapping) and isinstance(layout.get("map"), Mapping):
        return {key: rebuild(inner, tensors) for key, inner in layout["map"].items()}
    if isinstance(layout, Mapping) and isinstance(layout.get("list"), list):
        return [rebuild(inner, tensors) for inner in layout["list"]]
    raise ConfigError(f"a program with {len(tensors)} outputs does not have the layout {layout!r:.100}")


def width(layout: Layout) -> int:
    """Return how many tensors a layout needs."""
    if isinstance(layout, int):
        return layout + 1
    inner = layout["map"].values() if "map" in layout else layout["list"]
    return max((width(value) for value in inner), default=0)
