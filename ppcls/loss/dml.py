"""Mutual learning with a symmetric divergence, as DML and SSLD are trained here."""

from __future__ import annotations

from typing import Literal

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss._tensors import to_float
from ppcls.loss.formula import pair_loss


def _probability(x: Tensor, act: str | None, eps: float) -> tuple[Tensor, Tensor]:
    """Return probabilities and their logarithms, which stay finite for any logits.

    Paddle on the CPU computes no logarithm below -64.
    """
    if act == "softmax":
        log = F.log_softmax(x, -1)
        return log.exp(), log
    if act == "sigmoid":
        log = F.log_sigmoid(x)
        return log.exp(), log
    return x, (x + eps).log()


@pair_loss(
    "DistillationDMLLoss",
    name="DMLLoss",
    part="{name}_{student}_{teacher}_{position}",
    positive=["eps"],
    mutual=True,
    key_last=True,
)
def symmetric_kl(
    a: Tensor,
    b: Tensor,
    *,
    act: Literal["softmax", "sigmoid"] | None = "softmax",
    sum_across_class_dim: bool = False,
    eps: float = 1e-12,
) -> Tensor:
    """Mutual learning: ``(KL(p || q) + KL(q || p)) / 2``, summed over classes, mean over the batch.

    Zhang et al., "Deep mutual learning" (CVPR 2018, arXiv 1706.00384) use the two divergences, one for each
    network; Cui et al. (SSLD, arXiv 2103.05959) use their mean for both networks, as this loss does. Gradient
    flows to both networks unless one is frozen.

    Args:
        a: [N, C]; logits, or with ``act=None`` probabilities.
        b: the same for the other network.
        act: ``softmax``; ``sigmoid``: each class has a separate probability, and only the term of the class
            counts, not that of its absence; None: the inputs are probabilities already.
        sum_across_class_dim: multiply by C, the scale that some published recipes were tuned for.
        eps: with ``act=None``, added to the probabilities before the logarithm.

    Returns:
        A scalar, zero where both agree.
    """
    p, log_p = _probability(to_float(a), act, eps)
    q, log_q = _probability(to_float(b), act, eps)
    value = ((p - q) * (log_p - log_q)).sum(-1).mean() / 2
    return value * a.shape[-1] if sum_across_class_dim else value
