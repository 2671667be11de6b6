"""Going on where a run stopped: finding its checkpoint, and putting a new run where it stood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ppcls.distributed import gather, is_main, rank, wait_for_main, world_size
from ppcls.engine.amp import restore_scaler
from ppcls.engine.checkpoint import SUFFIXES, Checkpoint, Checkpointer
from ppcls.engine.checkpoint.changes import read_run_config
from ppcls.engine.checkpoint.states import Progress
from ppcls.engine.hooks.ema import ModelEMA
from ppcls.engine.run import Run
from ppcls.errors import WeightsError
from ppcls.logger import LOGGER
from ppcls.metric import Criterion
from ppcls.optimizer.joint import restore_schedule
from ppcls.optimizer.state import load_structured_state
from ppcls.weights import load_into
from ppcls.weights.renames import in_present_names

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


def restore(run: Run, resumed: Checkpoint, ema: ModelEMA | None) -> None:
    """Put a run where the checkpoint stood.

    Args:
        run: as it was built, before its first step.
        resumed: the checkpoint.
        ema: the averaged weights of `run`, if it has any.

    Raises:
        WeightsError: if the checkpoint is of another network, loss or optimizer.
    """
    where = str(resumed.where)
    load_into(run.model, resumed.params, where=f"{where}.pdparams", allow_missing_head=False)
    loss_state = {n[5:]: v for n, v in resumed.optimizer.items() if n.startswith("loss.") and "@" not in n}
    if loss_state:
        load_into(run.loss, loss_state, where=f"{where}.pdopt", allow_missing_head=False)
    slots = {name: value for name, value in resumed.optimizer.items() if "@" in name}
    slots = in_present_names(run.model, slots, f"{where}.pdopt")
    layers = {"network": run.model, "loss": run.loss}
    load_structured_state(run.optimizer, layers, slots, where=f"{where}.pdopt")
    scaler = {n[7:]: v for n, v in resumed.optimizer.items() if n.startswith("scaler.")}
    restore_scaler(run.scaler, scaler)
    run.progress = replace(resumed.progress, finished=False, lists=run.progress.lists)
    restore_schedule(run.schedule, resumed.progress.schedule, f"{where}.pdstates")
    states = resumed.progress.meters
    if len(states) == world_size():
        run.meters.restore(states[rank()])
    elif states:
        LOGGER.warning(
            "%s was written by %d processes, this run has %d: it goes on, but not bit by bit",
            where,
            len(states),
            world_size(),
        )
    if ema is not None:
        averages = in_present_names(run.model, resumed.ema or resumed.params, f"{where}.pdema")
        ema.restore(averages, f"{where}.pdema")
    LOGGER.info(
        "resumed %s: epoch %d of %d, %d batches of it done, step %d",
        where,
        run.progress.epoch,
        run.epochs,
        run.progress.batch,
        run.progress.step,
    )


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
        progress.best, progress.students = {}, {}
        progress.best_score = progress.best_ema_score = progress.best_epoch = None
        progress.judged_epoch, progress.judged_score, progress.waited = None, None, 0
    progress.best_by = best_by
