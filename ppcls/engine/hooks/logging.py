"""The hook that prints log lines and records their values."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import paddle

from ppcls.data import Batch
from ppcls.engine.hooks.base import Hook
from ppcls.engine.meters import format_metrics
from ppcls.engine.run import Run
from ppcls.logger import LOGGER, ScalarWriter, progress_bar


def _memory_used() -> str:
    cuda = paddle.device.cuda
    reserved = cuda.max_memory_reserved() / 2**20
    allocated = cuda.max_memory_allocated() / 2**20
    return f", max_mem_reserved: {reserved:.0f} MB, max_mem_allocated: {allocated:.0f} MB"


class LogHook(Hook):
    """Print a line every ``settings.log_every`` batches and at the end of every epoch, as PaddleClas does.

    The norm of the gradients, which PaddleClas does not print, is at the end of the line.

    Args:
        open_writer: called before the first step with the number of steps done; its result also records the
            printed values. None in processes that do not write.
        schedule_names: names for ``lr(...)``, one for each optimizer.
        memory: also show the memory used on the GPU.
    """

    def __init__(
        self,
        open_writer: Callable[[int], ScalarWriter] | None,
        schedule_names: Sequence[str],
        *,
        memory: bool = False,
    ) -> None:
        self.schedule_names = schedule_names
        self._open_writer = open_writer
        self.writer: ScalarWriter | None = None
        self.memory = memory and paddle.device.get_device().startswith("gpu")
        self._bar: Any = None

    def before_train(self, run: Run) -> None:
        """Open the writer."""
        if self._open_writer is not None:
            self.writer = self._open_writer(run.progress.step)

    def after_step(self, run: Run, batch: Batch) -> None:
        """Advance the progress bar; print a line if it is due."""
        total = len(run.parts.loader)
        if self._bar is None:
            self._bar = progress_bar(total, f"epoch {run.progress.epoch}/{run.settings.epochs}")
        self._bar.update(run.progress.batch - self._bar.n)
        if run.line_due(run.progress.batch):
            self._print(run, batch)
        if run.progress.batch == total:
            self._bar.close()
            self._bar = None
            run.read()
            averages = format_metrics(run.meters.averages(everywhere=True))
            LOGGER.info("[Train][Epoch %d/%d][Avg]%s", run.progress.epoch, run.settings.epochs, averages)

    def _print(self, run: Run, batch: Batch) -> None:
        run.read()
        run.timing.summarize()
        averages = run.meters.averages(everywhere=True)
        rates = run.learning_rates
        cost = run.timing.batch_cost
        norm = None if run.gradient_norm is None else float(run.gradient_norm)
        left = (run.settings.epochs - run.progress.epoch + 1) * len(run.parts.loader) - run.progress.batch
        LOGGER.info(
            "[Train][Epoch %d/%d][Iter: %d/%d]%s, %s, batch_cost: %.5fs, reader_cost: %.5f, "
            "ips: %.5f samples/s, eta: %s%s%s",
            run.progress.epoch,
            run.settings.epochs,
            run.progress.batch - 1,
            len(run.parts.loader),
            ", ".join(f"lr({n}): {r:.8f}" for n, r in zip(self.schedule_names, rates, strict=True)),
            format_metrics(averages),
            cost,
            run.timing.reader_cost,
            len(batch.index) / max(cost, 1e-12),
            datetime.timedelta(seconds=int(left * cost)),
            _memory_used() if self.memory else "",
            "" if norm is None else f", grad_norm: {norm:.5f}",
        )
        if self.writer:
            extra = {f"lr_{i}" if i > 1 else "lr": rate for i, rate in enumerate(rates, 1)}
            extra |= {"batch_cost": cost, "reader_cost": run.timing.reader_cost}
            if norm is not None:
                extra["grad_norm"] = norm
            self.writer.write("train", run.progress.step, run.progress.epoch, averages | extra)

    def after_eval(self, run: Run, metrics: dict[str, float]) -> None:
        """Record the averages of an evaluation."""
        if self.writer:
            self.writer.write("eval", run.progress.step, run.progress.epoch, metrics)

    def after_train(self, run: Run) -> None:
        """Close the writer."""
        if self.writer:
            self.writer.close()
