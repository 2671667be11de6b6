"""The training loop. It asks nothing about distillation: a network maps images to outputs, a loss maps
outputs and labels to named parts, and everything else is a hook.

    before_train
    for every epoch:
        for every batch:  forward, loss, backward
            every update_freq batches:  exchange of gradients, optimizer step      -> after_step
        if an evaluation is due:  evaluate                             -> after_eval
                                                                       -> after_epoch
    after_train
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from ppcls.data import Batch, JoinedLoader, Loader
from ppcls.distributed import average_gradients, rank, world_size
from ppcls.engine.gradients import gradient_norm
from ppcls.engine.meters import Meters
from ppcls.engine.rows import rows_of
from ppcls.engine.states import Progress
from ppcls.errors import TrainingError
from ppcls.logger import LOGGER
from ppcls.optimizer import learning_rates
from ppcls.optimizer.joint import JointOptimizer


class StopRequested(BaseException):
    """Ctrl-C or SIGTERM arrived; raised after the step under way is complete."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Hook:
    """Something that happens around the loop. Methods are called in the order of ``Run.hooks``."""

    def before_start(self, run: Run) -> None:
        """Called once, before the run touches its folder: the place for what may fail. Nothing is written."""

    def before_train(self, run: Run) -> None:
        """Called once, before the first step."""

    def after_step(self, run: Run, batch: Batch) -> None:
        """Called after every optimizer step; ``run.progress`` already counts it."""

    def after_eval(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Called with the averages of an evaluation, before ``after_epoch`` of that epoch."""

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Called when `epoch` is over; ``run.progress`` already stands at the start of the next one."""

    def after_train(self, run: Run) -> None:
        """Called once, after the last epoch."""


@dataclass
class Timing:
    """Seconds of the latest step: the whole of it, and the wait for data."""

    batch_cost: float = 0.0
    reader_cost: float = 0.0
    _window: list[tuple[float, float]] = field(default_factory=list, repr=False)

    def add(self, whole: float, reading: float) -> None:
        """Remember one step."""
        self._window.append((whole, reading))

    def summarize(self) -> None:
        """Average the steps since the last call into `batch_cost` and `reader_cost`."""
        if self._window:
            self.batch_cost, self.reader_cost = np.mean(self._window, axis=0).tolist()
            self._window.clear()


@dataclass
class Run:
    """Everything one training run consists of.

    Attributes:
        eval_loader: what `evaluate` reads; None without evaluations.
        trained: parameters that the optimizer changes, the same order in every process.
        buffers: BatchNorm statistics of what trains, which processes keep equal.
        update_freq: batches whose gradients are averaged into one optimizer step.
        class_names: names of the classes that the run keeps in its folder; None if they are not known.
        plateau_metric: what a schedule that watches evaluations is told.
        log_every: batches between log lines, set by the hook that prints them; None if nothing is printed.
        gradient_norm: of the latest step that a line is printed for, on the device.
        ending: set by a hook after an evaluation: the epoch under way is the last.
        stop_signal: set by a signal handler; `stopping` is what all processes have agreed on.
    """

    folder: Path
    epochs: int
    model: nn.Layer
    loss: nn.Layer
    metric: Callable[[Any, paddle.Tensor], dict[str, paddle.Tensor]]
    optimizer: Optimizer | JointOptimizer
    schedule: Any
    loader: Loader | JoinedLoader
    evaluate: Callable[[int], dict[str, float]] | None
    evaluation_due: Callable[[int], bool]
    eval_loader: Loader | None
    scaler: paddle.amp.GradScaler
    amp: dict[str, Any]
    progress: Progress
    hooks: list[Hook]
    plateau_metric: Callable[[Mapping[str, float]], float]
    trained: list[paddle.Tensor] = field(default_factory=list)
    buffers: list[paddle.Tensor] = field(default_factory=list)
    update_freq: int = 1
    class_names: list[str] | None = None
    meters: Meters = field(default_factory=Meters)
    timing: Timing = field(default_factory=Timing)
    learning_rates: list[float] = field(default_factory=list)
    log_every: int | None = None
    gradient_norm: paddle.Tensor | None = None
    ending: bool = False
    stop_signal: int | None = None
    stopping: bool = False
    _unread: list[tuple[int, list[float], np.ndarray]] = field(default_factory=list, repr=False)

    def record(
        self, batch: Batch, metrics: Mapping[str, paddle.Tensor], losses: Mapping[str, paddle.Tensor]
    ) -> None:
        """Keep a step's scalars, unread, with what is needed to explain them if they turn out bad."""
        # Losses count every image, accuracies those that have labels.
        labelled = dict.fromkeys(metrics, len(batch.label))
        self.meters.add({**metrics, **losses}, len(batch.index), labelled)
        self._unread.append((self.progress.step, self.learning_rates, batch.index))

    def line_due(self, done: int) -> bool:
        """Tell whether a log line is due for the step that ends with the batch number `done` of the epoch.

        It is when a batch since the last step has an index divisible by `log_every`.
        """
        every = self.log_every
        return every is not None and (done - 1) // every > (done - 1 - self.update_freq) // every

    def read(self) -> dict[str, float] | None:
        """Move unread scalars to the host; return those of the latest step, None if there were none.

        Raises:
            TrainingError: if a loss is not finite; names step, learning rate and the files of the batch.
        """
        rows = self.meters.flush()
        for row, (step, rates, index) in zip(rows, self._unread, strict=True):
            if not np.isfinite(row["loss"]):
                raise TrainingError(self._not_finite(row, step, rates, index))
        self._unread.clear()
        return rows[-1] if rows else None

    def _not_finite(self, row: Mapping[str, float], step: int, rates: list[float], index: np.ndarray) -> str:
        names = [self.loader.path(int(i)) for i in index]
        shown = "\n  ".join(names[:64]) + (f"\n  and {len(names) - 64} more" if len(names) > 64 else "")
        values = ", ".join(f"{name}: {value}" for name, value in row.items())
        rate = ", ".join(f"{one:.6g}" for one in rates)
        return (
            f"the loss is not finite at step {step} (learning rate {rate}): {values}. "
            f"Checkpoints in {self.folder} were written before it and stay. "
            "Lower Optimizer.lr.learning_rate, set Optimizer.clip_norm, or look at the batch:\n  " + shown
        )


def train(run: Run) -> None:
    """Run epochs until ``run.epochs`` are done, from wherever ``run.progress`` stands."""
    for hook in run.hooks:
        hook.before_train(run)
    with _signals_wait_for_the_step(run):
        while run.progress.epoch <= run.epochs and not run.ending:
            epoch = run.progress.epoch
            train_epoch(run)
            if run.evaluate is not None and run.evaluation_due(epoch):
                metrics = run.evaluate(epoch)
                for hook in run.hooks:
                    hook.after_eval(run, metrics)
                if getattr(run.schedule, "needs_metric", False):
                    run.schedule.step(run.plateau_metric(metrics))
            if run.schedule.by_epoch:
                run.schedule.step()
            run.progress.epoch, run.progress.batch = epoch + 1, 0
            run.meters.reset()
            for hook in run.hooks:
                hook.after_epoch(run, epoch)
            _raise_if_stopped(run)
    run.progress.finished = True
    for hook in run.hooks:
        hook.after_train(run)


def train_epoch(run: Run) -> None:
    """Train on the batches of the current epoch that are still to do."""
    start_epoch(run)
    begin = time.perf_counter()
    for batch in run.loader.epoch(run.progress.epoch, start_batch=run.progress.batch):
        ready = time.perf_counter()
        updated = train_step(run, batch)
        end = time.perf_counter()
        run.timing.add(end - begin, ready - begin)
        begin = end
        if updated:
            for hook in run.hooks:
                hook.after_step(run, batch)
            _raise_if_stopped(run)
    run.read()


def start_epoch(run: Run) -> None:
    """Put network and losses into training mode, the losses at the weights of the epoch."""
    run.model.train()
    run.loss.train()
    if hasattr(run.loss, "set_epoch"):
        run.loss.set_epoch(run.progress.epoch)


def train_step(run: Run, batch: Batch) -> bool:
    """Forward and backward of one batch, and an optimizer step when its group of batches is complete.

    Returns:
        whether the optimizer made a step.
    """
    position = run.progress
    first = position.batch - position.batch % run.update_freq
    group = min(run.update_freq, len(run.loader) - first)  # the last group of an epoch may be smaller
    run.learning_rates = learning_rates(run.optimizer)
    known, label, parts = forward_and_backward(run, batch, group)
    complete = position.batch + 1 == first + group
    if complete:
        run.stopping = average_gradients(run.trained, run.buffers, run.stop_signal is not None)
        if run.line_due(position.batch + 1):
            run.gradient_norm = gradient_norm(run.trained, _loss_scale(run.scaler))
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.clear_grad()
        if not run.schedule.by_epoch:
            run.schedule.step()
    with paddle.no_grad():
        run.record(batch, run.metric(known, label), parts)
    position.batch += 1
    position.step += complete
    return complete


def forward_and_backward(
    run: Run, batch: Batch, group: int = 1
) -> tuple[Any, paddle.Tensor, dict[str, paddle.Tensor]]:
    """Take a batch through network and losses and add to the gradients.

    Randomness on the device is seeded by the position in the run, so it does not depend on whether the run
    was interrupted: networks draw differently in each process, losses alike (MGD takes its part of what is
    drawn for all). Losses run outside autocast: they cast to float32 themselves.

    Args:
        run: position, network, losses and scaler.
        batch: the images and labels.
        group: batches whose gradients are averaged.

    Returns:
        the outputs for images that have labels, these labels, and the parts of the loss.
    """
    position = run.progress
    place = (position.epoch - 1) * len(run.loader) + position.batch
    paddle.seed(step_seed(position.seed, place, stream=1 + rank()))
    image, label = paddle.to_tensor(batch.image), paddle.to_tensor(batch.label)
    with paddle.amp.auto_cast(**run.amp):
        outputs = run.model(image)
    paddle.seed(step_seed(position.seed, place, stream=0))
    known = outputs if batch.labelled is None else rows_of(outputs, paddle.to_tensor(batch.labelled))
    parts = run.loss(outputs, label, known)
    run.scaler.scale(parts["loss"] if group == 1 else parts["loss"] / group).backward()
    return known, label, parts


def _loss_scale(scaler: paddle.amp.GradScaler) -> float:
    """Return what losses are multiplied with at the moment, 1 without mixed precision."""
    return float(np.asarray(scaler.state_dict().get("scale", 1.0)).reshape(-1)[0])


def step_seed(seed: int, place: int, stream: int) -> int:
    """Return the seed of the device generators for one batch.

    Args:
        seed: seed of the run.
        place: batches since the start of the run.
        stream: keeps apart what must not be drawn alike.
    """
    return int(np.random.SeedSequence([seed, place, stream]).generate_state(1, np.uint32)[0])


def _raise_if_stopped(run: Run) -> None:
    """Stop where all processes stop; with one, at once after a signal."""
    if run.stopping or (run.stop_signal is not None and world_size() == 1):
        raise StopRequested(run.stop_signal or signal.SIGTERM)


@contextmanager
def _signals_wait_for_the_step(run: Run) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM finish the step under way; a second Ctrl-C interrupts at once.

    A second SIGTERM does not: Paddle's launcher sends up to three within a second.
    """

    def request(signum: int, frame: FrameType | None) -> None:
        if run.stop_signal is not None:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            return
        run.stop_signal = signum
        LOGGER.info("%s: finishing the step, then saving", signal.Signals(signum).name)

    try:
        old = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield
        return
    try:
        yield
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
