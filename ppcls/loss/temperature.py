"""A temperature that is learned against the student, harder from epoch to epoch (CTKD)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.config.binding import bound_options, parameters_of
from ppcls.errors import ConfigError
from ppcls.loss.weight_schedule import epoch_value

LEARNABLE = "Learnable"


class LearnableTemperature(nn.Layer):
    """Li et al., "Curriculum temperature for knowledge distillation" (AAAI 2023, arXiv 2211.16231).

    The temperature common to all images (the paper's Global-T): ``T = lowest + range * sigmoid(p)`` with a
    learned number p that starts at 1. Its gradient is reversed and multiplied by lambda, so p follows what
    increases the loss. Lambda rises from 0 to `strength` in the first `epochs` epochs along half a cosine:
    the student first meets an almost constant temperature.

    Args:
        lowest: lowest temperature, above 0.
        range: highest temperature minus the lowest, above 0.
        strength: lambda after the first `epochs` epochs, at least 0.
        epochs: after how many epochs lambda is full.

    Raises:
        ConfigError: for an option outside its range.
    """

    def __init__(
        self,
        *,
        lowest: float = 1.0,
        range: float = 20.0,  # noqa: A002 - an option of recipes
        strength: float = 1.0,
        epochs: int = 10,
    ) -> None:
        super().__init__()
        for name, value, fits, expected in (
            ("lowest", lowest, lowest > 0, "a number above 0"),
            ("range", range, range > 0, "a number above 0"),
            ("strength", strength, strength >= 0, "a number of at least 0"),
            ("epochs", epochs, epochs >= 1, "a whole number of epochs, 1 or more"),
        ):
            if not (fits and math.isfinite(value)):
                raise ConfigError(f"got {value}, expected {expected}", path=name)
        self.lowest, self.range, self.strength, self.epochs = lowest, range, strength, epochs
        self.position = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
        self.set_epoch(1)

    def set_epoch(self, epoch: int) -> None:
        """Set lambda to its value at `epoch`, counted from 1."""
        progress = min(epoch, self.epochs) / self.epochs
        self.reversal = self.strength * (1 - math.cos(math.pi * progress)) / 2

    def forward(self) -> Tensor:
        """Return the temperature, a scalar whose gradient is reversed on its way to the parameter."""
        own = self.position.reshape([])
        reversed_ = own.detach() * (1 + self.reversal) - own * self.reversal  # the value of `own`
        return self.lowest + self.range * F.sigmoid(reversed_)


def is_learnable(node: Any) -> bool:
    """Tell whether an option asks for a learned temperature."""
    return isinstance(node, Mapping) and node.get("name") == LEARNABLE


def learnable_temperature(node: Mapping[str, Any], where: str) -> LearnableTemperature:
    """Build a learned temperature from ``{name: Learnable, lowest: 1, range: 20, strength: 1, epochs: 10}``.

    Raises:
        ConfigError: for an unknown option, or one of another type or outside its range.
    """
    options = {key: value for key, value in node.items() if key != "name"}
    given = bound_options(LEARNABLE, parameters_of(LearnableTemperature), options, (where, where))
    try:
        return LearnableTemperature(**given)
    except ConfigError as error:
        raise error.below(where) from error


def check_schedule(node: Any, where: str) -> None:
    """Check that a number or schedule is above 0 in every epoch.

    Raises:
        ConfigError: naming the first epoch in which it is not.
    """
    value = epoch_value(node, where)
    turns = {1} | {number + after for number in _whole_numbers(node) for after in (0, 1) if number > 0}
    for epoch in sorted(turns):  # a schedule has its lowest values where it begins, ends or makes a step
        if not value(epoch) > 0:
            raise ConfigError(f"is {value(epoch):g} in epoch {epoch}, expected numbers above 0", path=where)


def _whole_numbers(node: Any) -> list[int]:
    if isinstance(node, Mapping):
        return [number for part in node.values() for number in _whole_numbers(part)]
    if isinstance(node, list):
        return [number for part in node for number in _whole_numbers(part)]
    return [node] if isinstance(node, int) and not isinstance(node, bool) else []
