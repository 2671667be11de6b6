"""The hook that ends a run that no longer improves."""

from __future__ import annotations

import math

from ppcls.engine.hooks.base import Hook
from ppcls.engine.run import Run
from ppcls.logger import LOGGER
from ppcls.metric import Criterion
from ppcls.run_states import split_averages


class EarlyStopping(Hook):
    """End the run when evaluations no longer improve.

    Its state is part of ``run.progress``, and each epoch is judged once, so a resumed run ends at the same
    epoch as an uninterrupted one. It is called before the hook that saves.

    Args:
        patience: number of consecutive evaluations without improvement after which the run ends.
        min_delta: smallest increase of the score that counts as an improvement.
        criterion: the value by which evaluations are compared. With averaged weights the better one is used.
    """

    def __init__(self, patience: int, min_delta: float, criterion: Criterion) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.criterion = criterion

    def after_eval(self, run: Run, metrics: dict[str, float]) -> None:
        """Judge an evaluation."""
        progress = run.progress
        if progress.judged_epoch != progress.epoch:  # otherwise it was resumed between evaluation and save
            score = max(self.criterion.score(own) for own in split_averages(metrics) if own)
            progress.judged_epoch = progress.epoch
            mark = -math.inf if progress.judged_score is None else progress.judged_score + self.min_delta
            if score > mark:
                progress.judged_score = score
                progress.waited = 0
            else:
                progress.waited += 1
        if progress.waited >= self.patience:
            run.ending = True
            LOGGER.info(
                "early stopping: no evaluation of the last %d was better than %s%s; the run ends after "
                "epoch %d of %d",
                progress.waited,
                self.criterion.shown(progress.judged_score),
                f" by more than {self.min_delta:g}" if self.min_delta else "",
                progress.epoch,
                run.settings.epochs,
            )
