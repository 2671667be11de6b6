"""Normalized knowledge distillation."""

from __future__ import annotations

from paddle import Tensor

from ppcls.loss._tensors import check_several_classes, split_target
from ppcls.loss.formula import pair_loss


@pair_loss(
    "DistillationNKDLoss",
    name="loss_nkd",
    positive=["temperature"],
    scheduled=["temperature"],
    one_class_reason="it splits the classes into one target and the others",
)
def normalized_kd(
    student: Tensor, teacher: Tensor, target: Tensor, *, temperature: float = 1.0, gamma: float = 1.5
) -> Tensor:
    """Yang et al., "From knowledge distillation to self-knowledge distillation" (ICCV 2023).

    arXiv 2303.13005: ``-p_t[y] log p_s[y] - gamma * T^2 * sum_{i != y} q_t[i] log q_s[i]``, mean over the
    batch, with p the softmax of the logits and q that of logits / T among the classes that are not the target
    y. Both terms are cross entropies, so the value is not zero where student and teacher agree. The cross
    entropy with labels is added to this loss (DistillationGTCELoss of weight 1).

    Args:
        student: logits, [N, C], C >= 2.
        teacher: logits, [N, C].
        target: class indices, int64 [N].
        temperature: T > 0, for the classes that are not the target.
        gamma: weight of these classes.

    Returns:
        A scalar.

    Raises:
        ConfigError: for a single class.
    """
    check_several_classes("DistillationNKDLoss", student)
    hit_s, hit_t = (split_target(z, target)[0] for z in (student, teacher))
    rest_s, rest_t = (split_target(z / temperature, target)[2] for z in (student, teacher))
    target_part = hit_t.exp() * hit_s
    other_part = (rest_t.exp() * rest_s).sum(-1)
    return -(target_part + gamma * temperature**2 * other_part).mean()
