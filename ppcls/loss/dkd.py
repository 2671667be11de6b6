"""Decoupled knowledge distillation."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.errors import ConfigError
from ppcls.loss.formula import pair_loss

_EXCLUDED = -1e30  # a logit whose probability is zero; minus infinity would turn 0 * inf into NaN


@pair_loss(
    "DistillationDKDLoss",
    name="loss_dkd",
    positive=["temperature"],
    one_class_reason="it splits the classes into one target and the others",
)
def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    """Zhao et al., "Decoupled knowledge distillation" (CVPR 2022, arXiv 2203.08679), eq. 7.

    ``T^2 * (alpha * TCKD + beta * NCKD)``, mean over the batch. With p the softmax of logits / T, TCKD is
    the KL divergence (teacher || student) of ``[p_target, 1 - p_target]`` and NCKD that of the
    probabilities among the classes that are not the target.

    Args:
        student: logits, [N, C], C >= 2.
        teacher: logits, [N, C].
        target: class indices, int64 [N].
        temperature: T > 0.
        alpha: weight of the target part.
        beta: weight of the part among the other classes.

    Returns:
        A scalar, zero where both distributions agree.

    Raises:
        ConfigError: for a single class.
    """
    classes = student.shape[-1]
    if classes < 2:
        raise ConfigError("DistillationDKDLoss needs at least 2 classes, got 1")
    is_target = F.one_hot(target, classes).astype("bool")
    hit_s, miss_s, rest_s = _decouple(student / temperature, is_target)
    hit_t, miss_t, rest_t = _decouple(teacher / temperature, is_target)
    tckd = hit_t.exp() * (hit_t - hit_s) + miss_t.exp() * (miss_t - miss_s)
    nckd = (rest_t.exp() * (rest_t - rest_s)).sum(-1)
    return (alpha * tckd + beta * nckd).mean() * temperature**2


def _decouple(z: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p(target) [N], log p(not target) [N], log-probabilities given that it is not the target.

    All are differences of log-sums, so they are exact where a probability itself would round to 0 or 1.
    """
    everything = paddle.logsumexp(z, -1)
    others = paddle.where(is_target, paddle.full_like(z, _EXCLUDED), z)
    other_sum = paddle.logsumexp(others, -1)
    target = (z * is_target.astype(z.dtype)).sum(-1)
    return target - everything, other_sum - everything, others - other_sum.unsqueeze(-1)
