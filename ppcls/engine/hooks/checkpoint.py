"""The hook that saves a run, and its best students."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from ppcls.data import Batch
from ppcls.distributed import gather, is_main, wait_for_main
from ppcls.engine.checkpoint import Checkpointer, StudentBest
from ppcls.engine.hooks.base import Hook
from ppcls.engine.hooks.ema import ModelEMA
from ppcls.engine.measures import is_better, split_averages
from ppcls.engine.run import Run
from ppcls.errors import TrainingError
from ppcls.logger import LOGGER
from ppcls.metric import Criterion


@dataclass(frozen=True)
class StudentFile:
    """A student whose best weights are kept in a file of its own.

    Attributes:
        name: its name in the recipe.
        criterion: what its evaluations are compared by.
        weights: returns its weights, keys as that network alone has them.
    """

    name: str
    criterion: Criterion
    weights: Callable[[], dict[str, Any]]


class CheckpointHook(Hook):
    """Save ``latest``, ``epoch_N`` and ``best_model``.

    Args:
        checkpointer: writes into the folder of the run.
        collect: returns (weights of what trains, optimizer and loss tensors).
        criterion: what evaluations of the network to deploy are compared by.
        student: the network to deploy; None if the model is that network.
        others: the other students.
        save_interval: epochs between ``epoch_N`` checkpoints.
        save_steps: steps between saves of ``latest`` within an epoch; None for epoch ends only.
        keep_last: how many ``epoch_N`` to keep; None keeps all, 0 writes none.
        ema: averaged weights, saved along and kept at their best; None without them.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        collect: Callable[[], tuple[dict[str, Any], dict[str, Any]]],
        criterion: Criterion,
        student: StudentFile | None,
        others: Sequence[StudentFile] = (),
        *,
        save_interval: int,
        save_steps: int | None,
        keep_last: int | None,
        ema: ModelEMA | None = None,
    ) -> None:
        self.checkpointer, self.collect, self.criterion = checkpointer, collect, criterion
        self.student, self.others = student, list(others)
        self.save_interval, self.save_steps, self.keep_last = save_interval, save_steps, keep_last
        self.ema = ema

    def save(self, run: Run, tag: str) -> None:
        """Write checkpoint `tag` of the run as it stands, unless its losses or weights are not finite.

        Raises:
            TrainingError: then; what was saved before stays.
        """
        run.read()
        run.progress.meters = gather(run.meters.state())
        run.progress.schedule = run.schedule.state_dict()
        if is_main():
            params, optimizer = self.collect()
            self._check_finite(run, params)
            averages = None if self.ema is None else self.ema.state()
            self.checkpointer.save(tag, params, optimizer, run.progress, averages)
        wait_for_main()

    @staticmethod
    def _check_finite(run: Run, params: Mapping[str, Any]) -> None:
        for name, value in params.items():
            if not bool(paddle.isfinite(value).all()):
                raise TrainingError(
                    f"{name} is not finite after step {run.progress.step - 1}, although the losses so far "
                    f"are. Checkpoints in {run.folder} were written before it and stay. "
                    "Lower Optimizer.lr.learning_rate or set Optimizer.clip_norm"
                )

    def after_step(self, run: Run, batch: Batch) -> None:
        """Save ``latest`` every `save_steps` steps."""
        if self.save_steps and run.progress.step % self.save_steps == 0:
            self.save(run, "latest")

    def after_eval(self, run: Run, metrics: dict[str, float]) -> None:
        """Keep every student at its best: the one to deploy as ``best_model``, others under their names."""
        progress, epoch = run.progress, run.progress.epoch
        own, averaged = split_averages(metrics)
        for student in self.others:
            self._keep_other(run, student, own, averaged)
        if self.ema is not None:
            ema_score = self.criterion.score(averaged)
            if is_better(ema_score, progress.best_ema_score):
                progress.best_ema_score = ema_score
                self._write(run, "best_model_ema", lambda: self.collect()[0], averaged=True)
                self._write_deployed(run, "best_model_ema", averaged=True)
        score = self.criterion.score(own)
        if is_better(score, progress.best_score):
            progress.best, progress.best_score, progress.best_epoch = dict(metrics), score, epoch
            self._write_deployed(run, "best_model")
            self.save(run, "best_model")  # last: a run resumed from it does not write the others again
        LOGGER.info("[Eval][Epoch %d][best metric: %s]", epoch, self.criterion.shown(progress.best_score))
        if progress.best_ema_score is not None:
            better = is_better(progress.best_ema_score, progress.best_score)
            LOGGER.info(
                "[Eval][Epoch %d][best metric of the averaged weights: %s; the better file is %s]",
                epoch,
                self.criterion.shown(progress.best_ema_score),
                "best_model_ema" if better else "best_model",
            )

    def _keep_other(
        self, run: Run, student: StudentFile, own: Mapping[str, float], averaged: Mapping[str, float]
    ) -> None:
        """Keep another student at its best, as ``best_model.<name>`` and ``best_model_ema.<name>``."""
        best = run.progress.students.setdefault(student.name, StudentBest())
        score = student.criterion.score(own)
        if is_better(score, best.score):
            best.score, best.epoch = score, run.progress.epoch
            self._write(run, f"best_model.{student.name}", student.weights)
        if self.ema is not None:
            score = student.criterion.score(averaged)
            if is_better(score, best.ema_score):
                best.ema_score = score
                self._write(run, f"best_model_ema.{student.name}", student.weights, averaged=True)
        place, shown = f"[Eval][{student.name}][Epoch {run.progress.epoch}]", student.criterion.shown
        LOGGER.info("%s[best metric: %s]", place, shown(best.score))
        if best.ema_score is not None:
            LOGGER.info("%s[best metric of the averaged weights: %s]", place, shown(best.ema_score))

    def _write_deployed(self, run: Run, tag: str, *, averaged: bool = False) -> None:
        """Write the network to deploy alone: ``<tag>_student``; with several students under its name too."""
        if self.student is None:
            return
        self._write(run, f"{tag}_student", self.student.weights, averaged=averaged)
        if self.others:
            self._write(run, f"{tag}.{self.student.name}", self.student.weights, averaged=averaged)

    def _write(
        self, run: Run, name: str, weights: Callable[[], dict[str, Any]], *, averaged: bool = False
    ) -> None:
        """Write weights to evaluate and deploy, or their averages."""
        if not is_main():
            return
        with self.ema.applied() if averaged and self.ema is not None else contextlib.nullcontext():
            values = weights()
            self._check_finite(run, values)
            self.checkpointer.save_weights(name, values)

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Save ``epoch_N`` every `save_interval` epochs, and ``latest``."""
        run.progress.finished = run.ending or epoch == run.epochs
        if epoch % self.save_interval == 0 and self.keep_last != 0:
            self.save(run, f"epoch_{epoch}")
            if self.keep_last is not None and is_main():
                self.checkpointer.prune(self.keep_last)
        self.save(run, "latest")  # last: a run resumed from it does not write the others again
