"""One for all: distillation between networks of different kinds."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.loss.formula import pair_loss


@pair_loss(
    "DistillationOFALoss",
    name="loss_ofa",
    positive=["eps"],
    one_class_reason="it strengthens what the teacher says of one class",
)
def one_for_all(student: Tensor, teacher: Tensor, target: Tensor, *, eps: float = 1.0) -> Tensor:
    """Hao et al., "One-for-all: bridge the gap between heterogeneous architectures" (NeurIPS 2023).

    arXiv 2310.19444: ``-sum_c ((p_t[c] + [c = y])^eps - [c = y]) * log p_s[c]``, mean over the batch, with p
    the softmax of the logits and y the target. For ``eps = 1`` it is the cross entropy with the teacher's
    probabilities; a larger one strengthens the target where the teacher is certain of it, and weakens the
    other classes, of which a teacher of another kind knows less that the student can use. The cross entropy
    with labels comes on top (DistillationGTCELoss of weight 1). The paper gives the stages of the student
    classifiers of their own and adds this loss for each of them; that part is not included.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        target: class indices, int64 [N].
        eps: exponent above 0.

    Returns:
        A scalar.
    """
    truth = F.one_hot(target, student.shape[-1]).astype(student.dtype)
    weight = (F.softmax(teacher, -1) + truth).pow(eps) - truth
    return -(weight * F.log_softmax(student, -1)).sum(-1).mean()
