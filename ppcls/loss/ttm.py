"""Transformed teacher matching: a power of the teacher's probabilities, and a student without temperature."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss._tensors import softened_kl
from ppcls.loss.formula import pair_loss


@pair_loss("DistillationTTMLoss", name="loss_ttm", positive=["power"])
def transformed_teacher_matching(student: Tensor, teacher: Tensor, *, power: float = 0.1) -> Tensor:
    """Zheng and Yang, "Knowledge distillation based on transformed teacher matching" (ICLR 2024).

    arXiv 2402.11148: ``KL(q || softmax(student))`` with ``q = p^power / sum(p^power)`` and p the teacher's
    probabilities, mean over the batch. The power is 1 / T of KD, but the student has no temperature.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        power: exponent above 0; below 1 it makes the teacher's probabilities more even.

    Returns:
        A scalar, zero where the student's probabilities are q.
    """
    return softened_kl(student, teacher * power).mean()


@pair_loss("DistillationWTTMLoss", name="loss_wttm", positive=["power"])
def weighted_teacher_matching(student: Tensor, teacher: Tensor, *, power: float = 0.1) -> Tensor:
    """Zheng and Yang (arXiv 2402.11148): :func:`transformed_teacher_matching` with a weight for each sample.

    ``mean_n(sum_c(p[n, c]^power) * KL(q[n] || softmax(student[n])))``: samples on which the teacher is less
    certain count more. For powers below 1 the weight is between 1 and ``C^(1 - power)``.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        power: exponent above 0.

    Returns:
        A scalar, zero where the student's probabilities are q.
    """
    weight = paddle.logsumexp(F.log_softmax(teacher, -1) * power, -1).exp()
    return (weight * softened_kl(student, teacher * power)).mean()
