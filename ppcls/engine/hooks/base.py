"""What every hook can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ppcls.data import Batch

if TYPE_CHECKING:
    from ppcls.engine.run import Run


class Hook:
    """Something that happens around the loop. Methods are called in the order of ``Run.hooks``."""

    def before_start(self, run: Run) -> None:
        """Called once, before the run touches its folder: the place for what may fail. Nothing is written."""

    def before_train(self, run: Run) -> None:
        """Called once, before the first step."""

    def after_step(self, run: Run, batch: Batch) -> None:
        """Called after every optimizer step; ``run.progress`` already counts it."""

    def after_eval(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Called with the averages of an evaluation, before ``after_epoch`` of that epoch."""

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Called when `epoch` is over; ``run.progress`` already stands at the start of the next one."""

    def after_train(self, run: Run) -> None:
        """Called once, after the last epoch."""
