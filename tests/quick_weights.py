"""Random weights of large networks from stored random numbers, because drawing them takes most of a test.

Paddle draws a normal number in 25 ns: the weights of a ResNet50 take 0.6 s, one training step with two small
images 0.3 s.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn.initializer import kaiming, normal, xavier

# A prime number: no two filters of one layer get the same numbers, however many it has.
STORED = 1_000_003
# Smaller parameters are drawn by Paddle as ever.
LARGE = 20_000


class _Operators:
    """Paddle's operators as initialisers call them, but large parameters are filled with stored numbers."""

    def __init__(self, own: Any) -> None:
        self._own = own
        numbers = np.random.RandomState(0).standard_normal(STORED).astype(np.float32)
        self._normal = np.resize(numbers, 2 * len(numbers))
        numbers = numbers[np.abs(numbers) < 2]
        self._truncated = np.resize(numbers, 2 * len(numbers))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def gaussian(self, shape: Any, mean: float, std: float, seed: int, *rest: Any) -> Any:
        if math.prod(shape) < LARGE:
            return self._own.gaussian(shape, mean, std, seed, *rest)
        return self._fill(self._normal, shape, mean, std)

    def truncated_gaussian_random(self, shape: Any, mean: float, std: float, seed: int, *rest: Any) -> Any:
        if math.prod(shape) < LARGE:
            return self._own.truncated_gaussian_random(shape, mean, std, seed, *rest)
        return self._fill(self._truncated, shape, mean, std)

    def _fill(self, numbers: np.ndarray, shape: Any, mean: float, std: float) -> paddle.Tensor:
        """Begin at a place that Paddle draws, so that the numbers follow its seed."""
        half = len(numbers) // 2
        begin = int(paddle.randint(0, half).item())
        size = math.prod(shape)
        part = (
            numbers[begin : begin + size] if size <= half else np.resize(numbers[begin : begin + half], size)
        )
        values = part * np.float32(std)
        if mean:
            values += np.float32(mean)
        return paddle.to_tensor(values.reshape(shape))


@cache
def _operators() -> _Operators:
    return _Operators(paddle._C_ops)


def use_stored_numbers(patch: pytest.MonkeyPatch) -> None:
    """Let the initialisers of normal distributions take stored numbers."""
    for module in (kaiming, normal, xavier):
        patch.setattr(module, "_C_ops", _operators())
