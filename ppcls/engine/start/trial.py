"""A trial of the first steps of a run before anything is written, so that errors occur here.

The first batch runs through network, losses and metrics, forward and backward, and the first batch of
evaluation through the measures of evaluations. Afterwards everything is restored, so that the run gives the
same results as without the trial.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping

import numpy as np
import paddle

from ppcls import distributed
from ppcls._paddle import buffers_of
from ppcls.engine.build import trainable_state
from ppcls.engine.hooks.base import call_hooks
from ppcls.engine.run import Run
from ppcls.engine.train import forward_and_backward, start_epoch
from ppcls.errors import TrainingError
from ppcls.logger import LOGGER, only_warnings
from ppcls.loss.base import TOTAL
from ppcls.random_numbers import random_state, set_random_state


def try_out(run: Run) -> None:
    """Try the first batch of training and of evaluation, and let the hooks make their checks.

    Raises:
        PpclsError: for errors of data, networks, losses or metrics.
        TrainingError: if the loss of the first batch is not finite.
    """
    with _as_before(run):
        _try_training(run)
        to_come = range(run.progress.epoch, run.settings.epochs + 1)
        evaluation = run.parts.evaluation
        if evaluation is not None and any(map(evaluation.due, to_come)):
            with evaluation.loader.only_first_batch(), only_warnings():
                metrics = evaluation.measure(run.progress.epoch)
            if run.parts.schedule.needs_metric:
                evaluation.plateau_metric(metrics)
        call_hooks(run.hooks, "before_start", run)
    distributed.wait_for_all()  # until all processes have succeeded


def _try_training(run: Run) -> None:
    start_epoch(run)
    with run.parts.loader.only_first_batch():
        # No batch is left if a run stopped between an epoch and its evaluation.
        for batch in run.parts.loader.epoch(run.data_epoch, start_batch=run.progress.batch):
            known, label, losses = forward_and_backward(run, batch)
            with paddle.no_grad():
                run.parts.metric(known, label)
            values = {name: float(value) for name, value in losses.items()}
            if not math.isfinite(values["loss"]):
                shown = ", ".join(f"{name}: {value}" for name, value in values.items())
                files = "\n  ".join(run.parts.loader.path(int(index)) for index in batch.index[:64])
                raise TrainingError(
                    f"the loss is not finite on the first batch, before anything was trained: {shown}. "
                    "Nothing was written. Look at the weights that the networks start from, at the options "
                    f"of the losses, and at the images of the batch:\n  {files}"
                )
            _require_gradient(run, losses)


def _require_gradient(run: Run, losses: Mapping[str, paddle.Tensor]) -> None:
    """Refuse losses from which no network learns, and name those that have no effect.

    Raises:
        TrainingError: if no parameter of a network got a gradient.
    """
    parts = {name: value for name, value in losses.items() if name != TOTAL}
    constant = [name for name, value in parts.items() if value.stop_gradient]
    trained = [parameter for parameter in run.parts.model.parameters() if not parameter.stop_gradient]
    (learned,) = distributed.any_of([any(parameter.grad is not None for parameter in trained)])
    if trained and not learned:
        raise TrainingError(
            f"no network would learn: the losses ({', '.join(parts)}) give no trained parameter of a network "
            "a gradient. A loss has to be computed from the outputs of a network that trains, without "
            "detach(), numpy() or no_grad(). Nothing was written"
        )
    if constant:
        LOGGER.warning(
            "Loss.Train: %s has no gradient, so nothing is learned from it; it may be constant or detached",
            ", ".join(constant),
        )


@contextlib.contextmanager
def _as_before(run: Run) -> Iterator[None]:
    """Restore everything that forward and backward passes change: statistics, gradients, random states."""
    both = (run.parts.model, run.parts.loss)
    layers = [layer for top in both for layer in top.sublayers(include_self=True)]
    attributes = [(layer, dict(vars(layer)), dict(buffers_of(layer))) for layer in layers]
    values = [(tensor, tensor.detach().clone()) for tensor in _moved_by_forward(run)]
    drawn = random_state()
    python = random.getstate()
    numpy = np.random.get_state()
    try:
        yield
    finally:
        for layer, names, buffers in attributes:
            vars(layer).clear()
            vars(layer).update(names)
            buffers_of(layer).clear()
            buffers_of(layer).update(buffers)
        for tensor, value in values:
            tensor.set_value(value)
        for parameter in run.parts.trained:
            parameter.clear_gradient(False)  # to None, not to zeros; no keyword: Paddle ignores it here
        set_random_state(drawn)
        random.setstate(python)
        np.random.set_state(numpy)


def _moved_by_forward(run: Run) -> list[paddle.Tensor]:
    """Return the tensors that forward passes may change, such as BatchNorm statistics."""
    model = run.parts.model
    loss = run.parts.loss
    tensors = [*trainable_state(model).values(), *loss.state_dict().values()]
    tensors += [*model.frozen_statistics().values()]
    tensors += [*model.buffers(), *loss.buffers()]  # including those that are not in checkpoints
    return [tensor for tensor in {id(t): t for t in tensors}.values() if tensor.stop_gradient]
