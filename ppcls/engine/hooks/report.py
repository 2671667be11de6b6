"""The hook that ends a run with a summary and a page."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ppcls.config import Recipe
from ppcls.distributed import is_main, wait_for_main
from ppcls.engine.evaluation.collected import AnswerCollector
from ppcls.engine.evaluation.measures import is_better
from ppcls.engine.hooks.base import Hook
from ppcls.engine.run import Run
from ppcls.engine.run_facts import write_facts
from ppcls.errors import PpclsError
from ppcls.logger import LOGGER, ShortLine, log_values
from ppcls.metric import Criterion
from ppcls.report import write_report
from ppcls.report.answers import FILES, Answers, read_answers, write_answers
from ppcls.report.record import read_record
from ppcls.report.summary import render_summary
from ppcls.run_states import split_averages


class ReportHook(Hook):
    """Keep the answers of the best evaluation, and write summary and page after the last epoch.

    It is called before the hook that saves, because it compares an evaluation with the best one before it. A
    failure is logged: a run does not depend on its report.

    Args:
        config: the recipe.
        shape: [C, H, W] of the images.
        criterion: the value by which evaluations are compared.
        collector: has the answers of the last evaluation; None if they are not kept.
    """

    def __init__(
        self, config: Recipe, shape: Sequence[int], criterion: Criterion, collector: AnswerCollector | None
    ) -> None:
        self.config = config
        self.shape = list(shape)
        self.criterion = criterion
        self.collector = collector

    def after_eval(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Keep the answers of an evaluation that is better than all before."""
        if self.collector is None:
            return
        own, averaged = split_averages(metrics)
        best = {False: run.progress.best_score, True: run.progress.best_ema_score}
        for is_averaged, values in ((False, own), (True, averaged)):
            if not values or not is_better(self.criterion.score(values), best[is_averaged]):
                continue
            answers = self.collector.gathered(averaged=is_averaged, epoch=run.progress.epoch)
            if answers is not None and is_main():
                path = run.settings.folder / FILES[is_averaged]
                with logging_failures(f"{path} was not written"):
                    write_answers(path, answers)

    def after_train(self, run: Run) -> None:
        """Write the page, and log the summary."""
        if is_main():
            folder = run.settings.folder
            if self.config.Global.report:
                with logging_failures("report.json was not written"):
                    write_facts(run, self.config, self.shape, _best_answers(run))
                with logging_failures("report.html was not written"):
                    write_report(folder)
            with logging_failures("no summary"):
                _log_summary(folder)
        wait_for_main()


def _best_answers(run: Run) -> Answers | None:
    """Return the answers of the better one of the weights and their averages."""
    return read_answers(run.settings.folder / FILES[run.progress.averages_are_better])


def _log_summary(folder: Path) -> None:
    for line in render_summary(read_record(folder)).splitlines():
        log_values("%s", line, short=ShortLine(line, []))


class logging_failures:  # noqa: N801 - a context manager, named as a function would be
    """Log whatever fails in a ``with`` block of work without which a run is complete.

    Args:
        what: the beginning of the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        log = partial(LOGGER.warning, "%s: %s; the run itself is complete", self._what, error or kind)
        if isinstance(error, PpclsError | OSError):
            log()
        else:
            log(exc_info=error)
        return True
