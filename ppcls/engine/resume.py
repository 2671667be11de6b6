"""Going on where a run stopped: finding its checkpoint, and putting a new run where it stood."""

from __future__ import annotations

from pathlib import Path

from ppcls.distributed import is_main, rank, wait_for_main, world_size
from ppcls.engine.checkpoint import Checkpoint, Checkpointer
from ppcls.engine.ema import ModelEMA
from ppcls.engine.train import Run
from ppcls.logger import LOGGER
from ppcls.optimizer.state import load_structured_state
from ppcls.weights import load_into


def read_checkpoint(asked: str | None) -> Checkpoint | None:
    """Read the checkpoint ``Global.checkpoints`` names: ``<folder>/<tag>``, with or without a suffix."""
    if not asked:
        return None
    path = Path(asked)
    if path.suffix in {".pdparams", ".pdopt", ".pdstates"}:
        path = path.with_suffix("")
    checkpointer = Checkpointer(path.parent)
    if is_main() and path.parent.is_dir():
        checkpointer.recover(path.name)  # by one process; load() finds nothing left to do
    wait_for_main()
    return checkpointer.load(path.name)


def restore(run: Run, resumed: Checkpoint, ema: ModelEMA | None, where: str) -> None:
    """Put a run where the checkpoint stood.

    Args:
        run: as it was built, before its first step.
        resumed: the checkpoint.
        ema: the averaged weights of `run`, if it has any.
        where: path of the checkpoint without suffix, for messages.

    Raises:
        WeightsError: if the checkpoint is of another network, loss or optimizer.
    """
    load_into(run.model, resumed.params, where=f"{where}.pdparams", allow_missing_head=False)
    loss_state = {n[5:]: v for n, v in resumed.optimizer.items() if n.startswith("loss.") and "@" not in n}
    if loss_state:
        load_into(run.loss, loss_state, where=f"{where}.pdopt", allow_missing_head=False)
    slots = {name: value for name, value in resumed.optimizer.items() if "@" in name}
    layers = {"network": run.model, "loss": run.loss}
    load_structured_state(run.optimizer, layers, slots, where=f"{where}.pdopt")
    scaler = {n[7:]: v for n, v in resumed.optimizer.items() if n.startswith("scaler.")}
    if scaler:
        run.scaler.load_state_dict(scaler)
    run.progress = resumed.progress
    run.schedule.set_state_dict(resumed.progress.schedule)
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
        ema.restore(resumed.ema or resumed.params, f"{where}.pdema")
    LOGGER.info(
        "resumed %s: epoch %d of %d, %d batches of it done, step %d",
        where,
        run.progress.epoch,
        run.epochs,
        run.progress.batch,
        run.progress.step,
    )
