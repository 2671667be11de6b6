"""Automatic mixed precision: one code path, whose parts do nothing if it is off.

Level O1 casts the inputs of listed operators. O2 casts the networks themselves, except for their
normalisation layers, and the optimizer keeps float32 copies. Losses and their parameters always compute in
float32. Checkpoints contain float32, to which float16 and bfloat16 can be converted and back exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from ppcls.config.schema import AMPSpec
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.optimizer.joint import JointOptimizer, optimizers_of


def mixed_precision(amp: AMPSpec) -> tuple[paddle.amp.GradScaler, dict[str, Any]]:
    """Return the loss scaler and the arguments of ``auto_cast``; both do nothing if AMP is off.

    Paddle has no float16 and bfloat16 kernels on the CPU and silently ignores autocast there.

    Args:
        amp: the section ``AMP``.

    Raises:
        ConfigError: if the GPU does not support the type, which Paddle would not report.
    """
    asked = bool(amp.use_amp)
    on_gpu = paddle.device.get_device().startswith("gpu")
    if asked and not on_gpu:
        LOGGER.warning("AMP.use_amp: Paddle has no mixed precision on the CPU; training in float32")
    use = asked and on_gpu
    if use and not getattr(paddle.amp, f"is_{amp.dtype}_supported")():
        raise ConfigError(f"AMP.dtype: this GPU does not compute in {amp.dtype}; try the other type")
    scaler = paddle.amp.GradScaler(
        enable=use and amp.dtype == "float16",
        init_loss_scaling=float(amp.scale_loss),
        use_dynamic_loss_scaling=bool(amp.use_dynamic_loss_scaling),
    )
    casting = {"enable": use, "level": amp.level, "dtype": amp.dtype, "use_promote": amp.use_promote}
    return scaler, casting


def casting_in_evaluation(casting: Mapping[str, Any], asked: bool) -> dict[str, Any]:
    """Return the arguments of ``auto_cast`` for evaluations.

    Args:
        casting: the arguments in training.
        asked: ``AMP.use_fp16_test``; at level O2 it is always on, because the networks are cast.
    """
    return {**casting, "enable": casting["enable"] and (asked or casting["level"] == "O2")}


def cast_networks(
    model: nn.Layer, optimizer: Optimizer | JointOptimizer, casting: Mapping[str, Any]
) -> nn.Layer:
    """Cast the networks for level O2.

    Paddle's ``save_dtype`` is not used: with it, `state_dict` returns copies, so nothing could be loaded.
    """
    if not (casting["enable"] and casting["level"] == "O2"):
        return model
    optimizers = list(optimizers_of(optimizer))  # they have to keep float32 copies
    model, _ = paddle.amp.decorate(models=model, optimizers=optimizers, level="O2", dtype=casting["dtype"])
    return model


def in_float32(state: Mapping[str, paddle.Tensor]) -> dict[str, paddle.Tensor]:
    """Return tensors for checkpoints: lower precision is converted to float32, others are unchanged."""
    low = (paddle.float16, paddle.bfloat16)
    return {name: t.astype("float32") if t.dtype in low else t for name, t in state.items()}


def scaler_state(scaler: paddle.amp.GradScaler) -> dict[str, np.ndarray]:
    """Return the state of a loss scaler, empty if it is off."""
    return {name: np.asarray(value) for name, value in scaler.state_dict().items()}


def restore_scaler(scaler: paddle.amp.GradScaler, state: Mapping[str, np.ndarray]) -> None:
    """Restore the state that :func:`scaler_state` returned.

    Arrays are converted to Python's numbers, because an array would make the scale float64. If the saved or
    the present scaler is off, the setting has changed, and the scaler starts with its initial state.
    """
    if not (state and scaler.is_enable()):
        return
    values = {name: np.asarray(value).reshape(-1) for name, value in state.items()}
    scaler.load_state_dict({name: v if name == "scale" else v.item() for name, v in values.items()})
