"""Save and restore the state of Paddle's random number generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paddle

RandomState = tuple[Any, Any]


def random_state() -> RandomState:
    """Return the state of the generators of the processor and of all GPUs."""
    return paddle.get_rng_state("cpu"), paddle.get_cuda_rng_state()


def set_random_state(state: RandomState) -> None:
    """Set the generators to what :func:`random_state` returned."""
    cpu, cuda = state
    paddle.set_rng_state(cpu, "cpu")
    paddle.set_cuda_rng_state(cuda)


@contextmanager
def random_numbers_as_before() -> Iterator[None]:
    """Restore the generators at the end of the block."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
