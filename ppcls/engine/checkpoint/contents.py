"""The content of a checkpoint: get it from a run, and restore it.

- ``.pdparams``: the weights of networks that train, under their own names.
- ``.pdopt``: ``loss.<name>`` for parameters of losses, ``<parameter>@<slot>`` for the state of optimizers and
  ``scaler.<name>`` for that of the loss scaler.
- ``.pdema``: averaged weights.
- ``.pdstates``: the :class:`~ppcls.run_states.Progress`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ppcls.distributed import rank, world_size
from ppcls.engine.amp import in_float32, restore_scaler, scaler_state
from ppcls.engine.build import trainable_state
from ppcls.engine.checkpoint.files import Checkpoint
from ppcls.engine.hooks.base import restore_hooks
from ppcls.engine.run import Parts, Run
from ppcls.logger import LOGGER
from ppcls.optimizer.joint import move_schedule, restore_schedule
from ppcls.optimizer.state import load_structured_state, structured_state
from ppcls.weights import load_into
from ppcls.weights.renames import in_present_names


def tensors_of(parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weights of networks that train, and all other tensors that training changes.

    These are those of losses, optimizer and loss scaler, and the statistics of frozen networks in train mode.
    """
    others = {f"loss.{name}": value for name, value in parts.loss.state_dict().items()}
    others |= structured_state(parts.optimizer, {"network": parts.model, "loss": parts.loss})
    others |= {f"scaler.{name}": value for name, value in scaler_state(parts.scaler).items()}
    others |= {f"frozen.{name}": value for name, value in parts.model.frozen_statistics().items()}
    return in_float32(trainable_state(parts.model)), others


def restore(run: Run, resumed: Checkpoint, *, other_batches: bool = False) -> None:
    """Restore the state of a checkpoint in a run.

    Args:
        run: a new run, before its first step; ``run.progress`` has its batches and the number of those that
            are done.
        resumed: the checkpoint.
        other_batches: the batches are not those of the run so far, so an epoch may have another number of
            steps; the learning rate continues at the same place of the epoch.

    Raises:
        WeightsError: if the checkpoint belongs to another network, loss or optimizer.
    """
    where = str(resumed.where)
    load_into(run.parts.model, resumed.params, where=f"{where}.pdparams", allow_missing_head=False)
    loss_state = {n[5:]: v for n, v in resumed.optimizer.items() if n.startswith("loss.") and "@" not in n}
    if loss_state:
        load_into(run.parts.loss, loss_state, where=f"{where}.pdopt", allow_missing_head=False)
    for name, statistic in run.parts.model.frozen_statistics().items():
        known = resumed.optimizer.get(f"frozen.{name}")
        if known is None:
            continue  # old checkpoints have none
        if list(known.shape) == statistic.shape:
            statistic.set_value(known)
        else:  # the teacher is another one now, which is reported as a change of the config
            LOGGER.warning(
                "%s.pdopt: frozen.%s has another shape than the network of now: left out", where, name
            )
    slots = {name: value for name, value in resumed.optimizer.items() if "@" in name}
    slots = in_present_names(run.parts.model, slots, f"{where}.pdopt")
    layers = {"network": run.parts.model, "loss": run.parts.loss}
    load_structured_state(run.parts.optimizer, layers, slots, where=f"{where}.pdopt")
    scaler = {n[7:]: v for n, v in resumed.optimizer.items() if n.startswith("scaler.")}
    restore_scaler(run.parts.scaler, scaler)
    own = run.progress
    run.progress = replace(
        resumed.progress, finished=False, lists=own.lists, batches=own.batches, batch=own.batch
    )
    restore_hooks(run.hooks, resumed.progress.hooks)
    restore_schedule(run.parts.schedule, resumed.progress.schedule, f"{where}.pdstates")
    if other_batches:
        steps = -(-len(run.parts.loader) // run.settings.update_freq)
        done = -(-run.progress.batch // run.settings.update_freq)
        move_schedule(run.parts.schedule, (run.progress.epoch - 1) * steps + done)
    _restore_meters(run, resumed.progress.meters)
    ema = run.parts.ema
    if ema is not None:
        averages = in_present_names(run.parts.model, resumed.ema or resumed.params, f"{where}.pdema")
        ema.restore(averages, f"{where}.pdema")
    LOGGER.info(
        "resumed %s: epoch %d of %d, %d batches of it done, step %d",
        where,
        run.progress.epoch,
        run.settings.epochs,
        run.progress.batch,
        run.progress.step,
    )


def _restore_meters(run: Run, states: list[dict[str, list[float]]]) -> None:
    """Restore the sums and counts of the epoch; with another number of processes, rank 0 gets all of them."""
    if len(states) == world_size():
        run.meters.restore(states[rank()])
    elif rank() == 0:
        sums: dict[str, list[float]] = {}
        for state in states:
            for name, (total, count) in state.items():
                before = sums.get(name, [0.0, 0.0])
                sums[name] = [before[0] + total, before[1] + count]
        run.meters.restore(sums)
