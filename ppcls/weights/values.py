"""Check that weights are finite, and copy them into tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ppcls.errors import WeightsError

_SHOWN = 6


def check_finite(params: Mapping[str, np.ndarray], where: str) -> None:
    """Raise an error for weights with NaN or infinity: every prediction with them would be NaN.

    A float64 value that float32 cannot hold counts as infinite.

    Raises:
        WeightsError: naming the tensors and how many of their values are not finite.
    """
    broken = {}
    for name, value in params.items():
        if np.issubdtype(value.dtype, np.floating):
            with np.errstate(over="ignore"):
                kept = value.astype(np.float32) if value.dtype.itemsize > 4 else value
            count = kept.size - int(np.isfinite(kept).sum())
            if count:
                broken[name] = f"{name} ({count} of {value.size})"
    if broken:
        shown = ", ".join(list(broken.values())[:_SHOWN]) + (" ..." if len(broken) > _SHOWN else "")
        raise WeightsError(
            f"{where}: values that are not finite (NaN or infinity) in {len(broken)} of {len(params)} "
            f"tensors: {shown}. The file is broken, or the training that wrote it diverged; take another one"
        )


def assign(tensor: Any, value: np.ndarray) -> None:
    """Copy an array into a tensor of the same number of values, cast to its type."""
    import paddle

    source = paddle.to_tensor(np.ascontiguousarray(value))
    # reshape, because NumPy's ascontiguousarray makes a scalar [1]
    tensor.set_value(source.astype(tensor.dtype).reshape(tensor.shape))


def mark_untrained(left: Iterable[Any], loaded: Iterable[Any]) -> None:
    """Note on tensors that a file of weights left them as they were built, or that it did not."""
    for tensor in left:
        tensor.untrained_sum = float(tensor.sum())
    for tensor in loaded:
        tensor.untrained_sum = None


def untrained(state: Mapping[str, Any]) -> list[str]:
    """Return the names of the tensors that a file left as they were built and that nothing changed since."""
    return [
        name
        for name, tensor in state.items()
        if getattr(tensor, "untrained_sum", None) is not None and tensor.untrained_sum == float(tensor.sum())
    ]
