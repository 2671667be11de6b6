"""Files of earlier versions of this package, whose networks had other names or shapes in places.

A network says so itself: ``former_names`` maps what earlier versions called a parameter to its name now, and
``former_shapes`` maps a parameter to a shape that earlier versions gave it and what to do about such a file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger("ppcls.weights")

Value = TypeVar("Value")


def in_present_names(net: nn.Layer, params: Mapping[str, Value], where: str) -> dict[str, Value]:
    """Return what a file holds under the names that the network has now.

    Args:
        net: the network, or a network of networks.
        params: values by name, also of a whole distillation run or of an optimizer (``<name>@<slot>``).
        where: the file, for the log.
    """
    renamed = {}
    table = {old: new for layer in _declaring(net, "former_names") for old, new in layer.former_names.items()}
    for name, value in params.items():
        parameter, at, slot = name.partition("@")
        old = next((old for old in table if _ends_with(parameter, old)), None)
        present = parameter if old is None else parameter.removesuffix(old) + table[old]
        renamed[present + at + slot] = value
    count = len(renamed.keys() - params.keys())
    if count:
        logger.info("%s: %d names are those of an earlier version of ppcls and were replaced", where, count)
    return renamed


def advice_on_shapes(net: nn.Layer, wrong: Iterable[str], given: Mapping[str, np.ndarray]) -> str:
    """Return what to do about a file whose shapes are those of an earlier version, or an empty text.

    Args:
        net: the network.
        wrong: names of parameters that have another shape in the file.
        given: what the file holds.
    """
    for name in wrong:
        for layer in _declaring(net, "former_shapes"):
            for parameter, (shape, advice) in layer.former_shapes.items():
                if _ends_with(name, parameter) and given[name].shape == shape:
                    return advice
    return ""


def _ends_with(name: str, parameter: str) -> bool:
    return name == parameter or name.endswith(f".{parameter}")


def _declaring(net: nn.Layer, attribute: str) -> list[nn.Layer]:
    return [layer for layer in net.sublayers(include_self=True) if hasattr(layer, attribute)]
