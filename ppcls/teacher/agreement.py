"""Whether the outputs of an engine agree with those of the network, within the limits in this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls.errors import ConfigError
from ppcls.teacher.outputs import flatten

# float32: largest difference of a value, relative to the largest value of that output.
FLOAT32 = 1e-4
# bfloat16: mean KL divergence of class probabilities in nats, and the share of images with the same class;
# one image may always differ. Features: root mean square of the difference, relative to that of the values.
KL = 0.02
SAME_CLASS = 0.95
FEATURES = 0.05


@dataclass(frozen=True)
class Agreement:
    """How far an engine agrees with the network on one batch.

    Attributes:
        difference: largest difference of any value, relative to the largest value of its output.
        problem: why the engine does not agree; empty if it agrees.
    """

    difference: float
    problem: str = ""


def compare(found: Any, expected: Any, precision: str) -> Agreement:
    """Compare the outputs of an engine with those of the network for the same images.

    Args:
        found: outputs of the engine; tensors, or maps and lists of tensors.
        expected: outputs of the network.
        precision: ``float32`` or ``bfloat16``, which decides the limits.
    """
    try:
        pairs = list(zip(flatten(found)[0], flatten(expected)[0], strict=True))
    except (ConfigError, ValueError) as error:
        return Agreement(np.inf, str(error))
    worst = 0.0
    for actual, wanted in pairs:
        if list(actual.shape) != list(wanted.shape):
            return Agreement(
                np.inf, f"an output has the shape {list(actual.shape)} instead of {list(wanted.shape)}"
            )
        a = actual.numpy().astype(np.float64)
        b = wanted.numpy().astype(np.float64)
        difference = _relative(np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0))
        worst = float(np.maximum(worst, difference))  # unlike max, this keeps NaN
        if precision == "bfloat16":
            mean_difference = _relative(np.sqrt(np.square(a - b).mean()), np.sqrt(np.square(b).mean()))
            if not mean_difference <= FEATURES:
                return Agreement(
                    worst, f"an output differs by {mean_difference:.2g} of its size (limit {FEATURES:g})"
                )
    if precision == "bfloat16":
        return Agreement(worst, _compare_classes(found, expected))
    if not worst <= FLOAT32:
        return Agreement(worst, f"it differs by {worst:.2g} of the largest value (limit {FLOAT32:g})")
    return Agreement(worst)


def _relative(difference: float, size: float) -> float:
    return 0.0 if difference == 0 else float(difference) / max(float(size), 1e-30)


def _compare_classes(found: Any, expected: Any) -> str:
    a = _logits(found)
    b = _logits(expected)
    if a is None or b is None:
        return ""
    log_a = _log_softmax(a)
    log_b = _log_softmax(b)
    kl = float((np.exp(log_b) * (log_b - log_a)).sum(1).mean())
    differing = int((a.argmax(1) != b.argmax(1)).sum())
    if not kl <= KL:
        return f"the KL divergence of its probabilities is {kl:.2g} nats (limit {KL:g})"
    if differing > max(1, (1 - SAME_CLASS) * len(a)):
        return f"it predicts another class for {differing} of {len(a)} images (limit {1 - SAME_CLASS:.0%})"
    return ""


def _logits(output: Any) -> np.ndarray | None:
    value = output.get("logits") if isinstance(output, Mapping) else output
    if value is None or isinstance(value, list | tuple) or value.ndim != 2:
        return None
    return np.asarray(value.numpy(), np.float64)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
