"""Outputs of several networks for a batch of an evaluation, each network run once at most."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from ppcls.data import Batch, image_tensor
from ppcls.teacher import KnownLogits


def ask_networks(
    model: Any, names: Collection[str], batch: Batch, known: KnownLogits, still: Collection[str]
) -> dict[str, Any]:
    """Return the outputs of networks and ensembles for a batch, by name.

    Args:
        model: the networks.
        names: names of networks and ensembles.
        batch: a batch of the evaluation set.
        known: keeps logits.
        still: names of networks that never change and of which only logits are needed.
    """
    image = image_tensor(batch)

    def ask(name: str, *, logits_alone: bool) -> Any:
        network = partial(model.run, name)
        return known.ask(name, batch, network) if logits_alone else network(image)

    outputs = {name: ask(name, logits_alone=name in still) for name in names if name in model.names}
    members = {member for name in names if name not in outputs for member in model.members(name)}
    others = {
        name: ask(name, logits_alone=model.logits_never_change(name)) for name in sorted(members - {*outputs})
    }
    for name in names:
        if name not in outputs:
            outputs[name] = model.combine(name, {**outputs, **others})
    return outputs
