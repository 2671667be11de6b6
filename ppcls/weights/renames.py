"""Files of earlier versions of this package, in which some parameters had other names or shapes.

Networks declare these: ``former_names`` maps the former name of a parameter to its name now,
``former_shapes`` maps a parameter to its former shape and to advice about such a file, and
``former_answer`` is the option with which the network gives the same outputs as before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ppcls.weights.loadable import Loadable

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger("ppcls.weights")

Value = TypeVar("Value")


def in_present_names(net: nn.Layer, params: Mapping[str, Value], where: str) -> dict[str, Value]:
    """Return the content of a file under the names that the network has now.

    Args:
        net: the network, or a network of networks.
        params: values by name, also of a whole distillation run or of an optimizer (``<name>@<slot>``).
        where: the file, for the log.
    """
    renamed = {}
    table = {old: new for layer in _declaring(net) for old, new in layer.former_names.items()}
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
    """Return advice about a file with shapes of an earlier version, or an empty text.

    Args:
        net: the network.
        wrong: names of parameters that have another shape in the file.
        given: the content of the file.
    """
    for name in wrong:
        for layer in _declaring(net):
            for parameter, (shape, advice) in layer.former_shapes.items():
                if _ends_with(name, parameter) and given[name].shape == shape:
                    return advice
    return ""


def warn_of_other_answers(net: nn.Layer, where: str) -> None:
    """Warn about weights of an earlier version, whose network gave other outputs.

    Args:
        net: the network, or a network of networks.
        where: the file. Runs record their version in ``environment.json`` next to it; early versions did
            not.
    """
    former = {layer.former_answer for layer in _declaring(net)} - {""}
    environment = Path(where).parent / "environment.json"
    if not former or not environment.is_file():
        return
    try:
        written = json.loads(environment.read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # damaged; the file is only for information
    if isinstance(written, dict) and "ppcls" not in written:
        logger.warning(
            "%s was trained by an earlier version of ppcls, whose networks answered in another way; to have "
            "the answers of then, set the option %s of the network (CHANGELOG.md says what changed)",
            where,
            " and ".join(sorted(former)),
        )


def _ends_with(name: str, parameter: str) -> bool:
    return name == parameter or name.endswith(f".{parameter}")


def _declaring(net: nn.Layer) -> list[Loadable]:
    return [layer for layer in net.sublayers(include_self=True) if isinstance(layer, Loadable)]
