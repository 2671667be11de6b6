"""Optimizers and learning-rate schedules, built from the section ``Optimizer`` of a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paddle import nn
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler

from ppcls.config import plain
from ppcls.config.binding import construct
from ppcls.contracts import PluginErrors
from ppcls.errors import ConfigError
from ppcls.optimizer.base import NamedParameters, OptimizerFactory, ScheduleFactory
from ppcls.optimizer.joint import JointOptimizer, JointSchedule, divide, optimizers_of
from ppcls.optimizer.learning_rates import Plateau, Schedule
from ppcls.optimizer.optimizers import OptimizerSettings
from ppcls.optimizer.state import load_structured_state, structured_state
from ppcls.registry import OPTIMIZERS, SCHEDULES

__all__ = [
    "OptimizerFactory",
    "OptimizerSettings",
    "Schedule",
    "ScheduleFactory",
    "build_lr_scheduler",
    "build_optimizer",
    "build_schedule",
    "learning_rates",
    "load_structured_state",
    "structured_state",
]


def build_schedule(config: Any, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """Build the schedule of ``Optimizer.lr``.

    Args:
        config: ``{"name": "Cosine", "learning_rate": 0.1, ...}``; without a name the rate is constant.
        epochs: epochs of the run.
        steps_per_epoch: optimizer steps of one epoch.

    Returns:
        A Paddle scheduler with two more attributes: ``by_epoch`` (call ``step()`` once per epoch
        instead of at every step) and ``needs_metric`` (call ``step(metric)`` after each evaluation).

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
                "expected a `name` (such as Cosine) or at least a `learning_rate`", path="Optimizer.lr"
            )
        node["name"] = "ConstLR"
    settings: ScheduleFactory = construct(SCHEDULES, node, "Optimizer.lr")
    scheduler = settings.build(epochs, steps_per_epoch)
    if not isinstance(scheduler, LRScheduler):
        raise ConfigError(
            f"Optimizer.lr: {type(settings).__name__}.build returned a {type(scheduler).__name__}, expected "
            "a paddle.optimizer.lr.LRScheduler"
        )
    scheduler.by_epoch = settings.by_epoch
    scheduler.needs_metric = settings.needs_metric
    return scheduler


def build_optimizer(
    config: Any, epochs: int, steps_per_epoch: int, models: Sequence[nn.Layer]
) -> tuple[Optimizer | JointOptimizer, LRScheduler | JointSchedule]:
    """Build the optimizer of the section ``Optimizer`` and its schedule.

    Args:
        config: ``{"name": "Momentum", "momentum": 0.9, "lr": {...}, "regularizer": {...}}``, or a list of
            these (also as ``{"Momentum": {...}}``), each with a ``scope``, see `ppcls.optimizer.joint`.
        epochs: epochs of the run.
        steps_per_epoch: optimizer steps of one epoch.
        models: layers to train: the network, and the losses if they have parameters. Frozen parameters
            (``stop_gradient``) are ignored.

    Raises:
        ConfigError: for unknown names and options, values out of range, or if there is nothing to train.
    """
    node = plain(config)
    if isinstance(node, list) and not node:
        raise ConfigError("Optimizer: an empty list; write at least one optimizer")
    several = isinstance(node, list)
    where = [f"Optimizer.{index}" for index in range(len(node))] if several else ["Optimizer"]
    entries: list[OptimizerFactory] = [
        construct(OPTIMIZERS, entry, place)
        for entry, place in zip(node if several else [node], where, strict=True)
    ]
    schedules = [build_schedule(entry.lr, epochs, steps_per_epoch) for entry in entries]
    modes = {schedule.settings.mode for schedule in schedules if isinstance(schedule, Plateau)}
    if len(modes) > 1:
        raise ConfigError(
            "Optimizer: all ReduceOnPlateau of a list watch the same metric; give them one mode"
        )
    parts = divide([entry.scope for entry in entries], models)
    optimizers = [
        _built(entry, schedule, parameters, place)
        for entry, schedule, parameters, place in zip(entries, schedules, parts, where, strict=True)
    ]
    for entry, optimizer, place in zip(entries, optimizers, where, strict=True):
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"{place}: {type(entry).__name__}.build returned a {type(optimizer).__name__}, expected a "
                "paddle.optimizer.Optimizer"
            )
    if len(entries) == 1:
        return optimizers[0], schedules[0]
    return JointOptimizer(optimizers), JointSchedule(schedules, steps_per_epoch)


def _built(
    entry: OptimizerFactory, schedule: LRScheduler, parameters: NamedParameters, place: str
) -> Optimizer:
    """Return what an entry builds.

    Raises:
        ConfigError: naming file and line, if the class of a plug-in fails.
    """
    advice = ". Its parameters are pairs of a name and a tensor"
    with PluginErrors(entry, f"{place}: {type(entry).__name__}.build failed", advice=advice):
        return entry.build(schedule, parameters)


build_lr_scheduler = build_schedule  # PaddleClas's name for it


def __getattr__(name: str) -> Any:
    found = OPTIMIZERS.find(name) or SCHEDULES.find(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found


def learning_rates(optimizer: Optimizer | JointOptimizer) -> list[float]:
    """Return the current learning rate of each entry of ``Optimizer``."""
    return [float(one.get_lr()) for one in optimizers_of(optimizer)]
