"""The training loop. It asks nothing about distillation: a network maps images to outputs, a loss maps
outputs and labels to named parts, and everything else is a hook.

    before_train
    for every epoch:
        for every batch:  forward, loss, backward
            every update_freq batches:  exchange of gradients, optimizer step      -> after_step
        if an evaluation is due:  evaluate                             -> after_eval
                                                                       -> after_epoch
    after_train, or after_stop if Ctrl-C or SIGTERM came between two steps or two batches of an evaluation
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import paddle

from ppcls.data import Batch, ahead, image_tensor
from ppcls.distributed import (
    STOPPING,
    any_of,
    average_gradients,
    ending_with_others,
    rank,
    working_on,
    world_size,
)
from ppcls.engine.hooks.base import call_hooks
from ppcls.engine.run import Run
from ppcls.engine.speed import all_threads
from ppcls.logger import LOGGER
from ppcls.loss.dropping import without_teachers
from ppcls.optimizer import learning_rates


class StopRequested(BaseException):
    """Ctrl-C or SIGTERM was received; raised after a step, or between two batches of an evaluation."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def train(run: Run) -> None:
    """Run epochs from the position ``run.progress`` until ``run.settings.epochs`` are done."""
    schedule = run.parts.schedule
    call_hooks(run.hooks, "before_train", run)
    with signals_wait_for_the_step(run), ending_with_others():
        while run.progress.epoch <= run.settings.epochs:
            epoch = run.progress.epoch
            train_epoch(run)
            evaluation = run.parts.evaluation
            if evaluation is not None and evaluation.due(epoch):
                with all_threads(run.progress):
                    metrics = evaluation.measure(epoch, partial(_stop_in_evaluation, run))
                call_hooks(run.hooks, "after_eval", run, metrics)
                if schedule.needs_metric:
                    schedule.step(evaluation.plateau_metric(metrics))
            if schedule.by_epoch:
                schedule.step()
            run.progress.epoch = epoch + 1
            run.progress.batch = 0
            run.meters.reset()
            call_hooks(run.hooks, "after_epoch", run, epoch)
            if run.ending or run.progress.epoch > run.settings.epochs:
                break  # even if it was asked to stop by now: nothing but the summary is missing
            _raise_if_stopped(run)
    run.progress.finished = True
    call_hooks(run.hooks, "after_train", run)


def train_epoch(run: Run) -> None:
    """Train on the remaining batches of the current epoch."""
    start_epoch(run)
    run.timing.begin()
    for batch in batches_of_epoch(run):
        train_batch(run, batch)
    run.read()


def batches_of_epoch(run: Run) -> Iterator[Batch]:
    """Yield the remaining batches of the current epoch."""
    batches = ahead(run.parts.loader.epoch(run.data_epoch, start_batch=run.progress.batch))
    return batches if run.parts.lookahead is None else run.parts.lookahead.over(batches)


def train_batch(run: Run, batch: Batch) -> None:
    """Train on one batch; call the hooks after an optimizer step."""
    run.timing.batch_is_ready()
    updated = train_step(run, batch)
    run.timing.end(len(batch.index))
    if updated:
        call_hooks(run.hooks, "after_step", run, batch)
        _raise_if_stopped(run)


def start_epoch(run: Run) -> None:
    """Set network and losses to training mode, and the weights of the losses for the epoch."""
    run.parts.model.train()
    run.parts.loss.train()
    run.parts.loss.set_epoch(run.progress.epoch)


def train_step(run: Run, batch: Batch) -> bool:
    """Run one batch forward and backward, and make an optimizer step if its group of batches is complete.

    Returns:
        whether the optimizer made a step.
    """
    parts = run.parts
    position = run.progress
    first = position.batch - position.batch % run.settings.update_freq
    # The last group of an epoch may be smaller.
    group = min(run.settings.update_freq, len(parts.loader) - first)
    run.learning_rates = learning_rates(parts.optimizer)
    known, label, losses = forward_and_backward(run, batch, group)
    complete = position.batch + 1 == first + group
    if complete:
        run.stopping = average_gradients(parts.trained, parts.buffers, run.stop_signal is not None)
        if run.line_due(position.batch + 1):
            run.gradient_norm = gradient_norm(parts.trained, _loss_scale(parts.scaler))
        parts.scaler.step(parts.optimizer)
        parts.scaler.update()
        parts.optimizer.clear_grad()
        if not parts.schedule.by_epoch:
            parts.schedule.step()
    with paddle.no_grad():
        run.record(batch, parts.metric(known, label), losses)
    if position.seen_batches or not position.step:  # unknown in a run that an earlier version began
        position.seen_batches += 1
        position.seen_images += len(batch.index) * world_size()
    position.batch += 1
    position.step += complete
    return complete


def forward_and_backward(
    run: Run, batch: Batch, group: int = 1
) -> tuple[Any, paddle.Tensor, dict[str, paddle.Tensor]]:
    """Run a batch through network and losses, and add to the gradients.

    Random numbers on the device depend only on the position in the run, so they are the same in a resumed
    run. Networks draw different numbers in each process, losses the same (MGD uses its part of numbers drawn
    for all). Losses run outside autocast: they cast to float32 themselves.

    Args:
        run: position, network, losses and scaler.
        batch: the images and labels.
        group: number of batches whose gradients are averaged.

    Returns:
        the outputs for images that have labels, these labels, and the parts of the loss.
    """
    parts = run.parts
    position = run.progress
    place, part, all_parts = place_of(run)
    paddle.seed(step_seed(position.seed, place, stream=1 + part))
    image = image_tensor(batch)
    label = paddle.to_tensor(batch.label)
    dropped = parts.model.drop_teachers(position.seed, position.step)
    with paddle.amp.auto_cast(**run.settings.casting), _stored(run, batch):
        outputs = parts.model(image)
    paddle.seed(step_seed(position.seed, place, stream=0))
    known = outputs if batch.labelled is None else rows_of(outputs, paddle.to_tensor(batch.labelled))
    with working_on(part, all_parts), without_teachers(dropped):
        losses = parts.loss(outputs, label, known)
    parts.scaler.scale(losses["loss"] if group == 1 else losses["loss"] / group).backward()
    return known, label, losses


def place_of(run: Run) -> tuple[int, int, int]:
    """Return the place of the current batch in the run.

    Returns:
        number of batches since the start of the run; which part of the batch of all processes this one works
        on; number of these parts.
    """
    position = run.progress
    division = run.parts.loader.division
    if division is None:
        place = (position.epoch - 1) * len(run.parts.loader) + position.batch
        return place, rank(), world_size()
    part = division.part(rank(), position.batch)
    place = (position.epoch - 1) * division.batches + part.batch
    return place, part.stream, division.former * part.parts


def _stored(run: Run, batch: Batch) -> AbstractContextManager[None]:
    """Let outputs of frozen networks for a batch come from their store, if there is one."""
    if run.parts.stored is None:
        return nullcontext()
    return run.parts.stored.batch(run.progress.epoch, run.progress.batch, batch.index)


def gradient_norm(parameters: Sequence[paddle.Tensor], scale: float = 1.0) -> paddle.Tensor:
    """Return the joint L2 norm of the gradients of all `parameters`, a scalar, computed in float32.

    Args:
        parameters: the parameters; a missing gradient counts as zero.
        scale: factor of the loss (mixed precision), by which the gradients are divided.
    """
    with paddle.no_grad():
        flat = [p.grad.flatten().astype("float32") for p in parameters if p.grad is not None]
        squares = [paddle.dot(gradient, gradient) for gradient in flat]  # without an array of squares
        return paddle.stack(squares).sum().sqrt() / scale if squares else paddle.zeros([])


def _loss_scale(scaler: paddle.amp.GradScaler) -> float:
    """Return the present factor of losses; 1 without mixed precision."""
    return float(np.asarray(scaler.state_dict().get("scale", 1.0)).reshape(-1)[0])


def step_seed(seed: int, place: int, stream: int) -> int:
    """Return the seed of the device generators for one batch.

    Args:
        seed: seed of the run.
        place: number of batches since the start of the run.
        stream: number that separates independent random numbers.
    """
    return int(np.random.SeedSequence([seed, place, stream]).generate_state(1, np.uint32)[0])


def _raise_if_stopped(run: Run) -> None:
    """Stop at the step at which all processes stop; a single process stops at once after a signal."""
    if run.stopping or (run.stop_signal is not None and world_size() == 1):
        raise StopRequested(run.stop_signal or signal.SIGTERM)


def _stop_in_evaluation(run: Run, number: int) -> None:
    """Stop before a batch of an evaluation; the resumed run begins with that evaluation.

    Several processes agree on it at every tenth batch.
    """
    if world_size() == 1 or number % 10 == 0:
        run.stopping = any_of([run.stop_signal is not None])[0]
        _raise_if_stopped(run)


class Rows(Mapping[str, Any]):
    """Outputs of networks for some rows of the batch; the rows are selected when an output is read."""

    def __init__(self, outputs: Mapping[str, Any], rows: paddle.Tensor) -> None:
        self._outputs = outputs
        self._rows = rows

    def __getitem__(self, name: str) -> Any:
        return rows_of(self._outputs[name], self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


def rows_of(outputs: Any, rows: paddle.Tensor) -> Any:
    """Return `outputs` (a tensor [N, ...], or a list or mapping of such) for the `rows`, int64 [n]."""
    if isinstance(outputs, Mapping):
        return Rows(outputs, rows)
    if isinstance(outputs, list | tuple):
        return [rows_of(value, rows) for value in outputs]
    return paddle.gather(outputs, rows)


@contextmanager
def signals_wait_for_the_step(run: Run) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the current step; a second Ctrl-C interrupts at once.

    A second SIGTERM does not: Paddle's launcher sends up to three within a second.
    """

    def request(signum: int, frame: FrameType | None) -> None:
        if run.stop_signal is not None:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            return
        run.stop_signal = signum
        LOGGER.info("%s: %s", signal.Signals(signum).name, STOPPING)

    try:
        old = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, so signals are handled elsewhere
        yield
        return
    try:
        yield
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
