"""What gradients tell about a run."""

from __future__ import annotations

from collections.abc import Sequence

import paddle


def gradient_norm(parameters: Sequence[paddle.Tensor], scale: float = 1.0) -> paddle.Tensor:
    """Return the joint L2 norm of the gradients of all `parameters`, a scalar, computed in float32.

    Args:
        parameters: those without a gradient count as zero.
        scale: what the loss was multiplied with (mixed precision); the norm is of the gradients without it.
    """
    with paddle.no_grad():
        flat = [p.grad.flatten().astype("float32") for p in parameters if p.grad is not None]
        squares = [paddle.dot(gradient, gradient) for gradient in flat]  # no array of squares in between
        return paddle.stack(squares).sum().sqrt() / scale if squares else paddle.zeros([])
