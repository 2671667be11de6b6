"""The hook that prints log lines and records their values."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from typing import Any

import paddle

from ppcls.data import Batch
from ppcls.distributed import world_size
from ppcls.engine.hooks.base import Hook
from ppcls.engine.meters import format_metrics, short_metrics
from ppcls.engine.run import Run
from ppcls.logger import ScalarWriter, ShortLine, log_values, progress_bar

_BAR_EVERY = 0.5  # seconds


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
        self._shown = 0.0

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
        self._show_values(run)
        if run.line_due(run.progress.batch):
            self._print(run)
        if run.progress.batch == total:
            self._bar.close()
            self._bar = None
            run.read()
            averages = run.meters.averages(everywhere=True)
            epoch, epochs = run.progress.epoch, run.settings.epochs
            log_values(
                "[Train][Epoch %d/%d][Avg]%s",
                epoch,
                epochs,
                format_metrics(averages),
                short=ShortLine(f"train epoch {epoch}/{epochs}", short_metrics(averages)),
            )
            if self.writer:
                self.writer.write("epoch", run.progress.step, epoch, averages)

    def _show_values(self, run: Run) -> None:
        """Show loss and accuracy of the latest batch in the bar; reading them waits for the device."""
        if self._bar.disable or time.monotonic() < self._shown + _BAR_EVERY:
            return
        latest = run.read()
        if latest is not None:
            self._bar.set_postfix_str(" ".join(short_metrics(latest)[:2]))
        self._shown = time.monotonic()

    def _print(self, run: Run) -> None:
        run.read()
        run.timing.summarize()
        averages = run.meters.averages(everywhere=True)
        rates = run.learning_rates
        cost = run.timing.batch_cost
        norm = None if run.gradient_norm is None else float(run.gradient_norm)
        left = (run.settings.epochs - run.progress.epoch + 1) * len(run.parts.loader) - run.progress.batch
        speed = run.timing.batch_images / max(cost, 1e-12)
        total = speed * world_size()
        eta = datetime.timedelta(seconds=int(left * cost))
        epoch = f"{run.progress.epoch}/{run.settings.epochs}"
        place = f"{run.progress.batch - 1}/{len(run.parts.loader)}"
        values = [*short_metrics(averages)[:2], f"{total:.0f} images/s", f"eta {eta}", f"lr {rates[0]:.3g}"]
        log_values(
            "[Train][Epoch %s][Iter: %s]%s, %s, batch_cost: %.5fs, reader_cost: %.5f, "
            "ips: %.5f samples/s, eta: %s%s%s%s",
            epoch,
            place,
            ", ".join(f"lr({n}): {r:.8f}" for n, r in zip(self.schedule_names, rates, strict=True)),
            format_metrics(averages),
            cost,
            run.timing.reader_cost,
            speed,
            eta,
            _memory_used() if self.memory else "",
            "" if norm is None else f", grad_norm: {norm:.5f}",
            f", ips_total: {total:.5f} samples/s ({world_size()} processes)" if world_size() > 1 else "",
            short=ShortLine(f"train epoch {epoch} batch {place}", values, in_bar=True),
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
