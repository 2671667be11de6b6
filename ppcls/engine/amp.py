"""Automatic mixed precision: one code path, whose parts do nothing when it is off.

Level O1 casts the inputs of listed operators; O2 casts the networks themselves, but for their normalisations,
and the optimizer keeps float32 copies. Losses and their parameters always compute in float32. Checkpoints
hold float32, which float16 and bfloat16 turn into and back without a change.
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
    """Return the loss scaler and the arguments of ``auto_cast``; both do nothing when AMP is off.

    Paddle has no float16 and bfloat16 kernels on the CPU and ignores autocast there without a word.

    Args:
        amp: the section ``AMP``.

    Raises:
        ConfigError: if the GPU cannot compute in the type asked for, which Paddle would not say either.
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
        casting: those of training.
        asked: ``AMP.use_fp16_test``; at level O2 the networks know no other precision.
    """
    return {**casting, "enable": casting["enable"] and (asked or casting["level"] == "O2")}


def cast_networks(
    model: nn.Layer, optimizer: Optimizer | JointOptimizer, casting: Mapping[str, Any]
) -> nn.Layer:
    """Cast the networks for level O2.

    Without Paddle's ``save_dtype``: with it `state_dict` gives copies, which nothing could be loaded into.
    """
    if not (casting["enable"] and casting["level"] == "O2"):
        return model
    optimizers = list(optimizers_of(optimizer))  # told to keep float32 copies
    model, _ = paddle.amp.decorate(models=model, optimizers=optimizers, level="O2", dtype=casting["dtype"])
    return model


def in_float32(state: Mapping[str, paddle.Tensor]) -> dict[str, paddle.Tensor]:
    """Return tensors as checkpoints hold them; those that are not of a lower precision as they are."""
    low = (paddle.float16, paddle.bfloat16)
    return {name: t.astype("float32") if t.dtype in low else t for name, t in state.items()}


def scaler_state(scaler: paddle.amp.GradScaler) -> dict[str, np.ndarray]:
    """Return the state of a loss scaler, empty if it is off."""
    return {name: np.asarray(value) for name, value in scaler.state_dict().items()}


def restore_scaler(scaler: paddle.amp.GradScaler, state: Mapping[str, np.ndarray]) -> None:
    """Put what :func:`scaler_state` returned into a scaler.

    As Python's own numbers: an array among them would turn the scale into float64. A state that is there
    while the scaler is off, or the other way round, is a changed setting; the scaler then begins anew.
    """
    if not (state and scaler.is_enable()):
        return
    values = {name: np.asarray(value).reshape(-1) for name, value in state.items()}
    scaler.load_state_dict({name: v if name == "scale" else v.item() for name, v in values.items()})
