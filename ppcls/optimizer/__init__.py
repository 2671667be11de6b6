"""Optimizers and learning-rate schedules, built from the section ``Optimizer`` of a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle import nn
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler

from ppcls.config import plain
from ppcls.config.construct import construct
from ppcls.errors import ConfigError
from ppcls.optimizer.optimizers import OptimizerSettings, trainable_parameters
from ppcls.optimizer.schedule import Schedule
from ppcls.optimizer.state import load_structured_state, structured_state
from ppcls.registry import OPTIMIZERS, SCHEDULES

__all__ = ["build_optimizer", "build_schedule", "load_structured_state", "structured_state"]


def build_schedule(config: Any, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """Build the schedule of ``Optimizer.lr``.

    Args:
        config: ``{"name": "Cosine", "learning_rate": 0.1, ...}``; without a name the rate is constant.
        epochs: epochs of the run.
        steps_per_epoch: optimizer steps of one epoch.

    Returns:
        A Paddle scheduler with two more attributes: ``by_epoch`` (call ``step()`` once an epoch rather
        than at every step) and ``needs_metric`` (call ``step(metric)`` after each evaluation).

    Raises:
        ConfigError: for unknown names and options, and values out of range.
    """
    if epochs < 1 or steps_per_epoch < 1:
        raise ConfigError(
            f"a schedule needs epochs and steps, got {epochs} epochs of {steps_per_epoch} steps"
        )
    node = plain(config)
    if isinstance(node, dict) and "name" not in node:
        if "learning_rate" not in node:
            raise ConfigError(
                "Optimizer.lr: expected a `name` (such as Cosine) or at least a `learning_rate`"
            )
        node["name"] = "ConstLR"
    settings: Schedule = construct(SCHEDULES, node, "Optimizer.lr")
    return settings.build(epochs, steps_per_epoch)


def build_optimizer(
    config: Any, epochs: int, steps_per_epoch: int, models: Sequence[nn.Layer]
) -> tuple[Optimizer, LRScheduler]:
    """Build the optimizer of the section ``Optimizer`` and its schedule.

    Args:
        config: ``{"name": "Momentum", "momentum": 0.9, "lr": {...}, "regularizer": {...}}``.
        epochs: epochs of the run.
        steps_per_epoch: optimizer steps of one epoch.
        models: layers to train: the network, and the losses where they have parameters. Frozen
            parameters (``stop_gradient``) are left out.

    Raises:
        ConfigError: for unknown names and options, values out of range, and when nothing is left to train.
    """
    node = plain(config)
    if isinstance(node, list):
        raise ConfigError(
            "Optimizer: a list of optimizers with scopes is not supported; write one optimizer as a map: "
            "{name: Momentum, momentum: 0.9, lr: {...}}"
        )
    settings: OptimizerSettings = construct(OPTIMIZERS, node, "Optimizer")
    schedule = build_schedule(settings.lr, epochs, steps_per_epoch)
    return settings.build(schedule, trainable_parameters(models)), schedule
