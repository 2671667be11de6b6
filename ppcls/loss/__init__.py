"""Losses: pure functions, classes that apply them to several networks, and the weighted sum of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paddle import Tensor, nn

from ppcls.config import plain, single
from ppcls.config.binding import bound_options, created, node_parameters
from ppcls.config.nodes import is_flat
from ppcls.errors import ConfigError
from ppcls.loss import (
    afd,
    at,
    ce,
    dist,
    dkd,
    dml,
    feature_distance,
    hard,
    kldiv,
    mgd,
    nkd,
    ofa,
    ofd,
    pair,
    pefd,
    reviewkd,
    rkd,
    rld,
    skd,
    soft_ce,
    srd,
    ttm,
    wkd,
    wkd_logit,
    wsl,
)
from ppcls.loss.base import Loss, TensorPairLoss
from ppcls.loss.combined import CombinedLoss, Part
from ppcls.loss.formula import pair_loss
from ppcls.loss.weight_schedule import epoch_value
from ppcls.registry import LOSSES

# Importing these modules fills the registry; the losses in it can be imported from here by name.
__all__ = [
    "CombinedLoss",
    "Loss",
    "TensorPairLoss",
    "afd",
    "at",
    "build_loss",
    "ce",
    "dist",
    "dkd",
    "dml",
    "feature_distance",
    "hard",
    "kldiv",
    "mgd",
    "nkd",
    "ofa",
    "ofd",
    "pair",
    "pair_loss",
    "pefd",
    "reviewkd",
    "rkd",
    "rld",
    "skd",
    "soft_ce",
    "srd",
    "ttm",
    "wkd",
    "wkd_logit",
    "wsl",
]


def build_loss(
    config: list[Any],
    main: str | None = None,
    outputs: Tensor | Mapping[str, Any] | None = None,
    networks: Mapping[str, nn.Layer] | None = None,
    where: str = "Loss",
) -> CombinedLoss:
    """Build the weighted sum of the listed losses.

    Args:
        config: ``[{Name: {weight: 1.0, **options}}, ...]``; `weight` is a number or a schedule
            (:func:`ppcls.loss.weight_schedule.epoch_value`).
        main: sub-network for plain losses such as CELoss.
        outputs: the outputs of the model for any batch. They fill in shapes that the config leaves out, and
            shapes that it contains are compared with them.
        networks: the sub-networks by name, for losses that read parameters of a teacher.
        where: config path of the list, for messages.

    Returns:
        A layer: ``loss(outputs, label) -> {"loss": sum, "<part>": value after weighting, ...}``.

    Raises:
        ConfigError: for an unknown loss, a wrong option, or shapes that do not fit.
    """
    nodes = plain(config)
    if not isinstance(nodes, list) or not nodes:
        raise ConfigError(f"got {nodes!r}, expected a list such as [{{CELoss: {{weight: 1.0}}}}]", path=where)
    loss = CombinedLoss([_part(node, f"{where}.{i}") for i, node in enumerate(nodes)], main)
    if outputs is not None:
        loss.prepare(outputs, networks)
    return loss


def __getattr__(name: str) -> Any:
    found = LOSSES.find(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def _part(node: Any, where: str) -> Part:
    name, options = single(node, where)
    inside = where if is_flat(node) else f"{where}.{name}"
    try:
        is_pair_loss = LOSSES.trait(name, "is_pair_loss")
    except ConfigError as error:
        raise error.below(where) from None
    if is_pair_loss:
        text = f"{name} compares two tensors; use DistillationPairLoss, base_loss_name: {name}"
        raise ConfigError(text, path=where)
    parameters = node_parameters(LOSSES, name, options)
    options = bound_options(name, parameters, options, (where, inside), extra={"weight": Any})
    weight = epoch_value(options.pop("weight", 1.0), f"{inside}.weight")
    return Part(name, created(LOSSES, name, options, (where, inside)), weight)
