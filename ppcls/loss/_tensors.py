"""Helpers of all losses: the cast to float32, both forms of labels, norms with a gradient at 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.errors import ConfigError

_TINY_SQUARE = 1e-24  # smaller than the square of any norm that matters; float32 can still hold it
EXCLUDED = -1e30  # a logit whose probability is zero; minus infinity would turn 0 * inf into NaN
_STANDARD_EPS = 1e-7  # added to the standard deviation of logits, as published
_HALVES = (paddle.float16, paddle.bfloat16)


def to_float(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32 and others unchanged, so that checks in float64 stay exact."""
    return x.astype("float32") if x.dtype in _HALVES else x


def is_soft(label: Tensor) -> bool:
    """Tell whether `label` holds class probabilities (float) instead of class indices (integer)."""
    return bool(paddle.is_floating_point(label))


def class_index(label: Tensor | None, loss: str, reason: str) -> Tensor:
    """Return class indices, int64 [N], from int labels [N] or [N, 1].

    Args:
        label: the labels of the batch; None if it has none.
        loss: registered name of the loss, for the message.
        reason: why this loss cannot work with class probabilities.

    Raises:
        ConfigError: if there are no labels or they are probabilities (mixup, cutmix).
    """
    if label is None:
        raise ConfigError(f"{loss} needs labels, but the batch has none")
    if is_soft(label):
        raise ConfigError(
            f"{loss} got soft labels of shape {list(label.shape)} (mixup or cutmix?), expected class indices "
            f"[N, 1]: {reason}"
        )
    if label.ndim > 2 or (label.ndim == 2 and label.shape[1] != 1):
        raise ConfigError(
            f"{loss}: integer labels of shape {list(label.shape)}, expected [N] or [N, 1]; give class "
            "probabilities as floats"
        )
    return label.reshape([-1]).astype("int64")


def class_distribution(label: Tensor | None, logits: Tensor, loss: str, epsilon: float = 0.0) -> Tensor:
    """Return labels as class probabilities [N, C], mixed with the uniform distribution by `epsilon`.

    Args:
        label: int [N] or [N, 1], or float [N, C] whose rows sum to one.
        logits: [N, C]; gives C and the dtype.
        loss: registered name of the loss, for messages.
        epsilon: label smoothing, ``(1 - epsilon) * q + epsilon / C``.

    Raises:
        ConfigError: if labels are missing or their shape does not fit the logits.
    """
    classes = logits.shape[-1]
    if label is not None and is_soft(label):
        if list(label.shape) != list(logits.shape):
            raise ConfigError(
                f"{loss}: soft labels of shape {list(label.shape)} for logits {list(logits.shape)}, expected "
                "one probability per class"
            )
        q = label.astype(logits.dtype)
    else:
        index = class_index(label, loss, "")
        if index.shape[0] != logits.shape[0]:
            raise ConfigError(f"{loss}: {index.shape[0]} labels for logits of shape {list(logits.shape)}")
        q = F.one_hot(index, classes).astype(logits.dtype)
    return q * (1.0 - epsilon) + epsilon / classes if epsilon else q


def norm(x: Tensor, keepdim: bool = False) -> Tensor:
    """Euclidean norm over the last axis; its gradient at a zero vector is zero instead of NaN."""
    return x.square().sum(-1, keepdim=keepdim).clip(min=_TINY_SQUARE).sqrt()


def cosine(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle between rows, ``a.b / (|a| |b| + eps)``; zero where a row is zero."""
    return (a * b).sum(-1) / (norm(a) * norm(b) + eps)


def softened_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the class probabilities of two sets of logits, per sample [N]."""
    log_t = F.log_softmax(teacher, -1)
    return (log_t.exp() * (log_t - F.log_softmax(student, -1))).sum(-1)


def split_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split the class probabilities of logits [N, C] into one class for each sample and the others.

    All results are differences of log-sums, so they are exact even where a probability would round to 0 or 1.

    Args:
        logits: [N, C].
        target: class indices, int64 [N].

    Returns:
        log p(target) [N], log p(not target) [N], and the log-probabilities [N, C] of the classes on the
        condition that it is not the target; there the value of the target itself is about -1e30.
    """
    is_target = F.one_hot(target, logits.shape[-1]).astype("bool")
    everything = paddle.logsumexp(logits, -1)
    others = paddle.where(is_target, paddle.full_like(logits, EXCLUDED), logits)
    other_sum = paddle.logsumexp(others, -1)
    hit = (logits * is_target.astype(logits.dtype)).sum(-1)
    return hit - everything, other_sum - everything, others - other_sum.unsqueeze(-1)


def standardized(logits: Tensor) -> Tensor:
    """Return logits [N, C] with mean 0 and standard deviation 1 over the classes.

    Sun et al., "Logit standardization in knowledge distillation" (CVPR 2024, arXiv 2403.01427):
    ``(z - mean) / (std + 1e-7)`` with the unbiased standard deviation. If all logits
    are equal, they become zeros, without gradient.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    deviation = norm(centred, keepdim=True) / max(logits.shape[-1] - 1, 1) ** 0.5
    scaled = centred / (deviation + _STANDARD_EPS)
    return paddle.where(deviation > _STANDARD_EPS, scaled, paddle.zeros_like(scaled))


def check_several_classes(loss: str, logits: Tensor) -> None:
    """Raise ConfigError for logits [N, 1], where the target is the only class."""
    if logits.shape[-1] < 2:
        raise ConfigError(f"{loss} needs at least 2 classes, got {logits.shape[-1]}")


def check_positive(loss: str, **options: float) -> None:
    """Raise ConfigError for the first option that is not above zero."""
    check_finite(loss, options)
    for name, value in options.items():
        if not value > 0:
            raise ConfigError(f"got {value}, expected a number above 0", path=f"{loss}.{name}")


def check_finite(loss: str, options: Mapping[Any, Any]) -> None:
    """Raise ConfigError for the first option that is infinite or not a number."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"got {value}, expected a finite number", path=f"{loss}.{name}")


def check_one_of(loss: str, option: str, value: str | None, known: tuple[str | None, ...]) -> None:
    """Raise ConfigError if `value` is none of the `known` values."""
    if value not in known:
        names = ", ".join("null" if k is None else k for k in known)
        raise ConfigError(f"got {value!r}, expected one of {names}", path=f"{loss}.{option}")


def check_scalar(loss: str, value: Any) -> None:
    """Raise ConfigError for a value of a loss that is not a tensor with one number."""
    expected = "expected a tensor with one number from the loss"
    if not isinstance(value, Tensor):
        raise ConfigError(f"{expected}, got {value!r} ({type(value).__name__})", path=loss)
    if value.size != 1:
        raise ConfigError(
            f"{expected}, got shape {list(value.shape)}; take the mean over the batch", path=loss
        )
