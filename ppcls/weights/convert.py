"""Convert PyTorch's names and layouts to ours, for networks that compute the same function in both.

The rules (`ppcls.weights.torch_rules`) are applied strictly: every tensor of the file must be used, and
every parameter of the network must get exactly one value. Shapes are compared when the result is loaded
(`ppcls.weights.load_into`).
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights.torch_residual import Rule
from ppcls.weights.torch_rules import FAMILIES, OTHER_FUNCTIONS, Family

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger("ppcls.weights")

_LEAVES = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}
# Counters and constants that follow from the network's structure.
_LEFT_OUT = re.compile(r"(.*\.)?(num_batches_tracked|relative_(position_index|coords_table)|attn_mask)")


def convert(params: Mapping[str, np.ndarray], net: nn.Layer, name: str, where: str) -> dict[str, np.ndarray]:
    """Rename and transpose a PyTorch state dict for one of our networks.

    Args:
        params: tensors by their names in PyTorch, as `ppcls.weights.read_params` gives them.
        net: the network.
        name: its registered name, which decides which rules apply.
        where: the source of the tensors, for messages.

    Returns:
        tensors by our names, one for each name in ``net.state_dict()``. A classifier for another number of
        classes is returned unchanged.

    Raises:
        WeightsError: if there are no rules for the network, if it was built with other options than
            `torch_options`, or if a tensor would not be used, or a parameter would get no value or two.
    """
    family = _family(name)
    for option, value in torch_options(name, params).items():
        if getattr(net, option) != value:
            raise WeightsError(f"{where}: PyTorch's network is {name} with the option {option}: {value}")
    given = {key: value for key, value in params.items() if not _LEFT_OUT.fullmatch(key)}
    if family.prepared:
        given = family.prepared(given)
    if family.twins and family.twins[0] in given:
        logger.warning("%s: %s", where, family.twins[1])
    rules = family.rules(list(given))
    places = {key: _place(key, rules) for key in given}
    layers = {path: layer for path, layer in net.named_sublayers()}
    own = {key: tensor for key, tensor in net.state_dict().items() if not _LEFT_OUT.fullmatch(key)}
    made = {
        key: _identity(layers[path], leaf)
        for key in own
        for path, _, leaf in [key.rpartition(".")]
        if family.identity and re.fullmatch(family.identity, path) and key not in places.values()
    }
    counts = Counter(places.values())
    report = {
        "no place in the network": [key for key, place in places.items() if place not in own],
        "nothing in the file for": [key for key in own if key not in counts and key not in made],
        "more than one tensor for": [key for key in own if counts[key] > 1],
    }
    if any(report.values()):
        raise WeightsError(_explain(report, name, where, params))
    found = {
        place: _laid_out(given[key], layers.get(place.rpartition(".")[0]), own[place].ndim)
        for key, place in places.items()
        if place is not None
    }
    kept = {
        key: tensor.numpy()
        for key, tensor in net.state_dict().items()
        if _LEFT_OUT.fullmatch(key) and "num_batches_tracked" not in key
    }
    if made:
        layers_made = sorted({key.rpartition(".")[0] for key in made})
        logger.info(
            "%s has no %s: made the identity, exact while the network is in eval mode",
            where,
            ", ".join(layers_made),
        )
    return {**found, **made, **kept}


def torch_options(name: str, names: Collection[str]) -> dict[str, Any]:
    """Return the options with which network `name` computes the same function as PyTorch's.

    Args:
        name: registered name of our network.
        names: the names in the file.

    Raises:
        WeightsError: if there are no rules for it.
    """
    family = _family(name)
    return {**family.options, **(family.options_in(names) if family.options_in else {})}


def _family(name: str) -> Family:
    for family in FAMILIES:
        if re.fullmatch(family.networks, name):
            return family
    for pattern, reason in OTHER_FUNCTIONS.items():
        if re.fullmatch(pattern, name):
            raise WeightsError(f"PyTorch weights do not fit {name}: {reason}")
    known = [family.title for family in FAMILIES]
    raise WeightsError(
        f"there are no rules that turn PyTorch weights into those of {name}; there are for the families "
        f"{', '.join(known)}"
    )


def _place(key: str, rules: list[Rule]) -> str | None:
    """Return our name for a tensor; None if no rule matches."""
    path, _, leaf = key.rpartition(".")
    if leaf not in _LEAVES or not path:
        path = key
        leaf = ""
    for pattern, target in rules:
        match = re.fullmatch(pattern, path)
        if match:
            groups = [int(g) if g and g.isdigit() else g for g in match.groups()]
            try:
                return target(*groups) + (f".{_LEAVES[leaf]}" if leaf else "")
            except LookupError:  # a block or a layer that the family does not have
                return None
    return None


def _laid_out(value: np.ndarray, layer: nn.Layer | None, axes: int) -> np.ndarray:
    """Convert a tensor to Paddle's layout, where the weight of a Linear is [inputs, outputs]."""
    from paddle import nn

    if isinstance(layer, nn.Linear) and value.ndim in (2, 4):
        return np.ascontiguousarray(value.reshape(value.shape[:2]).T)
    if isinstance(layer, nn.Conv2D) and value.ndim == 2:
        return value[:, :, None, None]
    if axes == 1 and value.ndim == 3 and value.shape[1:] == (1, 1):  # scales of channels
        return value.reshape(-1)
    return value


def _identity(layer: Any, leaf: str) -> np.ndarray:
    """Return the parameter with which a 1x1 convolution, or a BatchNorm in evaluation, returns its input."""
    from ppcls._paddle import epsilon_of  # files of weights are read without Paddle

    parameter = getattr(layer, leaf)
    if len(parameter.shape) == 4:
        return np.eye(parameter.shape[0], dtype=np.float32)[:, :, None, None]
    scale = math.sqrt(1.0 + epsilon_of(layer))
    value = {"weight": scale, "bias": 0.0, "_mean": 0.0, "_variance": 1.0}[leaf]
    return np.full(parameter.shape, value, np.float32)


def _explain(report: Mapping[str, list[str]], name: str, where: str, params: Mapping[str, np.ndarray]) -> str:
    lines = [f"{where}: {len(params)} tensors that do not make up a {name}"]
    for text, names in report.items():
        if names:
            more = f", ... ({len(names)} in all)" if len(names) > 6 else ""
            lines.append(f"  {text}: {', '.join(names[:6])}{more}")
    return "\n".join(lines)
