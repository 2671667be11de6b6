"""What every entry of the section ``Optimizer`` and every learning-rate schedule has."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import paddle
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler

from ppcls.contracts import Component

NamedParameters = list[tuple[str, paddle.Tensor]]


class OptimizerFactory(Component):
    """Base class of optimizers: the options of an entry of ``Optimizer``, and what is built from them.

    `ppcls.optimizer.optimizers.OptimizerSettings` has the options that ours share.

    Attributes:
        lr: the node of its learning-rate schedule, ``{name: Cosine, learning_rate: 0.1}``.
        scope: what it trains where there are several optimizers, see `ppcls.optimizer.joint`.
    """

    lr: dict[str, Any]
    scope: str | list[str] = "all"

    @abstractmethod
    def build(self, schedule: LRScheduler, parameters: NamedParameters) -> Optimizer:
        """Return the Paddle optimizer.

        Args:
            schedule: its learning rate.
            parameters: what it trains, with names.
        """


class ScheduleFactory(Component):
    """Base class of learning-rate schedules: the options of ``Optimizer.lr``, and what is built from them.

    `ppcls.optimizer.schedule.Schedule` has the warm-up that ours share.

    Attributes:
        by_epoch: whether the scheduler steps once in an epoch rather than after every optimizer step.
        needs_metric: whether its ``step(metric)`` is called too, after each evaluation.
    """

    by_epoch: bool = False
    needs_metric: bool = False

    @abstractmethod
    def build(self, epochs: int, steps_per_epoch: int) -> LRScheduler:
        """Return the Paddle scheduler of a run of `epochs` times `steps_per_epoch` optimizer steps.

        It must be a function of the steps it has made, or keep what else it needs in its ``state_dict``, or
        a resumed run would not continue as it was.
        """
