"""Logits of which only some classes are kept: the K most probable ones, or K drawn by chance.

What comes back are logits whose softmax (at temperature 1) is the kept distribution.
"""

from __future__ import annotations

import numpy as np

# The logit of a class that was not drawn: its probability is exactly 0, and 0 times it is 0.
_NEVER = np.float32(-1e4)
_LEAST = 1e-12  # mass of the rest, which rounding could make negative


def most_probable(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of the `k` largest probabilities, falling, and their classes.

    Args:
        logits: float32 [N, C].
        k: below C.

    Returns:
        float32 [N, k] and int64 [N, k]. Of equal ones the class with the lower number comes first.
    """
    log_p = _log_softmax(logits)
    classes = np.argsort(-log_p, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(log_p, classes, 1).astype(np.float32), classes


def from_most_probable(log_p: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return logits in which all other classes share the rest of the probability evenly.

    Args:
        log_p: float [N, k].
        classes: [N, k].
        count: number of classes, C.

    Returns:
        float32 [N, C].
    """
    kept = log_p.astype(np.float64)
    rest = np.maximum(1 - np.exp(kept).sum(1, keepdims=True), _LEAST) / max(count - classes.shape[1], 1)
    logits = np.repeat(np.log(rest), count, axis=1)
    np.put_along_axis(logits, classes.astype(np.int64), kept, 1)
    return logits.astype(np.float32)


def draw(logits: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return `k` classes of each row, drawn with repetition from its probabilities, in order: int64 [N, k].

    Args:
        logits: float32 [N, C].
        k: any number.
        rng: draws [N, k] numbers.
    """
    ends = np.exp(_log_softmax(logits)).cumsum(1)
    drawn = rng.random((len(logits), k)) * ends[:, -1:]
    rows = [np.searchsorted(row, numbers, side="right") for row, numbers in zip(ends, drawn, strict=True)]
    found = np.stack(rows) if rows else np.empty((0, k), np.int64)
    return np.sort(np.minimum(found, logits.shape[1] - 1), 1)


def from_drawn(classes: np.ndarray, count: int) -> np.ndarray:
    """Return logits whose softmax is the share of each class among the drawn ones.

    Args:
        classes: [N, k].
        count: number of classes, C.

    Returns:
        float32 [N, C].
    """
    rows, k = classes.shape
    shares = np.zeros((rows, count), np.float64)
    np.add.at(shares, (np.arange(rows)[:, None], classes.astype(np.int64)), 1 / k)
    logits = np.full((rows, count), _NEVER, np.float32)
    there = shares > 0
    logits[there] = np.log(shares[there])
    return logits


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
