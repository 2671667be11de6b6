"""Hard distillation: the teacher's decision is used as a label."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss.formula import pair_loss


@pair_loss("DistillationHardLoss", name="loss_hard")
def hard_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Touvron et al., "Training data-efficient image transformers" (DeiT, arXiv 2012.12877).

    ``-log softmax(student)[argmax teacher]``, mean over the batch: the cross entropy with the teacher's most
    probable class. The paper gives it and the cross entropy with labels a weight of 0.5 each.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].

    Returns:
        A scalar.
    """
    return F.cross_entropy(student, teacher.argmax(-1))
