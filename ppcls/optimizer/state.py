"""Optimizer state under the names of parameters in the network.

Paddle stores the state under automatic names (``conv2d_0.w_0_velocity_0``), which depend on how many layers
the process has built before. Here an entry is called ``<layer>.<parameter>@<slot>``, for example
``network.Student.conv1.weight@velocity``, so that a checkpoint always fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from ppcls._paddle import create_slots, master_weights_of, parameters_of, slots_of
from ppcls.errors import WeightsError
from ppcls.optimizer.joint import JointOptimizer, optimizers_of

MASTER = "master_weight"


def structured_state(
    optimizer: Optimizer | JointOptimizer, layers: Mapping[str, nn.Layer]
) -> dict[str, np.ndarray]:
    """Return the state of `optimizer`, without the schedule, as arrays in the CPU's memory.

    Args:
        optimizer: before its first step the state is empty.
        layers: the layers that it trains, by the prefix of their names, such as ``{"network": net, "loss":
            loss}``.
    """
    names = {automatic: name for name, automatic in _names(layers).items()}
    return {
        f"{names[automatic]}@{slot}": tensor.numpy()
        for one in optimizers_of(optimizer)
        for slot, tensors in _slots(one).items()
        for automatic, tensor in tensors.items()
    }


def load_structured_state(
    optimizer: Optimizer | JointOptimizer,
    layers: Mapping[str, nn.Layer],
    state: Mapping[str, Any],
    where: str = "optimizer state",
) -> None:
    """Load the result of :func:`structured_state` into `optimizer`, which may be new.

    Args:
        optimizer: same class and settings as the one that was saved.
        layers: as for :func:`structured_state`.
        state: arrays by structured name.
        where: the file, for messages.

    Raises:
        WeightsError: listing every entry that belongs to no trained parameter or to no slot of this
            optimizer, or has another shape. The optimizer is then unchanged.
    """
    names = _names(layers)
    wanted = {key: names.get(key.rpartition("@")[0], "") for key in state}
    slots: dict[str, dict[str, paddle.Tensor]] = {}
    touched = set()
    # Paddle creates slots in the first step. Create exactly those in the state: a parameter that never got a
    # gradient has none.
    for one in optimizers_of(optimizer):
        parameters = [p for p in parameters_of(one) if p.name in wanted.values()]
        touched |= {p.name for p in parameters}
        create_slots(one, parameters)
        for slot, tensors in _slots(one).items():
            slots.setdefault(slot, {}).update(tensors)
    title = " and ".join(type(one).__name__ for one in optimizers_of(optimizer))
    wrong = []
    found = {}
    for key, value in state.items():
        slot = key.rpartition("@")[2]
        tensor = slots.get(slot, {}).get(wanted[key])
        if tensor is None:
            wrong.append(f"{key}: nothing of that name is trained by {title}")
        elif list(tensor.shape) != list(np.shape(value)):
            wrong.append(f"{key}: shape {list(np.shape(value))}, expected {list(tensor.shape)}")
        else:
            found[key] = tensor
    expected = {(slot, name) for slot, tensors in slots.items() for name in tensors if name in touched}
    absent = expected - {(key.rpartition("@")[2], name) for key, name in wanted.items()}
    automatic = {name: structured for structured, name in names.items()}
    wrong += [f"{automatic[name]}@{slot}: missing" for slot, name in sorted(absent)]
    if wrong:
        shown = "\n  ".join(wrong[:20]) + (f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise WeightsError(f"{where}: {len(wrong)} entries do not fit the optimizer\n  {shown}")
    for key, tensor in found.items():
        tensor.set_value(np.asarray(state[key]))


def _names(layers: Mapping[str, nn.Layer]) -> dict[str, str]:
    """Map structured names of parameters to the automatic names of Paddle."""
    return {f"{top}.{name}": p.name for top, layer in layers.items() for name, p in layer.named_parameters()}


def _slots(optimizer: Optimizer) -> dict[str, dict[str, paddle.Tensor]]:
    """Return ``{slot: {automatic parameter name: tensor}}``, float32 copies of parameters included."""
    masters = master_weights_of(optimizer)
    origin = {
        copy.name: name for name, copy in masters.items()
    }  # slots of a copy are stored under the name of the copy
    slots = {
        slot: {origin.get(name, name): tensor for name, tensor in tensors.items()}
        for slot, tensors in slots_of(optimizer).items()
    }
    return slots | ({MASTER: masters} if masters else {})
