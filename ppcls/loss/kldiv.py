"""Knowledge distillation with softened probabilities."""

from __future__ import annotations

from paddle import Tensor

from ppcls.loss._tensors import softened_kl
from ppcls.loss.formula import pair_loss


@pair_loss(
    "DistillationKLDivLoss",
    name="loss_kldiv",
    positive=["temperature"],
    scheduled=["temperature"],
    learnable=["temperature"],
    standardizable=True,
    key_last=True,
)
def kl_divergence(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Hinton et al., "Distilling the knowledge in a neural network" (arXiv 1503.02531), sec. 2.

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, summed over classes, mean over the batch. The
    factor keeps the size of the gradient independent of T.

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        temperature: T > 0.

    Returns:
        A scalar, zero where both distributions agree.
    """
    return softened_kl(student / temperature, teacher / temperature).mean() * temperature**2
