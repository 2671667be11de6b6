"""Weighted soft labels."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss.formula import pair_loss

_EPS = 1e-7  # keeps the ratio finite if the teacher is certain and right


@pair_loss(
    "DistillationWSLLoss",
    name="wsl_loss",
    positive=["temperature"],
    scheduled=["temperature"],
    soft_labels=True,
)
def weighted_soft_labels(
    student: Tensor, teacher: Tensor, label: Tensor, *, temperature: float = 2.0
) -> Tensor:
    """Zhou et al., "Rethinking soft labels for knowledge distillation" (ICLR 2021, arXiv 2102.00650).

    ``T^2 * mean_n(w_n * CE(softmax(teacher / T), softmax(student / T)))`` with ``w_n = 1 - exp(-CE(label,
    student) / (CE(label, teacher) + 1e-7))``: samples on which the student is already better than the
    teacher count less. No gradient flows through w.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        label: class probabilities, [N, C], one-hot for hard labels.
        temperature: T > 0.

    Returns:
        A scalar.
    """
    own = -(label * F.log_softmax(student.detach(), -1)).sum(-1)
    reference = -(label * F.log_softmax(teacher.detach(), -1)).sum(-1)
    weight = 1 - (-(own / (reference + _EPS)).clip(min=0)).exp()
    q = F.softmax(teacher / temperature, -1)
    log_p = F.log_softmax(student / temperature, -1)
    return -(weight * (q * log_p).sum(-1)).mean() * temperature**2
