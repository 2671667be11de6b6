"""Averaged weights: an exponential moving average of trained weights, and the hook that updates it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle

from ppcls.data import Batch
from ppcls.engine.amp import in_float32
from ppcls.engine.hooks.base import Hook
from ppcls.engine.run import Run
from ppcls.errors import WeightsError


class ModelEMA:
    """A second set of weights, the moving average of the first.

    After step t, ``average = d * average + (1 - d) * weights`` with ``d = min(decay, (1 + t) / (10 + t))``,
    so that the first weights soon have no influence. BatchNorm statistics are averaged like weights; integer
    tensors are copied. Averages are always float32.

    Args:
        tensors: tensors of networks that train, by name.
        decay: ``EMA.decay``.
    """

    def __init__(self, tensors: Mapping[str, paddle.Tensor], decay: float) -> None:
        self.decay = decay
        self._tensors = dict(tensors)
        self._averages = in_float32({name: t.detach().clone() for name, t in self._tensors.items()})

    def update(self, step: int) -> None:
        """Update the averages after optimizer step `step`, counted from 1."""
        d = min(self.decay, (1 + step) / (10 + step))
        with paddle.no_grad():
            for name, tensor in self._tensors.items():
                average = self._averages[name]
                if tensor.is_floating_point():
                    average.scale_(d)
                    average.add_(tensor.detach().astype(average.dtype) * (1 - d))
                else:
                    average.set_value(tensor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averages in the network while the block runs, and restore its weights afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(own)

    def _fill(self, values: Mapping[str, paddle.Tensor]) -> None:
        for name, tensor in self._tensors.items():
            tensor.set_value(values[name].astype(tensor.dtype))

    def state(self) -> dict[str, paddle.Tensor]:
        """Return the averages by name."""
        return dict(self._averages)

    def restore(self, state: Mapping[str, Any], where: str) -> None:
        """Continue from averages returned by :meth:`state`.

        Raises:
            WeightsError: if names or shapes differ.
        """
        fits = state.keys() == self._averages.keys() and all(
            list(np.shape(value)) == list(self._averages[name].shape) for name, value in state.items()
        )
        if not fits:
            raise WeightsError(f"{where}: the averaged weights in it are those of another network")
        for name, value in state.items():
            self._averages[name].set_value(paddle.to_tensor(value).astype(self._averages[name].dtype))


class EMAHook(Hook):
    """Update averaged weights after every step; it is called before the hook that saves both."""

    def after_step(self, run: Run, batch: Batch) -> None:
        """Update the averages."""
        if run.parts.ema is not None:
            run.parts.ema.update(run.progress.step)
