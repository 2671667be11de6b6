"""Several optimizers in one run, each with the parameters of its scope.

``Optimizer`` may be a list, such as AdamW for the parameters of a loss and Momentum for the student. Every
trained parameter belongs to exactly one entry; parameters in no scope belong to the entry without a scope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle import nn
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler

from ppcls._paddle import parameters_of
from ppcls.config.checks.optimizer_scopes import EVERYTHING_ELSE, layers_named
from ppcls.errors import ConfigError, WeightsError
from ppcls.optimizer.base import NamedParameters
from ppcls.optimizer.optimizers import trainable_parameters

_PARTS = "parts"


class JointOptimizer:
    """Optimizers that step together; a gradient scaler treats them as one.

    If scaled gradients overflow anywhere, all of them skip the step.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = tuple(optimizers)
        self._parameter_list: list[paddle.Tensor] = [  # read by paddle.amp.GradScaler
            p for optimizer in optimizers for p in parameters_of(optimizer)
        ]

    def step(self) -> None:
        """Update the parameters with their gradients."""
        for optimizer in self.optimizers:
            optimizer.step()

    def clear_grad(self) -> None:
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.clear_grad()


class JointSchedule:
    """Schedules that step together, each at its own pace.

    Args:
        schedules: one for each optimizer.
        steps_per_epoch: schedules with ``by_epoch`` step once per this number of steps.
    """

    by_epoch = False

    def __init__(self, schedules: Sequence[LRScheduler], steps_per_epoch: int) -> None:
        self.schedules = tuple(schedules)
        self.needs_metric = any(schedule.needs_metric for schedule in schedules)
        self._steps_per_epoch = steps_per_epoch
        self._done = 0

    def step(self, metric: float | None = None) -> None:
        """Count one training step, or pass `metric` to the schedules that depend on evaluations."""
        if metric is not None:
            for schedule in self.schedules:
                if schedule.needs_metric:
                    schedule.step(metric)
            return
        self._done += 1
        for schedule in self.schedules:
            if not schedule.by_epoch or self._done % self._steps_per_epoch == 0:
                schedule.step()

    def move(self, steps: int) -> None:
        """Set the number of training steps that are done."""
        self._done = steps

    def state_dict(self) -> dict[str, Any]:
        """Return the positions of all schedules."""
        return {"done": self._done, _PARTS: [schedule.state_dict() for schedule in self.schedules]}

    def set_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the positions that :meth:`state_dict` returned."""
        self._done = state["done"]
        for schedule, part in zip(self.schedules, state[_PARTS], strict=True):
            schedule.set_state_dict(part)


def optimizers_of(optimizer: Optimizer | JointOptimizer) -> tuple[Optimizer, ...]:
    """Return the Paddle optimizers that `optimizer` consists of."""
    return optimizer.optimizers if isinstance(optimizer, JointOptimizer) else (optimizer,)


def restore_schedule(
    schedule: LRScheduler | JointSchedule, state: Mapping[str, Any], where: str = "schedule"
) -> None:
    """Restore the saved state of `schedule`.

    Raises:
        WeightsError: if the state belongs to another number or another kind of schedules.
    """
    own = len(schedule.schedules) if isinstance(schedule, JointSchedule) else 1
    saved = len(state[_PARTS]) if isinstance(state.get(_PARTS), list) else 1
    if (_PARTS in state) != isinstance(schedule, JointSchedule) or own != saved:
        raise WeightsError(
            f"{where}: written by a run with {saved} entries in Optimizer, this one has {own}; "
            "resume with that list, or start a new run from its weights with Global.pretrained_model"
        )
    if not _is_alike(schedule.state_dict(), state):
        raise WeightsError(
            f"{where}: the state of the learning-rate schedule in it is not that of this kind of schedule"
        )
    schedule.set_state_dict(dict(state))


def move_schedule(schedule: LRScheduler | JointSchedule, steps: int) -> None:
    """Move `schedule` to the place after `steps` steps, where those of an epoch are now more or fewer.

    Schedules by epoch stay where they are.
    """
    parts: tuple[LRScheduler, ...]
    if isinstance(schedule, JointSchedule):
        schedule.move(steps)
        parts = schedule.schedules
    else:
        parts = (schedule,)
    for part in parts:
        if part.by_epoch:
            continue
        if part.needs_metric:  # its `step` takes a metric
            part.last_epoch = steps
            part.last_lr = part.get_lr()
        else:
            part.step(steps)


def _is_alike(own: Any, saved: Any) -> bool:
    """Tell whether `saved` has the same entries as `own`, with numbers in the same places."""
    if isinstance(own, Mapping):
        return isinstance(saved, Mapping) and all(
            name in saved and _is_alike(value, saved[name]) for name, value in own.items()
        )
    if isinstance(own, list | tuple):
        return isinstance(saved, list | tuple) and all(map(_is_alike, own, saved))
    if own is None or isinstance(own, int | float):  # a best value is None until there is one
        return isinstance(saved, int | float) or (own is None and saved is None)
    return isinstance(saved, type(own))


def divide(scopes: Sequence[Any], models: Sequence[nn.Layer]) -> list[NamedParameters]:
    """Give each entry of ``Optimizer`` its parameters.

    Args:
        scopes: scope of each entry: ``all`` or None for parameters in no other scope, or a name or list of
            names. A name is that of a class in the network or the losses (``MGDLoss``), or the path of a
            layer of the network (``Student``, ``Student.blocks[3].conv0``).
        models: the network, and the losses if they have parameters.

    Raises:
        ConfigError: if a name matches nothing that is trained, or a parameter has no entry or two.
    """
    every = trainable_parameters(models)
    owner: dict[int, int] = {}
    rest = [index for index, scope in enumerate(scopes) if scope in EVERYTHING_ELSE]
    if len(rest) > 1:
        raise ConfigError(
            f"Optimizer: the entries {', '.join(map(str, rest))} have no scope; one may, and takes the rest"
        )
    for index, scope in enumerate(scopes):
        if index in rest:
            continue
        for name in [scope] if isinstance(scope, str) else scope:
            for parameter in _inside(name, models, f"Optimizer.{index}.scope"):
                first = owner.setdefault(id(parameter), index)
                if first != index:
                    raise ConfigError(
                        f"{name!r} has parameters that entry {first} trains already",
                        path=f"Optimizer.{index}.scope",
                    )
    free = [name for name, p in every if id(p) not in owner]
    if free and not rest:
        shown = ", ".join(free[:4]) + (f", ... ({len(free)} in all)" if len(free) > 4 else "")
        raise ConfigError(f"Optimizer: no scope contains {shown}; one entry may leave its scope out")
    found: list[NamedParameters] = [[] for _ in scopes]
    for name, parameter in every:
        found[owner.get(id(parameter), rest[0] if rest else 0)].append((name, parameter))
    empty = [index for index, parameters in enumerate(found) if not parameters]
    if empty:
        raise ConfigError("nothing is left for it to train", path=f"Optimizer.{empty[0]}")
    return found


def _inside(name: str, models: Sequence[nn.Layer], where: str) -> list[paddle.Tensor]:
    """Return the trained parameters of the layers that `name` names."""
    layers = layers_named(name, models, where)
    parameters = {id(p): p for layer in layers for p in layer.parameters() if not p.stop_gradient}
    if not parameters:
        raise ConfigError(f"{name!r} has no parameter that is trained", path=where)
    return list(parameters.values())
