"""A number that may change with the epoch: the weight of a loss, or SKD's alpha."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ppcls.config.binding import bound_options, parameters_of
from ppcls.errors import ConfigError, hint

EpochValue = Callable[[int], float]
"""Maps an epoch, counted from 1 as in the log lines, to a number."""


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"got {value!r}, expected a finite number", path=where)
    return float(value)


def _epoch_count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"got {value!r}, expected a whole number of epochs, 1 or more", path=where)
    return value


def _constant(where: str, value: Any) -> EpochValue:
    number = _number(value, f"{where}.value")
    return lambda epoch: number


def _linear_warmup(where: str, value: Any, epochs: Any) -> EpochValue:
    number = _number(value, f"{where}.value")
    length = _epoch_count(epochs, f"{where}.epochs")
    return lambda epoch: number * min(max(epoch, 0) / length, 1.0)


def _steps(where: str, values: Any, epochs: Any) -> EpochValue:
    if not isinstance(values, list) or not isinstance(epochs, list) or len(values) != len(epochs) + 1:
        raise ConfigError("Steps expects lists, `values` with one entry more than `epochs`", path=where)
    numbers = [_number(v, f"{where}.values.{i}") for i, v in enumerate(values)]
    ends = [_epoch_count(e, f"{where}.epochs.{i}") for i, e in enumerate(epochs)]
    if sorted(set(ends)) != ends:
        raise ConfigError(f"got {ends}, expected rising numbers", path=f"{where}.epochs")
    return lambda epoch: numbers[sum(epoch > end for end in ends)]


def _cosine_decay(where: str, value: Any, start: Any, epochs: Any) -> EpochValue:
    number = _number(value, f"{where}.value")
    first = _epoch_count(start, f"{where}.start")
    last = _epoch_count(epochs, f"{where}.epochs")
    if last <= first:
        raise ConfigError(f"got {last}, expected more than `start`, {first}", path=f"{where}.epochs")

    def at(epoch: int) -> float:
        progress = min(max(epoch - first, 0) / (last - first), 1.0)
        return number * (1 + math.cos(math.pi * progress)) / 2

    return at


_KINDS: dict[str, Callable[..., EpochValue]] = {
    "Constant": _constant,
    "LinearWarmup": _linear_warmup,
    "Steps": _steps,
    "CosineDecay": _cosine_decay,
}


def epoch_value(node: Any, where: str) -> EpochValue:
    """Read a number or one of four schedules.

    - ``0.9``
    - ``{name: Constant, value: 0.9}``
    - ``{name: LinearWarmup, value: 1.0, epochs: 20}``: ``value * min(epoch / 20, 1)``
    - ``{name: Steps, values: [0.9, 0.5, 0.1], epochs: [60, 80]}``: 0.9 in epochs 1..60, 0.5 in 61..80, 0.1 on
    - ``{name: CosineDecay, value: 1.0, start: 150, epochs: 240}``: 1.0 up to epoch 150, 0 in epoch 240, and
      half a cosine between them

    Raises:
        ConfigError: if the node is none of these; the message begins with `where`.
    """
    if not isinstance(node, Mapping):
        number = _number(node, where)
        return lambda epoch: number
    options = dict(node)
    name = str(options.pop("name", None))
    if name not in _KINDS:
        near = hint(name, _KINDS)
        raise ConfigError(
            f"unknown schedule {name!r}, expected {', '.join(_KINDS)}.{near}", path=f"{where}.name"
        )
    build = partial(_KINDS[name], where)
    return build(**bound_options(name, parameters_of(build), options, (where, where)))
