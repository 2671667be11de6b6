"""Check scopes of optimizers: the layers that a name in ``Optimizer.N.scope`` means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ppcls.config.checks.components import loss_without_weights
from ppcls.config.checks.networks import network_without_weights
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import Recipe
from ppcls.errors import ConfigError, Mistake, nearest

if TYPE_CHECKING:
    from paddle import nn

EVERYTHING_ELSE = ("all", None)


def layers_named(name: str, models: Iterable[nn.Layer], where: str) -> list[nn.Layer]:
    """Return the layers of `models` for `name`.

    Args:
        name: a class (``MGDLoss``) or the path of a layer of the network (``Student.blocks[3].conv0``).
        models: the network and the losses.
        where: config path, for the message.

    Raises:
        ConfigError: if there is none.
    """
    path = name.replace("[", ".").replace("]", "")
    layers = [found for model in models for found in model.named_sublayers(include_self=True)]
    named = [layer for own, layer in layers if type(layer).__name__ == name or (own and own == path)]
    if not named:
        known = {type(layer).__name__ for _, layer in layers} | {own for own, _ in layers if own}
        near = nearest(name, sorted(known))
        text = f"{name!r} is neither a layer nor a class of one"
        raise ConfigError.of(Mistake(where, text, value=name, suggestions=near))
    return named


def check_optimizer_scopes(recipe: Recipe, findings: Findings) -> None:
    """Check that each scope matches layers; overlaps are checked when the run is built."""
    entries = recipe.Optimizer
    if not isinstance(entries, Sequence) or any(map(findings.mistakes_below, ("Arch", "Loss", "Optimizer"))):
        return
    scopes = {
        join("Optimizer", index, "scope"): entry["scope"]
        for index, entry in enumerate(entries)
        if entry.get("scope") not in EVERYTHING_ELSE
    }
    if not scopes:
        return
    arch = recipe.Arch
    losses = recipe.Loss.Train
    models = [] if arch is None else [network_without_weights(arch["name"], arch, "Arch", findings)]
    models += [loss_without_weights(*item) for node in losses or [] for item in node.items()]
    for where, scope in scopes.items():
        for name in [scope] if isinstance(scope, str) else scope:
            try:
                layers_named(name, models, where)
            except ConfigError as error:
                findings.refuse("", error)
