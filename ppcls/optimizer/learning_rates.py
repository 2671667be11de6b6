"""Learning-rate schedules: settings as written in YAML, and the Paddle schedulers made from them.

Every schedule except ReduceOnPlateau depends only on the number of steps, so a resumed run continues exactly
and rounding errors do not add up. All schedules have the same warm-up: linear from ``warmup_start_lr`` to the
first value of the schedule, which is reached after ``warmup_epoch`` epochs. Epochs of the schedule are
counted from the end of the warm-up: ``decay_epochs: [30]`` with ``warmup_epoch: 5`` takes effect at epoch 35.

The rate changes at every step (``by_epoch: False``) or once per epoch (``by_epoch: True``). In the second
case the whole first epoch of a warm-up trains with ``warmup_start_lr``.
"""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from paddle.optimizer.lr import LRScheduler

from ppcls.errors import ConfigError
from ppcls.optimizer.base import ScheduleFactory
from ppcls.registry import SCHEDULES

LOGGER = logging.getLogger("ppcls")


class ClosedForm(LRScheduler):
    """A scheduler whose learning rate is the function `curve` of the number of steps (or epochs) so far."""

    def __init__(self, curve: Callable[[int], float]) -> None:
        self.curve = curve
        super().__init__(self._rate(0))

    def get_lr(self) -> float:
        """Return the learning rate of the current position."""
        return self._rate(self.last_epoch)

    def _rate(self, position: int) -> float:
        rate = self.curve(position)
        try:
            return float(rate)  # a curve may count with NumPy, whose numbers Paddle refuses
        except (TypeError, ValueError):
            raise ConfigError(
                f"expected a number as the learning rate of position {position}, got {rate!r}",
                path="Optimizer.lr",
            ) from None

    def set_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position; the rate is computed from it."""
        super().set_state_dict(state_dict)
        self.last_lr = self.get_lr()


@dataclass(frozen=True, kw_only=True)
class Schedule(ScheduleFactory):
    """Settings of all schedules.

    Attributes:
        warmup_epoch: epochs of warm-up; limited, with a warning, to the epochs of the run.
        warmup_start_lr: learning rate of the first step of the warm-up.
        by_epoch: change the rate once per epoch instead of at every step.
        step_each_epoch: accepted because PaddleClas recipes have it; the real number of batches is used
            instead.
    """

    warmup_epoch: float = 0
    warmup_start_lr: float = 0.0
    by_epoch: bool = False
    step_each_epoch: int | None = None

    def __post_init__(self) -> None:
        require_amount("warmup_epoch", self.warmup_epoch)
        whole = not self.by_epoch or float(self.warmup_epoch).is_integer()
        require(whole, "warmup_epoch", self.warmup_epoch, "a whole number of epochs, because by_epoch is set")
        start = self.warmup_start_lr
        if self.warmup_epoch:
            require(0 <= start <= self.peak(), "warmup_start_lr", start, f"0 to {self.peak()}, its end")

    @abstractmethod
    def peak(self) -> float:
        """Return the learning rate at the end of the warm-up."""

    @abstractmethod
    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the learning rate as a function of the steps since the end of the warm-up.

        Args:
            unit: steps per epoch; 1 for a schedule by epoch.
            epochs: epochs left after the warm-up.
        """

    def build(self, epochs: int, steps_per_epoch: int) -> LRScheduler:
        """Return the scheduler for a run of `epochs` times `steps_per_epoch` steps."""
        warmup = self._warmup_epochs(epochs)
        unit = 1 if self.by_epoch else steps_per_epoch
        after = self.curve(unit, epochs - warmup)
        return ClosedForm(self._warmed_up(after, round(warmup * unit)))

    def _warmed_up(self, after: Callable[[int], float], steps: int) -> Callable[[int], float]:
        start = self.warmup_start_lr
        peak = self.peak()
        return lambda t: after(t - steps) if t >= steps else start + (peak - start) * t / steps

    def _warmup_epochs(self, epochs: int) -> float:
        if self.warmup_epoch > epochs:
            LOGGER.warning(
                "Optimizer.lr.warmup_epoch: %s exceeds the run (Global.epochs: %s): all of it is warm-up",
                self.warmup_epoch,
                epochs,
            )
        if self.warmup_start_lr and not self.warmup_epoch:
            LOGGER.warning("Optimizer.lr.warmup_start_lr: no effect, because warmup_epoch is 0")
        return min(self.warmup_epoch, epochs)


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise ConfigError about the option `key` if `holds` is false."""
    if not holds:
        raise ConfigError(f"{key}: {value!r}, expected {expected}")


def require_amount(key: str, value: Any, *, above_zero: bool = False) -> None:
    """Raise ConfigError if the option `key` is no finite number of 0 or more, or above 0."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    fits = number and (value > 0 if above_zero else value >= 0)
    require(fits, key, value, f"a finite number {'above 0' if above_zero else 'of 0 or more'}")


@dataclass(frozen=True, kw_only=True)
class _WithRate(Schedule):
    """A schedule that starts from one learning rate.

    Attributes:
        learning_rate: the rate at the end of the warm-up, 0 or more.
    """

    learning_rate: float

    def __post_init__(self) -> None:
        require_amount("learning_rate", self.learning_rate)
        super().__post_init__()

    def peak(self) -> float:
        return self.learning_rate


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class ConstLR(_WithRate):
    """A constant learning rate."""

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the constant function."""
        return lambda t: self.learning_rate


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class Linear(_WithRate):
    """From `learning_rate` to `end_lr`: ``end + (lr - end) * (1 - t / T) ** power``.

    Attributes:
        end_lr: the rate at the end of the run.
        power: 1 is a straight line; larger values fall faster at first.
    """

    end_lr: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        require_amount("end_lr", self.end_lr)
        require_amount("power", self.power, above_zero=True)
        super().__post_init__()

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the polynomial decay over all steps after the warm-up."""
        drop = self.learning_rate - self.end_lr
        left = _left(unit, epochs)
        return lambda t: self.end_lr + drop * left(t) ** self.power


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class Cosine(_WithRate):
    """Half a cosine wave from `learning_rate` to `eta_min` (SGDR, arXiv 1608.03983, eq. 5, no restart).

    Attributes:
        eta_min: the rate at the end of the run.
    """

    eta_min: float = 0.0

    def __post_init__(self) -> None:
        require_amount("eta_min", self.eta_min)
        super().__post_init__()

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the cosine over all steps after the warm-up."""
        drop = self.learning_rate - self.eta_min
        left = _left(unit, epochs)
        return lambda t: self.eta_min + drop * (1 - math.cos(math.pi * left(t))) / 2


def _left(unit: int, epochs: float) -> Callable[[int], float]:
    """Return the remaining share of the steps after the warm-up, as a function of the step."""
    total = epochs * unit
    return lambda t: max(1 - t / total, 0.0) if total > 0 else 1.0


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class Step(_WithRate):
    """Multiply by `gamma` every `step_size` epochs.

    Attributes:
        step_size: number of epochs; 2.4, for example, is rounded to whole steps.
        gamma: the factor, above 0 and at most 1.
    """

    step_size: float
    gamma: float = 0.1

    def __post_init__(self) -> None:
        require_amount("step_size", self.step_size, above_zero=True)
        whole = not self.by_epoch or float(self.step_size).is_integer()
        require(whole, "step_size", self.step_size, "a whole number of epochs, because by_epoch is set")
        require(0 < self.gamma <= 1, "gamma", self.gamma, "a factor above 0, at most 1")
        super().__post_init__()

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the step function."""
        steps = max(round(self.step_size * unit), 1)
        return lambda t: self.learning_rate * self.gamma ** (t // steps)


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class MultiStepDecay(_WithRate):
    """Multiply by `gamma` at each epoch of `milestones`.

    Attributes:
        milestones: rising numbers of epochs, counted from the end of the warm-up.
        gamma: the factor, above 0 and at most 1.
    """

    milestones: list[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _require_rising("milestones", self.milestones)
        require(0 < self.gamma <= 1, "gamma", self.gamma, "a factor above 0, at most 1")
        super().__post_init__()

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the step function."""
        return lambda t: self.learning_rate * self.gamma ** sum(t >= m * unit for m in self.milestones)


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """`values[i]` until epoch `decay_epochs[i]`, and the last value after that.

    Attributes:
        decay_epochs: rising numbers of epochs, counted from the end of the warm-up.
        values: the rates, one more than there are `decay_epochs`.
        learning_rate: the rates are all in `values`; PaddleClas recipes repeat the first one here.
    """

    decay_epochs: list[int]
    values: list[float]
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        _require_rising("decay_epochs", self.decay_epochs)
        expected = f"{len(self.decay_epochs) + 1} values, one more than decay_epochs"
        require(len(self.values) == len(self.decay_epochs) + 1, "values", self.values, expected)
        for value in self.values:
            require_amount("values", value)
        rate = self.learning_rate
        first = self.values[0]
        advice = f"nothing here, the rates are in `values` ({first}, ...)"
        require(rate in (None, first), "learning_rate", rate, advice)
        super().__post_init__()

    def peak(self) -> float:
        """Return the first value."""
        return self.values[0]

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the step function."""
        return lambda t: self.values[sum(t >= e * unit for e in self.decay_epochs)]


def _require_rising(key: str, epochs: list[int]) -> None:
    rising = all(a < b for a, b in zip(epochs, epochs[1:], strict=False))
    require(rising and min(epochs, default=1) > 0, key, epochs, "epochs above 0 in rising order")


@SCHEDULES.register()
@dataclass(frozen=True, kw_only=True)
class ReduceOnPlateau(_WithRate):
    """Multiply by `factor` when the evaluated metric has not improved for more than `patience` reports.

    ``schedule.step()`` counts a step of the warm-up, ``schedule.step(metric)`` reports an evaluation.
    A metric reported during the warm-up only sets the value to improve on.

    Attributes:
        factor: the factor on the rate, below 1.
        mode: ``max`` for a metric that should grow, such as accuracy, ``min`` for a loss.
        patience: reports without improvement that are tolerated.
        threshold: the smallest improvement that counts.
        threshold_mode: whether the threshold is relative to the best value (``rel``) or absolute (``abs``).
        cooldown: number of reports to ignore after a reduction.
        min_lr: the rate is never reduced below it.
        epsilon: a reduction smaller than this is not made.
    """

    factor: float = 0.1
    mode: Literal["min", "max"] = "max"
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    epsilon: float = 1e-8
    needs_metric = True

    def __post_init__(self) -> None:
        require(0 < self.factor < 1, "factor", self.factor, "a factor between 0 and 1")
        require(self.mode in ("min", "max"), "mode", self.mode, "min or max")
        require(self.threshold_mode in ("rel", "abs"), "threshold_mode", self.threshold_mode, "rel or abs")
        for key in ("patience", "threshold", "cooldown", "min_lr", "epsilon"):
            require_amount(key, getattr(self, key))
        super().__post_init__()

    def curve(self, unit: int, epochs: float) -> Callable[[int], float]:
        """Return the constant function: the rate without a reduction."""
        return lambda t: self.learning_rate

    def build(self, epochs: int, steps_per_epoch: int) -> LRScheduler:
        """Return the scheduler; see :meth:`Schedule.build`."""
        warmup = self._warmup_epochs(epochs)
        return Plateau(self, round(warmup * (1 if self.by_epoch else steps_per_epoch)))

    def better(self, metric: float, best: float) -> bool:
        """Tell whether `metric` is better than `best` by more than the threshold."""
        margin = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
        return metric > best + margin if self.mode == "max" else metric < best - margin


class Plateau(LRScheduler):
    """The scheduler of :class:`ReduceOnPlateau`; the only one with a state besides its position."""

    def __init__(self, settings: ReduceOnPlateau, warmup_steps: int) -> None:
        self.settings = settings
        self.warmup_steps = warmup_steps
        self.rate = settings.learning_rate
        self.best: float | None = None
        self.bad_reports = 0
        self.cooldown_left = 0
        super().__init__(settings.learning_rate)

    def state_keys(self) -> None:
        """Define which attributes Paddle saves."""
        self.keys = ["last_epoch", "last_lr", "rate", "best", "bad_reports", "cooldown_left"]

    def get_lr(self) -> float:
        """Return the learning rate of the current position."""
        start = self.settings.warmup_start_lr
        done = self.last_epoch
        if done >= self.warmup_steps:
            return self.rate
        return start + (self.rate - start) * done / self.warmup_steps

    def step(self, metric: float | None = None) -> None:
        """Count one training step, or use the `metric` of an evaluation."""
        if metric is None:
            self.last_epoch += 1
        else:
            self._observe(float(metric))
        self.last_lr = self.get_lr()

    def _observe(self, metric: float) -> None:
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            return
        if self.best is not None and not math.isfinite(self.best):  # earlier versions kept such a value
            self.best = None
        if math.isfinite(metric) and (self.best is None or self.settings.better(metric, self.best)):
            self.best = metric
            self.bad_reports = 0
        elif self.last_epoch >= self.warmup_steps:
            self.bad_reports += 1
        if self.bad_reports > self.settings.patience:
            self.cooldown_left = self.settings.cooldown
            self.bad_reports = 0
            reduced = max(self.rate * self.settings.factor, self.settings.min_lr)
            if self.rate - reduced > self.settings.epsilon:
                self.rate = reduced
