"""The hook that saves a run, and its best students."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import paddle

from ppcls.data import Batch
from ppcls.distributed import gather, is_main, wait_for_main
from ppcls.engine.amp import in_float32
from ppcls.engine.build import trainable_state
from ppcls.engine.checkpoint import Checkpointer, StudentBest
from ppcls.engine.checkpoint.contents import tensors_of
from ppcls.engine.evaluation.measures import is_better
from ppcls.engine.hooks.base import Hook, hook_states
from ppcls.engine.run import Run
from ppcls.errors import TrainingError
from ppcls.logger import LOGGER, ShortLine, log_values
from ppcls.metric import Criterion
from ppcls.run_states import split_averages


class CheckpointHook(Hook):
    """Save ``latest``, ``epoch_N`` and ``best_model``, with averaged weights if the run has them.

    Args:
        checkpointer: writes into the folder of the run.
        criterion: the value by which evaluations of the network to deploy are compared.
        student: name of the network to deploy; None if the model is that network.
        others: the same for each other student, by name.
        save_interval: number of epochs between ``epoch_N`` checkpoints.
        save_steps: number of steps between saves of ``latest`` within an epoch; None: only at its end.
        keep_last: number of ``epoch_N`` to keep; None keeps all, 0 writes none.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        criterion: Criterion,
        student: str | None = None,
        others: Mapping[str, Criterion] | None = None,
        *,
        save_interval: int = 1,
        save_steps: int | None = None,
        keep_last: int | None = None,
    ) -> None:
        self.checkpointer = checkpointer
        self.criterion = criterion
        self.student = student
        self.others = dict(others or {})
        self.save_interval = save_interval
        self.save_steps = save_steps
        self.keep_last = keep_last

    def save(self, run: Run, tag: str) -> None:
        """Write checkpoint `tag` of the run, unless its losses or weights are not finite.

        Raises:
            TrainingError: if they are not finite; earlier checkpoints are kept.
        """
        run.read()
        if run.parts.stored is not None:
            run.parts.stored.flush()  # a run that resumes from here does not ask the teacher for these again
        run.progress.meters = gather(run.meters.state())
        run.progress.hooks = hook_states(run.hooks)
        run.progress.schedule = run.parts.schedule.state_dict()
        if is_main():
            params, others = tensors_of(run.parts)
            self._check_finite(run, params)
            averages = None if run.parts.ema is None else run.parts.ema.state()
            division = run.parts.loader.division
            done = run.progress.batch
            counted = replace(run.progress, batch=done if division is None else division.former_batch(done))
            self.checkpointer.save(tag, params, others, counted, averages)
        wait_for_main()

    @staticmethod
    def _check_finite(run: Run, params: Mapping[str, Any]) -> None:
        for name, value in params.items():
            if not bool(paddle.isfinite(value).all()):
                raise TrainingError(
                    f"{name} is not finite after step {run.progress.step - 1}, although the losses so far "
                    f"are. Checkpoints in {run.settings.folder} were written before it and stay. "
                    "Lower Optimizer.lr.learning_rate or set Optimizer.clip_norm"
                )

    def after_step(self, run: Run, batch: Batch) -> None:
        """Save ``latest`` every `save_steps` steps."""
        if self.save_steps and run.progress.step % self.save_steps == 0:
            self.save(run, "latest")

    def after_eval(self, run: Run, metrics: dict[str, float]) -> None:
        """Keep every student at its best: the one to deploy as ``best_model``, others under their names."""
        progress = run.progress
        epoch = progress.epoch
        own, averaged = split_averages(metrics)
        for name, criterion in self.others.items():
            self._keep_other(run, name, criterion, own, averaged)
        if run.parts.ema is not None:
            ema_score = self.criterion.score(averaged)
            if is_better(ema_score, progress.best_ema_score):
                progress.best_ema = dict(metrics)
                progress.best_ema_score = ema_score
                progress.best_ema_epoch = epoch
                self._write(run, "best_model_ema", averaged=True)
                self._write_deployed(run, "best_model_ema", averaged=True)
        score = self.criterion.score(own)
        if is_better(score, progress.best_score):
            progress.best = dict(metrics)
            progress.best_score = score
            progress.best_epoch = epoch
            self._write_deployed(run, "best_model")
            self.save(
                run, "best_model"
            )  # last, because a run resumed from it does not write the others again
        best = self.criterion.shown(progress.best_score)
        log_values(
            "[Eval][Epoch %d][best metric: %s]",
            epoch,
            best,
            short=ShortLine(f"best so far: {self.criterion.name} {best}, epoch {progress.best_epoch}", []),
        )
        if progress.best_ema_score is not None:
            better = is_better(progress.best_ema_score, progress.best_score)
            LOGGER.info(
                "[Eval][Epoch %d][best metric of the averaged weights: %s; the better file is %s]",
                epoch,
                self.criterion.shown(progress.best_ema_score),
                "best_model_ema" if better else "best_model",
            )

    def _keep_other(
        self,
        run: Run,
        name: str,
        criterion: Criterion,
        own: Mapping[str, float],
        averaged: Mapping[str, float],
    ) -> None:
        """Keep another student at its best, as ``best_model.<name>`` and ``best_model_ema.<name>``."""
        best = run.progress.students.setdefault(name, StudentBest())
        score = criterion.score(own)
        if is_better(score, best.score):
            best.score = score
            best.epoch = run.progress.epoch
            self._write(run, f"best_model.{name}", name)
        if run.parts.ema is not None:
            score = criterion.score(averaged)
            if is_better(score, best.ema_score):
                best.ema_score = score
                self._write(run, f"best_model_ema.{name}", name, averaged=True)
        place = f"[Eval][{name}][Epoch {run.progress.epoch}]"
        LOGGER.info("%s[best metric: %s]", place, criterion.shown(best.score))
        if best.ema_score is not None:
            LOGGER.info("%s[best metric of the averaged weights: %s]", place, criterion.shown(best.ema_score))

    def _write_deployed(self, run: Run, tag: str, *, averaged: bool = False) -> None:
        """Write only the network to deploy: ``<tag>_student``; with several students also under its name."""
        if self.student is None:
            return
        self._write(run, f"{tag}_student", self.student, averaged=averaged)
        if self.others:
            self._write(run, f"{tag}.{self.student}", self.student, averaged=averaged)

    def _write(self, run: Run, file: str, student: str | None = None, *, averaged: bool = False) -> None:
        """Write weights for evaluation and deployment, or their averages, of all students or of one."""
        if not is_main():
            return
        model = run.parts.model
        ema = run.parts.ema
        with ema.applied() if averaged and ema is not None else contextlib.nullcontext():
            state = trainable_state(model) if student is None else model.student_state_dict(student)
            values = in_float32(state)
            self._check_finite(run, values)
            self.checkpointer.save_weights(file, values)

    def after_stop(self, run: Run) -> None:
        """Save ``latest``, from which the run can be resumed."""
        self.save(run, "latest")
        saved = self.checkpointer.folder / "latest"
        number = run.stop_signal or signal.SIGTERM
        reason = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        LOGGER.info("%s: saved %s; resume with -o Global.checkpoints=%s", reason, saved, saved)

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Save ``epoch_N`` every `save_interval` epochs, and ``latest``."""
        run.progress.finished = run.ending or epoch == run.settings.epochs
        if epoch % self.save_interval == 0 and self.keep_last != 0:
            self.save(run, f"epoch_{epoch}")
            if self.keep_last is not None and is_main():
                self.checkpointer.prune(self.keep_last)
        self.save(run, "latest")  # last, because a run resumed from it does not write the others again
