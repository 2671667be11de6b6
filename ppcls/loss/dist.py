"""Distillation from a stronger teacher: correlations instead of equal probabilities."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.distributed import gather_rows
from ppcls.loss._tensors import cosine
from ppcls.loss.formula import pair_loss


def correlation_distance(a: Tensor, b: Tensor) -> Tensor:
    """``1 - r`` with the Pearson correlation r of the rows of a and b, mean over the rows.

    Rows that are constant have no correlation and count as r = 0, without gradient.
    """
    return (1 - cosine(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True))).mean()


@pair_loss("DistillationDISTLoss", name="loss_dist", positive=["tau"])
def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    tau: float = 1.0,
    gather: bool = False,
) -> Tensor:
    """Huang et al., "Knowledge distillation from a stronger teacher" (NeurIPS 2022, arXiv 2205.10536).

    ``tau^2 * (beta * inter + gamma * intra)`` of the probabilities ``softmax(logits / tau)``: `inter` is
    the correlation distance of each sample's classes, `intra` that of each class over the batch. (The
    factor tau^2 is the official code's; the paper leaves it out.) In a batch of one image a class has no
    correlation, and `intra` is the constant 1.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        beta: weight of the relation between classes.
        gamma: weight of the relation within classes.
        tau: temperature above 0.
        gather: treat the samples of all processes as one batch.

    Returns:
        A scalar, zero where the probabilities are equal up to scale and shift.
    """
    if gather:
        student = gather_rows(student)
        teacher = gather_rows(teacher)
    p = F.softmax(student / tau, -1)
    q = F.softmax(teacher / tau, -1)
    inter = correlation_distance(p, q)
    intra = correlation_distance(p.t(), q.t())
    return (beta * inter + gamma * intra) * tau**2
