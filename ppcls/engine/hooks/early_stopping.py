"""The hook that ends a run which no longer gets better."""

from __future__ import annotations

import math

from ppcls.engine.evaluation.measures import split_averages
from ppcls.engine.hooks.base import Hook
from ppcls.engine.run import Run
from ppcls.logger import LOGGER
from ppcls.metric import Criterion


class EarlyStopping(Hook):
    """End the run when evaluations no longer get better.

    Its state is part of ``run.progress``, and each epoch is judged once, so a resumed run ends where an
    uninterrupted one does. Comes before the hook that saves.

    Args:
        patience: evaluations in a row without improvement that end the run.
        min_delta: by how much the score must pass that of the last improvement.
        criterion: what evaluations are compared by. With averaged weights the better of both counts.
    """

    def __init__(self, patience: int, min_delta: float, criterion: Criterion) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.criterion = criterion

    def after_eval(self, run: Run, metrics: dict[str, float]) -> None:
        """Judge an evaluation."""
        progress = run.progress
        if progress.judged_epoch != progress.epoch:  # the same again: resumed between evaluation and save
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
