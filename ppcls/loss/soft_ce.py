"""Cross entropy against the probabilities of another network."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss.formula import pair_loss


@pair_loss("DistillationCELoss", name="CELoss")
def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the teacher's probabilities: ``-sum_c softmax(teacher)_c log softmax(student)_c``.

    The mean over the batch is taken. This is the loss of label refinery (Bagherinezhad et al., arXiv
    1805.02641). It exceeds the KL divergence by the teacher's entropy; the gradient is the same. `teacher`
    contains logits: for labels that are probabilities, use :func:`ppcls.loss.ce.cross_entropy`.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].

    Returns:
        A scalar; its smallest value is the teacher's entropy.
    """
    return -(F.softmax(teacher, -1) * F.log_softmax(student, -1)).sum(-1).mean()
