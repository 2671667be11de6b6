"""Everything one training run consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.optimizer import Optimizer

from ppcls.data import Batch, JoinedLoader, Loader
from ppcls.engine.checkpoint import Progress
from ppcls.engine.hooks.base import Hook
from ppcls.engine.meters import Meters
from ppcls.errors import TrainingError
from ppcls.optimizer.joint import JointOptimizer
from ppcls.teacher import Answer


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
        answers: what stands in for each frozen network, by its dotted name.
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
    answers: dict[str, Answer] = field(default_factory=dict)
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
