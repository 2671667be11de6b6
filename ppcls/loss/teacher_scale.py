"""Standardisation of a teacher's features: a mean for each channel, and one scale for all channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._select import select
from ppcls.loss.measured import Measurement, Moments

_IMAGES = 10_000  # enough for means and variances of channels


class TeacherScale(nn.Layer):
    """Bring features to mean 0 in each channel and an average variance of 1 over the channels.

    Ranzinger et al., "PHI-S: distribution balancing for label-free multi-teacher distillation" (ICLR 2025,
    arXiv 2410.01680), without its rotation: features of several teachers get the same scale, so that no
    teacher dominates a loss because its numbers are larger, and the relations of the channels of one teacher
    stay as they are. Channels are axis 1 of vectors [N, D] and maps [N, C, H, W], and the last axis of tokens
    [N, L, D].

    Args:
        features: features of the teacher for any batch; they give the number of channels.

    Raises:
        ConfigError: if they have no channels.
    """

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        if features.ndim not in (2, 3, 4):
            raise ConfigError(
                f"standardize_teacher: the teacher's output is {list(features.shape)}, expected [N, D], "
                "[N, L, D] or [N, C, H, W]"
            )
        channels = features.shape[2 if features.ndim == 3 else 1]
        # In float64, which is not averaged over the processes in every step, as statistics are that change.
        self.register_buffer("mean", paddle.zeros([channels], "float64"))
        self.register_buffer("scale", paddle.zeros([], "float64"))
        self._known = False

    def measurement(self, loss: str, network: str, key: str | None) -> Measurement:
        """Return what has to be measured.

        Args:
            loss: registered name of the loss, for messages.
            network: name of the teacher.
            key: which output of it.
        """

        def rows(output: Any) -> np.ndarray:
            features: np.ndarray = select(output, key, loss, network).astype("float32").numpy()
            if features.ndim == 4:
                features = np.moveaxis(features, 1, -1)
            return features.reshape(-1, features.shape[-1])

        def finish(moments: Moments) -> None:
            scale = float(np.sqrt(moments.sums.mean() / moments.count))
            if not scale > 0:
                raise ConfigError(f"{loss}: {key or 'logits'} of {network} is the same for all images")
            self.mean.set_value(moments.mean)
            self.scale.set_value(np.array(scale))

        return Measurement(
            what=f"mean and scale of {key or 'logits'}",
            loss=loss,
            network=network,
            rows=rows,
            moments=Moments(products=False),
            finish=finish,
            most=_IMAGES,
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the standardised features, of the same shape.

        Raises:
            ConfigError: if mean and scale have not been measured.
        """
        if not self._known:  # reading a value takes time, so it is done once
            self._check_measured()
        mean = self.mean.astype(features.dtype)
        shape = [1, -1, 1, 1] if features.ndim == 4 else [-1]
        return (features - mean.reshape(shape)) / self.scale.astype(features.dtype)

    def _check_measured(self) -> None:
        if not float(self.scale) > 0:
            raise ConfigError(
                "standardize_teacher: mean and scale have not been measured; a run of ppcls does it before "
                "the first step. In a loop of your own, add the teacher's outputs to each of "
                "loss.measurements() and finish it"
            )
        self._known = True
