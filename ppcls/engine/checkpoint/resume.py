"""Resuming a run: from which checkpoint, whether anything is left to do, and what is kept of its log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.distributed import gather, is_main, wait_for_main
from ppcls.engine.checkpoint import SUFFIXES, Checkpoint, Checkpointer
from ppcls.engine.checkpoint.changes import read_run_config
from ppcls.engine.checkpoint.states import Progress
from ppcls.errors import WeightsError
from ppcls.logger import LOGGER
from ppcls.metric import Criterion

AUTO = "auto"


def find_checkpoint(asked: str | None, folder: Path) -> Checkpoint | None:
    """Read the checkpoint to resume from.

    Args:
        asked: ``Global.checkpoints``: ``<folder>/<tag>``, with or without a suffix, or ``auto`` for the
            newest valid one of `folder`.
        folder: where this run writes.

    Returns:
        None if nothing was asked for, or ``auto`` found nothing.

    Raises:
        WeightsError: if the checkpoint asked for is missing or damaged.
    """
    if not asked:
        return None
    if asked == AUTO:
        path = _newest_valid(folder) if is_main() else None
        wait_for_main()  # reading large files may outlast the patience of a collective
        path = gather(path)[0]
        if path is None:
            return None
    else:
        path = Path(asked)
        if path.suffix in SUFFIXES:
            path = path.with_suffix("")
    return Checkpointer(path.parent).load(path.name)


def _newest_valid(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files are whole; name those that are not."""
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


def is_finished(resumed: Checkpoint, epochs: int) -> bool:
    """Tell whether there is nothing left to train; a finished run goes on when it is given more epochs."""
    progress = resumed.progress
    if progress.epoch > epochs:
        return True
    settings = (read_run_config(resumed.where.parent) or {}).get("Global")
    before = settings.get("epochs") if isinstance(settings, dict) else None
    # Without the config of the run nobody knows whether more epochs are asked for: none may be left out.
    return progress.finished and isinstance(before, int) and before >= epochs


def is_kept(row: Mapping[str, Any], start: Progress) -> bool:
    """Tell whether a row of ``metrics.jsonl`` stays when a run is resumed where it stood at `start`.

    Rows of earlier steps stay. What came after `start` was lost with the run, and the resumed run writes it
    again. Of the rows of that very step the line of training stays, because it was written before the
    checkpoint. An evaluation stays too, unless the run stopped between the last step of an epoch and the
    evaluation (batches of the epoch are still counted): then the evaluation is repeated. If no step was
    done, everything begins again.

    Args:
        row: one row, with its ``kind`` and ``step``.
        start: position of the checkpoint.
    """
    if row["step"] != start.step or start.step == 0:
        return bool(row["step"] < start.step)
    evaluation_is_repeated = start.batch > 0
    return not (row["kind"] == "eval" and evaluation_is_repeated)


def compare_by(progress: Progress, criterion: Criterion, network: str) -> None:
    """Note what chooses the best evaluation; forget a best one that another value or network chose.

    Args:
        progress: of a run that begins or was just restored.
        criterion: what evaluations are compared by from now on.
        network: the network to deploy.
    """
    best_by = f"{criterion.name} of {network}"
    known = criterion.name in progress.best and criterion.score(progress.best) == progress.best_score
    if progress.best_score is not None and (progress.best_by != best_by if progress.best_by else not known):
        LOGGER.warning(
            "the best evaluation so far was chosen by %s, from now on it is chosen by %s: the search for the "
            "best begins again, and best_model will be written anew",
            progress.best_by or "another value",
            best_by,
        )
        progress.best = {}
        progress.students = {}
        progress.best_score = progress.best_ema_score = progress.best_epoch = None
        progress.judged_epoch = None
        progress.judged_score = None
        progress.waited = 0
    progress.best_by = best_by
