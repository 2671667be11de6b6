"""Resuming a run: which checkpoint to use, whether anything is left to do, and which log rows to keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.distributed import gather, is_main, wait_for_main
from ppcls.engine.checkpoint import SUFFIXES, Checkpoint, Checkpointer
from ppcls.engine.checkpoint.changes import read_run_config
from ppcls.errors import WeightsError
from ppcls.logger import LOGGER
from ppcls.metric import Criterion
from ppcls.run_states import Progress

AUTO = "auto"


def find_checkpoint(asked: str | None, folder: Path) -> Checkpoint | None:
    """Read the checkpoint to resume from.

    Args:
        asked: ``Global.checkpoints``: ``<folder>/<tag>``, with or without a suffix, or ``auto`` for the
            newest valid one of `folder`.
        folder: folder of this run.

    Returns:
        None without ``Global.checkpoints``, or if ``auto`` finds nothing.

    Raises:
        WeightsError: if the named checkpoint is missing or damaged.
    """
    if not asked:
        return None
    if asked == AUTO:
        path = _newest_valid(folder) if is_main() else None
        wait_for_main()  # reading large files may take longer than the time limit of a collective
        path = gather(path)[0]
        if path is None:
            return None
    else:
        path = Path(asked)
        if path.suffix in SUFFIXES:
            path = path.with_suffix("")
    return Checkpointer(path.parent).load(path.name)


def _newest_valid(folder: Path) -> Path | None:
    """Return the newest checkpoint with complete files; log those that are not complete."""
    checkpointer = Checkpointer(folder)
    for tag in checkpointer.tags():
        try:
            checkpointer.load(tag)
        except WeightsError as error:
            LOGGER.warning("skipped: %s", error)
        else:
            return folder / tag
    LOGGER.info("no checkpoint to resume from in %s: starting from the beginning", folder)
    return None


def is_finished(resumed: Checkpoint, epochs: int, early_stopping: Mapping[str, Any] | None = None) -> bool:
    """Tell whether there is nothing left to train.

    A finished run continues with more epochs, and one that early stopping ended with other rules for it.

    Args:
        resumed: the checkpoint.
        epochs: epochs to train.
        early_stopping: the section ``EarlyStopping`` of now.
    """
    progress = resumed.progress
    if progress.epoch > epochs:
        return True
    recorded = read_run_config(resumed.where.parent) or {}
    settings = recorded.get("Global")
    before = settings.get("epochs") if isinstance(settings, dict) else None
    rules = recorded.get("EarlyStopping")
    if rules and progress.waited and dict(early_stopping or {}) != rules:
        return False
    # Without the config of the run it is unknown whether there are more epochs now, so continue.
    return progress.finished and isinstance(before, int) and before >= epochs


def is_kept(row: Mapping[str, Any], start: Progress) -> bool:
    """Tell whether a row of ``metrics.jsonl`` is kept when a run is resumed at the position `start`.

    Rows of earlier steps are kept. Rows after `start` are dropped, because the resumed run writes them again.
    Of the rows of the step of `start`, the row of training is kept, because it was written before the
    checkpoint. An evaluation is kept too, unless the run stopped between the last step of an epoch and the
    evaluation (batches of the epoch are still counted): then the evaluation is repeated. If no step was
    done, nothing is kept.

    Args:
        row: one row, with its ``kind`` and ``step``.
        start: position of the checkpoint.
    """
    if row["step"] != start.step or start.step == 0:
        return bool(row["step"] < start.step)
    evaluation_is_repeated = start.batch > 0
    return not (row["kind"] == "eval" and evaluation_is_repeated)


def compare_by(progress: Progress, criterion: Criterion, network: str) -> None:
    """Record what chooses the best evaluation; forget a best one that was chosen by another value or network.

    Args:
        progress: progress of a run that begins or was just restored.
        criterion: the value by which evaluations are compared from now on.
        network: the network to deploy.
    """
    best_by = f"{criterion.name} of {network}"
    known = criterion.name in progress.best and criterion.score(progress.best) == progress.best_score
    if progress.best_score is not None and (progress.best_by != best_by if progress.best_by else not known):
        LOGGER.warning(
            "the best evaluation so far was chosen by %s, from now on it is chosen by %s: the search for the "
            "best begins again, and best_model will be written again",
            progress.best_by or "another value",
            best_by,
        )
        progress.best = progress.best_ema = {}
        progress.students = {}
        progress.best_score = progress.best_ema_score = None
        progress.best_epoch = progress.best_ema_epoch = None
        progress.judged_epoch = None
        progress.judged_score = None
        progress.waited = 0
    progress.best_by = best_by
