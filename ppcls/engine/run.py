"""The parts, settings and position of a training run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from ppcls.data import Batch, JoinedLoader, Loader
from ppcls.engine.checkpoint import Progress
from ppcls.engine.meters import Meters
from ppcls.errors import TrainingError
from ppcls.optimizer.joint import JointOptimizer
from ppcls.run_states import Declared
from ppcls.teacher import Answer, Lookahead, StoredOutputs

if TYPE_CHECKING:
    from ppcls.engine.hooks.base import Hook
    from ppcls.engine.hooks.ema import ModelEMA


class Measurer(Protocol):
    """A function that evaluates."""

    def __call__(self, epoch: int, between: Callable[[int], None] | None = None, /) -> dict[str, float]:
        """Return averages by name; call `between` before each batch, equally often in every process."""


@dataclass(slots=True)
class Evaluation(Declared):
    """How a run evaluates.

    Attributes:
        loader: the images to evaluate.
        measure: evaluates at an epoch.
        due: tells whether an evaluation follows an epoch.
        plateau_metric: returns the value for ReduceOnPlateau from the averages.
        programs: whether networks that train may be evaluated as programs.
    """

    loader: Loader
    measure: Measurer
    due: Callable[[int], bool]
    plateau_metric: Callable[[Mapping[str, float]], float]
    programs: bool = False


@dataclass(slots=True)
class Parts(Declared):
    """The parts of a run.

    Attributes:
        model: maps images [N, C, H, W] to outputs; frozen networks are part of it.
        loss: maps outputs and labels to the named parts of the loss; its own parameters train too.
        metric: values of a training batch by name.
        optimizer: updates `trained`.
        schedule: schedule of the learning rates.
        loader: batches for training.
        evaluation: None without evaluations.
        scaler: loss scaler of mixed precision; otherwise it does nothing.
        trained: parameters that the optimizer updates, in the same order in every process.
        buffers: BatchNorm statistics that change, which are kept equal in all processes.
        ema: averaged weights; None without them.
        answers: replacements of frozen networks, by dotted name.
        stored: the store of outputs of frozen networks; None without one.
        lookahead: runs frozen networks beside the training, one batch ahead; None if they run within it.
    """

    model: nn.Layer
    loss: nn.Layer
    metric: Callable[[Any, paddle.Tensor], dict[str, paddle.Tensor]]
    optimizer: Optimizer | JointOptimizer
    schedule: Any
    loader: Loader | JoinedLoader
    evaluation: Evaluation | None
    scaler: paddle.amp.GradScaler
    trained: list[paddle.Tensor]
    buffers: list[paddle.Tensor]
    ema: ModelEMA | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    stored: StoredOutputs | None = None
    lookahead: Lookahead | None = None


@dataclass(slots=True)
class Settings(Declared):
    """The settings of a run.

    Attributes:
        folder: folder of checkpoints and logs.
        epochs: total number of epochs.
        update_freq: number of batches whose gradients are averaged for one optimizer step.
        log_every: number of batches between log lines; None if nothing is printed.
        casting: options of ``paddle.amp.auto_cast`` in training.
    """

    folder: Path
    epochs: int
    update_freq: int = 1
    log_every: int | None = None
    casting: Mapping[str, Any] = field(default_factory=lambda: {"enable": False})


@dataclass(slots=True)
class Timing(Declared):
    """Averages over the latest batches.

    Attributes:
        batch_cost: seconds of a batch.
        reader_cost: seconds of it in which its data were waited for.
        batch_images: number of images of a batch.
    """

    batch_cost: float = 0.0
    reader_cost: float = 0.0
    batch_images: float = 0.0
    _window: list[tuple[float, float, int]] = field(default_factory=list, repr=False)
    _begun: float = field(default_factory=time.perf_counter, repr=False)
    _ready: float = 0.0

    def begin(self) -> None:
        """Note that the first step begins."""
        self._begun = time.perf_counter()

    def batch_is_ready(self) -> None:
        """Note that the data of a step are there."""
        self._ready = time.perf_counter()

    def end(self, images: int) -> None:
        """Remember a step with so many images; the next one begins."""
        now = time.perf_counter()
        self._window.append((now - self._begun, self._ready - self._begun, images))
        self._begun = now

    def summarize(self) -> None:
        """Average the steps since the last call."""
        if self._window:
            self.batch_cost, self.reader_cost, self.batch_images = np.mean(self._window, axis=0).tolist()
            self._window.clear()


@dataclass(slots=True)
class Run(Declared):
    """One training run, as hooks see it.

    Attributes:
        parts: network, losses, optimizer, data and so on.
        settings: folder, epochs and so on.
        hooks: the hooks, in the order in which they are called.
        progress: position of the run; the content of a checkpoint besides tensors.
        meters: averages of the current epoch.
        timing: seconds of the latest steps.
        learning_rates: learning rates of the latest step, one for each optimizer.
        gradient_norm: norm of the latest step with a log line, on the device.
        ending: set by a hook: the current epoch is the last; before the first step, the first one.
        stop_signal: number of the signal that asks the run to stop after the current step; a hook may set it
            too. All processes agree on `stopping`.
    """

    parts: Parts
    settings: Settings
    hooks: Sequence[Hook] = ()
    progress: Progress = field(default_factory=Progress)
    meters: Meters = field(default_factory=Meters)
    timing: Timing = field(default_factory=Timing)
    learning_rates: list[float] = field(default_factory=list)
    gradient_norm: paddle.Tensor | None = None
    ending: bool = False
    stop_signal: int | None = None
    stopping: bool = False
    _unread: list[tuple[int, list[float], np.ndarray]] = field(default_factory=list, repr=False)
    _latest: dict[str, float] | None = field(default=None, repr=False)

    def record(
        self, batch: Batch, metrics: Mapping[str, paddle.Tensor], losses: Mapping[str, paddle.Tensor]
    ) -> None:
        """Keep the unread scalars of a step, with information for a message if they are not finite."""
        # Losses are averaged over all images, accuracies over those with labels.
        labelled = dict.fromkeys(metrics, len(batch.label))
        self.meters.add({**metrics, **losses}, len(batch.index), labelled)
        self._unread.append((self.progress.step, self.learning_rates, batch.index))

    @property
    def data_epoch(self) -> int:
        """The epoch of the data: with stored views, they come round again and again."""
        stored = self.parts.stored
        return self.progress.epoch if stored is None else stored.view(self.progress.epoch)

    def line_due(self, done: int) -> bool:
        """Tell whether a log line is due for the step that ends with batch number `done` of the epoch.

        It is due if a batch since the last step has an index divisible by ``settings.log_every``.
        """
        every = self.settings.log_every
        return every is not None and (done - 1) // every > (done - 1 - self.settings.update_freq) // every

    def read(self) -> dict[str, float] | None:
        """Return losses and metrics of the latest step, None before the first one; waits for the device.

        Raises:
            TrainingError: if a loss is not finite; the message names step, learning rate and files of the
                batch.
        """
        rows = self.meters.flush()
        for row, (step, rates, index) in zip(rows, self._unread, strict=True):
            if not np.isfinite(row["loss"]):
                raise TrainingError(self._not_finite(row, step, rates, index))
        self._unread.clear()
        if rows:
            self._latest = rows[-1]
        return self._latest

    def _not_finite(self, row: Mapping[str, float], step: int, rates: list[float], index: np.ndarray) -> str:
        names = [self.parts.loader.path(int(i)) for i in index]
        shown = "\n  ".join(names[:64]) + (f"\n  and {len(names) - 64} more" if len(names) > 64 else "")
        values = ", ".join(f"{name}: {value}" for name, value in row.items())
        rate = ", ".join(f"{one:.6g}" for one in rates)
        return (
            f"the loss is not finite at step {step} (learning rate {rate}): {values}. "
            f"Checkpoints in {self.settings.folder} were written before it and stay. "
            "Lower Optimizer.lr.learning_rate, set Optimizer.clip_norm, or look at the batch:\n  " + shown
        )
