"""Frozen networks that run beside the training: whether they do, and with how many threads."""

from __future__ import annotations

from contextlib import ExitStack

from ppcls.config import Recipe
from ppcls.cpu.threads import threads_for_teachers, threads_in_use
from ppcls.engine.checkpoint import Checkpoint
from ppcls.engine.evaluation.evaluate import evaluating
from ppcls.engine.run import Run
from ppcls.engine.speed import compute_with, keeps_threads, on_cpu, thread_count_text
from ppcls.errors import PpclsError
from ppcls.logger import LOGGER
from ppcls.random_numbers import random_state, set_random_state
from ppcls.teacher import Lookahead, trained_networks
from ppcls.teacher.cost import pays_beside

# seconds: what starting a process costs, times two because the gain is only an estimate
_WORTH = 10.0
_GAINED = 0.5  # share of the time of a program that is saved by running it beside the training


def begin_lookahead(run: Run, config: Recipe, resumed: Checkpoint | None) -> None:
    """Let frozen networks run beside the training, if there is a core for them; note the threads of both.

    A resumed run keeps its threads, because results depend on them, even if no network is left that could run
    beside it, for example because a store has become complete.

    Args:
        run: a run whose first batch was tried, so that engines are chosen.
        config: the recipe.
        resumed: the checkpoint to resume.
    """
    total = threads_in_use()
    progress = run.progress
    kept = resumed is not None and keeps_threads(resumed)
    reserved = progress.teacher_threads if kept else threads_for_teachers(total)
    progress.threads = total
    progress.teacher_threads = 0
    if not 0 < reserved < total or not config.Global.teacher_ahead or not on_cpu():
        return
    if kept:
        progress.threads = total - reserved
        compute_with(progress.threads)
    answers = list(run.parts.answers.values())
    stored = run.parts.stored
    seconds = [answer.seconds_ahead() for answer in answers]
    if not any(seconds) or (stored is not None and stored.complete):
        return
    if not kept:
        whole = sum(answer.images * each for answer, each in zip(answers, seconds, strict=True))
        if _GAINED * whole < _WORTH:
            LOGGER.debug("frozen networks do not run beside the training: it would save less than it costs")
            return
        if not config.Global.to_static and not _take_enough(run, sum(seconds)):
            LOGGER.debug("frozen networks do not run beside the training: they are small beside what trains")
            return
    lookahead = Lookahead(reserved)
    with ExitStack() as undo:
        undo.callback(lookahead.close)
        try:
            opened = [answer.look_ahead(lookahead) for answer in answers]
        except (OSError, PpclsError) as error:
            LOGGER.warning("frozen networks do not run beside the training: %s", error)
            return
        undo.pop_all()
    for use in opened:  # only when all could be opened
        use()
    run.parts.lookahead = lookahead
    progress.threads = total - reserved
    progress.teacher_threads = reserved
    compute_with(progress.threads)
    LOGGER.info(
        "%s runs beside the training, one batch ahead, with %s; the training has %s",
        ", ".join(name for name, found in zip(run.parts.answers, seconds, strict=True) if found),
        thread_count_text(reserved),
        thread_count_text(progress.threads),
    )


def _take_enough(run: Run, teachers: float) -> bool:
    """Tell whether teachers that take so many seconds for an image take enough work from the training."""
    shape = next(answer.shape_ahead for answer in run.parts.answers.values() if answer.shape_ahead)
    students = list(trained_networks(run.parts.model))
    drawn = random_state()
    try:
        with evaluating(*students):
            return pays_beside(teachers, students, shape)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # a plug-in that refuses one image
        LOGGER.debug("the work of the networks that train is not known: %s", error)
        return True
    finally:
        set_random_state(drawn)  # a plug-in may draw in eval mode
