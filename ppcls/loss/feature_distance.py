"""Distances between outputs or features of the same shape."""

from __future__ import annotations

from typing import Literal

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.errors import ConfigError
from ppcls.loss.formula import pair_loss

_DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
_ACTIVATIONS = {None: lambda x: x, "softmax": lambda x: F.softmax(x, -1), "sigmoid": F.sigmoid}


@pair_loss(
    "DistillationDistanceLoss",
    name="loss_",
    part="{name}{mode}_loss_{mode}_{position}",
    logits=False,
    mutual=True,
    key_last=True,
)
def distance(
    a: Tensor,
    b: Tensor,
    *,
    mode: Literal["l1", "l2", "smooth_l1"] = "l2",
    act: Literal["softmax", "sigmoid"] | None = None,
) -> Tensor:
    """Distance of two outputs: the mean of ``|d|``, ``d^2`` or the Huber function (corner at 1) of d = a - b.

    With ``l2`` on features of the same shape this is the hint loss of Romero et al. (FitNets, arXiv
    1412.6550) without a regressor, and the feature part of UDML. Gradient flows to both sides unless
    one is frozen.

    Args:
        a: any shape.
        b: the same shape.
        mode: ``l1``, ``l2`` or ``smooth_l1``.
        act: applied to both first: ``softmax`` or ``sigmoid`` over the last axis, or None.

    Returns:
        A scalar, zero where both agree.

    Raises:
        ConfigError: if the shapes differ.
    """
    if list(a.shape) != list(b.shape):
        raise ConfigError(f"distance of shapes {list(a.shape)} and {list(b.shape)}, expected equal shapes")
    activation = _ACTIVATIONS[act]
    return _DISTANCES[mode](activation(a), activation(b))
