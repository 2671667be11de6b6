"""Spherical knowledge distillation."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss.formula import pair_loss

_EPS = 1e-9  # added to the variance, as published; equal logits become zeros


def spherical(logits: Tensor, multiplier: float) -> Tensor:
    """Return logits [N, C] with mean 0 and standard deviation `multiplier` over the classes."""
    centred = logits - logits.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + _EPS).rsqrt() * multiplier


@pair_loss(
    "DistillationSKDLoss",
    name="skd_loss",
    positive=["temperature", "multiplier"],
    scheduled=["temperature", "alpha"],
    soft_labels=True,
)
def spherical_kd(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    temperature: float = 1.0,
    multiplier: float = 2.0,
    alpha: float = 0.9,
) -> Tensor:
    """Guo et al., "Reducing the teacher-student gap via spherical knowledge distillation" (arXiv 2010.07485).

    Sec. 3.3 in the layer-norm form: both logits are normalised to equal length, then ``alpha * T^2 *
    CE(softmax(t / T), softmax(s / T)) + (1 - alpha) * CE(label, softmax(s))``, mean over the batch. The
    cross entropy with labels is part of it, so no DistillationGTCELoss is needed. The first term
    is a cross entropy and exceeds the KL divergence by the teacher's entropy; the gradient is the same.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        label: class probabilities, [N, C], one-hot for hard labels.
        temperature: T > 0.
        multiplier: standard deviation of the normalised logits, above 0.
        alpha: weight of the teacher's part, 0 to 1.

    Returns:
        A scalar.
    """
    s = spherical(student, multiplier)
    t = spherical(teacher, multiplier)
    soft = -(F.softmax(t / temperature, -1) * F.log_softmax(s / temperature, -1)).sum(-1).mean()
    hard = -(label * F.log_softmax(s, -1)).sum(-1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * hard
