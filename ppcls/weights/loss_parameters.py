"""Parameters of losses in PaddleClas's weights files.

PaddleClas writes the parameters of a loss, such as the generator of MGD, into the ``.pdparams`` of the
network, as ``loss_func.<index of the loss in Loss.Train>.<name>``. In ppcls the loss is a separate layer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ppcls.weights.values import assign, check_finite

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger("ppcls.weights")

PREFIX = "loss_func."
_OURS = "layers."  # the attribute in which the combined loss keeps its parts
_SHOWN = 6


def split_loss_parameters(
    params: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the parameters of networks and those of losses in a weights file."""
    losses = {name: value for name, value in params.items() if name.startswith(PREFIX)}
    return {name: value for name, value in params.items() if name not in losses}, losses


def load_loss_parameters(loss: nn.Layer, params: Mapping[str, np.ndarray], where: str) -> None:
    """Copy the parameters of losses in PaddleClas's file into the losses of a run.

    A warning lists every name that does not fit the losses of the recipe; those parameters keep their random
    values.

    Args:
        loss: the combined loss of ``Loss.Train``, its parameters created.
        params: what :func:`split_loss_parameters` returned.
        where: the source of the parameters, for messages.

    Raises:
        WeightsError: if a value is not finite.
    """
    own = {f"{PREFIX}{name.removeprefix(_OURS)}": value for name, value in loss.state_dict().items()}
    fitting = {
        name: value
        for name, value in params.items()
        if name in own and tuple(own[name].shape) == tuple(value.shape)
    }
    check_finite(fitting, where)
    for name, value in fitting.items():
        assign(own[name], value)
    logger.info("%d of %d parameters of losses loaded from %s", len(fitting), len(own), where)
    unfit = [name for name in (*params, *own) if name not in fitting]
    if unfit:
        logger.warning(
            "%s: these parameters of losses do not fit the losses of the recipe, which begin with their own "
            "values there: %s",
            where,
            ", ".join(list(dict.fromkeys(unfit))[:_SHOWN]) + (" ..." if len(set(unfit)) > _SHOWN else ""),
        )


def log_left_out(params: Mapping[str, np.ndarray], where: str) -> None:
    """Log that a file holds parameters of losses, which only training needs."""
    if params:
        names = sorted({".".join(name.split(".")[:2]) for name in params})
        logger.info(
            "%s: %d parameters of losses (%s) left out; only training needs them",
            where,
            len(params),
            ", ".join(names),
        )
