"""Refined logit distillation: the student does not learn the teacher's mistakes."""

from __future__ import annotations

import paddle
from paddle import Tensor

from ppcls.loss._tensors import EXCLUDED, check_several_classes, softened_kl, split_target
from ppcls.loss.formula import pair_loss


@pair_loss(
    "DistillationRLDLoss",
    name="loss_rld",
    positive=["temperature", "alpha_temperature"],
    scheduled=["temperature", "alpha_temperature"],
    learnable=["temperature"],
    standardizable=True,
    one_class_reason="it compares the class of the label with the others",
)
def refined_logits(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    temperature: float = 1.0,
    alpha_temperature: float = 1.0,
) -> Tensor:
    """Sun et al., "Knowledge distillation with refined logits" (ICCV 2025, arXiv 2408.07703).

    ``alpha * SCD + beta * MCD``, mean over the batch, with p the softmax of logits / temperature:

    - SCD (sample confidence): ``aT^2 * KL([m, 1 - m] || [p_s[y], 1 - p_s[y]])`` with the teacher's confidence
      ``m = max p_t`` and aT = `alpha_temperature`: the student becomes as certain of the label as the teacher
      is of its most probable class, right or wrong.
    - MCD (masked correlation): ``T^2 * KL(p_t || p_s)`` among the classes whose logit of the teacher is below
      that of the label; zero where there are none.

    Args:
        student: logits, [N, C], C >= 2.
        teacher: logits, [N, C].
        target: class indices y, int64 [N].
        alpha: weight of SCD.
        beta: weight of MCD.
        temperature: T > 0, of MCD.
        alpha_temperature: temperature of SCD, above 0.

    Returns:
        A scalar, zero where both distributions agree and the teacher is right.

    Raises:
        ConfigError: for a single class.
    """
    check_several_classes("DistillationRLDLoss", student)
    hit_s, miss_s, _ = split_target(student / alpha_temperature, target)
    hit_t, miss_t, _ = split_target(teacher / alpha_temperature, teacher.argmax(-1))
    confidence = hit_t.exp() * (hit_t - hit_s) + miss_t.exp() * (miss_t - miss_s)
    masked = teacher >= paddle.take_along_axis(teacher, target.unsqueeze(-1), -1)
    below_s, below_t = (
        paddle.where(masked, paddle.full_like(z, EXCLUDED), z / temperature) for z in (student, teacher)
    )
    correlation = softened_kl(below_s, below_t)
    return (alpha * alpha_temperature**2 * confidence + beta * temperature**2 * correlation).mean()
