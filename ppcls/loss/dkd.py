"""Decoupled knowledge distillation."""

from __future__ import annotations

from paddle import Tensor

from ppcls.loss._tensors import check_several_classes, split_target
from ppcls.loss.formula import pair_loss


@pair_loss(
    "DistillationDKDLoss",
    name="loss_dkd",
    positive=["temperature"],
    scheduled=["temperature"],
    learnable=["temperature"],
    standardizable=True,
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
    check_several_classes("DistillationDKDLoss", student)
    hit_s, miss_s, rest_s = split_target(student / temperature, target)
    hit_t, miss_t, rest_t = split_target(teacher / temperature, target)
    tckd = hit_t.exp() * (hit_t - hit_s) + miss_t.exp() * (miss_t - miss_s)
    nckd = (rest_t.exp() * (rest_t - rest_s)).sum(-1)
    return (alpha * tckd + beta * nckd).mean() * temperature**2
