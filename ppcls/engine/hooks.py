"""What happens around the training loop: log lines, scalars, a progress bar, checkpoints."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import paddle

from ppcls.data import Batch
from ppcls.engine.checkpoint import Checkpointer
from ppcls.engine.train import Hook, Run
from ppcls.errors import TrainingError
from ppcls.logger import LOGGER, ScalarWriter, progress_bar


def format_metrics(values: Mapping[str, float]) -> str:
    """Return ``name: value`` pairs as the log lines carry them."""
    return ", ".join(f"{name}: {value:.5f}" for name, value in values.items())


class LogHook(Hook):
    """Print a line every `every` batches and at the end of every epoch, in PaddleClas's format.

    Args:
        every: ``Global.print_batch_step``.
        writer: also receives what is printed; None on processes that do not write.
        schedule_name: shown in ``lr(...)``.
    """

    def __init__(self, every: int, writer: ScalarWriter | None, schedule_name: str) -> None:
        self.every, self.writer, self.schedule_name = every, writer, schedule_name
        self._bar: Any = None

    def after_step(self, run: Run, batch: Batch) -> None:
        """Advance the bar; print when the batch just done has an index divisible by `every`."""
        total = len(run.loader)
        if self._bar is None:
            self._bar = progress_bar(total, f"epoch {run.progress.epoch}/{run.epochs}")
            self._bar.update(run.progress.batch - 1)
        self._bar.update()
        if (run.progress.batch - 1) % self.every == 0:
            self._print(run, batch)
        if run.progress.batch == total:
            self._bar.close()
            self._bar = None
            run.read()
            averages = format_metrics(run.meters.averages())
            LOGGER.info("[Train][Epoch %d/%d][Avg]%s", run.progress.epoch, run.epochs, averages)

    def _print(self, run: Run, batch: Batch) -> None:
        run.read()
        run.timing.summarize()
        averages, rate = run.meters.averages(), run.learning_rate
        cost = run.timing.batch_cost
        left = (run.epochs - run.progress.epoch + 1) * len(run.loader) - run.progress.batch
        LOGGER.info(
            "[Train][Epoch %d/%d][Iter: %d/%d]lr(%s): %.8f, %s, batch_cost: %.5fs, reader_cost: %.5f, "
            "ips: %.5f samples/s, eta: %s",
            run.progress.epoch,
            run.epochs,
            run.progress.batch - 1,
            len(run.loader),
            self.schedule_name,
            rate,
            format_metrics(averages),
            cost,
            run.timing.reader_cost,
            len(batch.index) / max(cost, 1e-12),
            datetime.timedelta(seconds=int(left * cost)),
        )
        if self.writer:
            extra = {"lr": rate, "batch_cost": cost, "reader_cost": run.timing.reader_cost}
            self.writer.write("train", run.progress.step, run.progress.epoch, averages | extra)

    def after_eval(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Record the averages of an evaluation."""
        if self.writer:
            self.writer.write("eval", run.progress.step, run.progress.epoch, metrics)

    def after_train(self, run: Run) -> None:
        """Close the writer."""
        if self.writer:
            self.writer.close()


class CheckpointHook(Hook):
    """Save ``latest``, ``epoch_N`` and ``best_model``.

    Args:
        checkpointer: writes into the folder of the run.
        collect: returns (weights of what trains, optimizer and loss tensors).
        student: returns the weights of the network to deploy, keys as that network alone has them; None if
            the model is that network.
        save_interval: epochs between ``epoch_N`` checkpoints.
        save_steps: steps between saves of ``latest`` within an epoch; None for epoch ends only.
        keep_last: how many ``epoch_N`` to keep; None keeps all.
        score: maps evaluation metrics to a number, larger is better.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        collect: Callable[[], tuple[dict[str, Any], dict[str, Any]]],
        student: Callable[[], dict[str, Any]] | None,
        *,
        save_interval: int,
        save_steps: int | None,
        keep_last: int | None,
        score: Callable[[Mapping[str, float]], float],
    ) -> None:
        self.checkpointer, self.collect, self.student = checkpointer, collect, student
        self.save_interval, self.save_steps, self.keep_last = save_interval, save_steps, keep_last
        self.score = score

    def save(self, run: Run, tag: str) -> None:
        """Write checkpoint `tag` of the run as it stands, unless its losses or weights are not finite.

        Raises:
            TrainingError: then; what was saved before stays.
        """
        run.read()
        params, optimizer = self.collect()
        for name, value in params.items():
            if not bool(paddle.isfinite(value).all()):
                raise TrainingError(
                    f"{name} is not finite after step {run.progress.step - 1}, although the losses so far "
                    f"are. Checkpoints in {run.folder} were written before it and stay. "
                    "Lower Optimizer.lr.learning_rate or set Optimizer.clip_norm"
                )
        run.progress.meters = run.meters.state()
        run.progress.schedule = run.schedule.state_dict()
        self.checkpointer.save(tag, params, optimizer, run.progress)

    def after_step(self, run: Run, batch: Batch) -> None:
        """Save ``latest`` every `save_steps` steps."""
        if self.save_steps and run.progress.step % self.save_steps == 0:
            self.save(run, "latest")

    def after_eval(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Keep the best network under ``best_model``."""
        score, epoch = self.score(metrics), run.progress.epoch
        if run.progress.best_score is None or score > run.progress.best_score:
            run.progress.best, run.progress.best_score, run.progress.best_epoch = dict(metrics), score, epoch
            self.save(run, "best_model")
            if self.student is not None:
                self.checkpointer.save_student("best_model", self.student())
        best = abs(run.progress.best_score)
        LOGGER.info("[Eval][Epoch %d][best metric: %.5f]", epoch, best)

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Save ``latest``, and ``epoch_N`` every `save_interval` epochs."""
        run.progress.finished = epoch == run.epochs
        self.save(run, "latest")
        if epoch % self.save_interval == 0:
            self.save(run, f"epoch_{epoch}")
            if self.keep_last is not None:
                self.checkpointer.prune(self.keep_last)
