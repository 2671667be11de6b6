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
from ppcls.optimizer.joint import restore_schedule
from ppcls.optimizer.state import load_structured_state, structured_state
from ppcls.weights import load_into
from ppcls.weights.renames import in_present_names


def tensors_of(parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the weights of networks that train, and the tensors of losses, optimizer and loss scaler."""
    others = {f"loss.{name}": value for name, value in parts.loss.state_dict().items()}
    others |= structured_state(parts.optimizer, {"network": parts.model, "loss": parts.loss})
    others |= {f"scaler.{name}": value for name, value in scaler_state(parts.scaler).items()}
    return in_float32(trainable_state(parts.model)), others


def restore(run: Run, resumed: Checkpoint) -> None:
    """Restore the state of a checkpoint in a run.

    Args:
        run: a new run, before its first step.
        resumed: the checkpoint.

    Raises:
        WeightsError: if the checkpoint belongs to another network, loss or optimizer.
    """
    where = str(resumed.where)
    load_into(run.parts.model, resumed.params, where=f"{where}.pdparams", allow_missing_head=False)
    loss_state = {n[5:]: v for n, v in resumed.optimizer.items() if n.startswith("loss.") and "@" not in n}
    if loss_state:
        load_into(run.parts.loss, loss_state, where=f"{where}.pdopt", allow_missing_head=False)
    slots = {name: value for name, value in resumed.optimizer.items() if "@" in name}
    slots = in_present_names(run.parts.model, slots, f"{where}.pdopt")
    layers = {"network": run.parts.model, "loss": run.parts.loss}
    load_structured_state(run.parts.optimizer, layers, slots, where=f"{where}.pdopt")
    scaler = {n[7:]: v for n, v in resumed.optimizer.items() if n.startswith("scaler.")}
    restore_scaler(run.parts.scaler, scaler)
    run.progress = replace(resumed.progress, finished=False, lists=run.progress.lists)
    restore_hooks(run.hooks, resumed.progress.hooks)
    restore_schedule(run.parts.schedule, resumed.progress.schedule, f"{where}.pdstates")
    states = resumed.progress.meters
    if len(states) == world_size():
        run.meters.restore(states[rank()])
    elif states:
        LOGGER.warning(
            "%s was written by %d processes, this run has %d: it continues, but not bit by bit",
            where,
            len(states),
            world_size(),
        )
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
