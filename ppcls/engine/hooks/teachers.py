"""The hook that measures the teachers before the start."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import paddle

from ppcls.class_maps import in_students_order
from ppcls.data import Batch, Dataset, Loader
from ppcls.engine.evaluation.asking import ask_networks
from ppcls.engine.evaluation.evaluate import evaluate, evaluating
from ppcls.engine.evaluation.measures import logits_of
from ppcls.engine.hooks.base import Hook
from ppcls.engine.hooks.logging import LogHook
from ppcls.engine.run import Run
from ppcls.logger import LOGGER
from ppcls.metric.topk import topk_accuracy
from ppcls.teacher import KnownLogits


class TeacherCheck(Hook):
    """Measure the teachers on the validation set before the start, and warn about one that only guesses.

    Args:
        teachers: names of the teachers, see :func:`watched_teachers`.
        loader: the validation set.
        log: its writer records the accuracies; it is called before this hook.
        print_every: number of batches between log lines.
        casting: options of ``paddle.amp.auto_cast`` in evaluations.
        known: keeps logits for later evaluations.
        class_maps: the class of a teacher for each of the student's, of teachers with another order.
    """

    def __init__(
        self,
        teachers: Sequence[str],
        loader: Loader,
        log: LogHook,
        *,
        print_every: int,
        casting: Mapping[str, Any],
        known: KnownLogits,
        class_maps: Mapping[str, Sequence[int]],
    ) -> None:
        self.teachers = list(teachers)
        self.loader = loader
        self.log = log
        self.print_every = print_every
        self.casting = dict(casting)
        self.known = known
        self.class_maps = dict(class_maps)
        self._found: dict[str, float] = {}

    def before_start(self, run: Run) -> None:
        """Measure, and warn."""
        begin = time.perf_counter()
        model = run.parts.model
        still = [name for name in self.teachers if model.logits_never_change(name)]

        def ask(batch: Batch) -> dict[str, Any]:
            return ask_networks(model, self.teachers, batch, self.known, still)

        with evaluating(model), paddle.amp.auto_cast(**self.casting):
            found = evaluate(
                ask,
                self.loader,
                {"": [self._accuracies]},
                epoch=0,
                print_every=self.print_every,
                title="Teacher",
            )
        LOGGER.info(
            "teachers checked on %d images in %.1f s (Global.check_teacher: false leaves it out)",
            len(self.loader.dataset),
            time.perf_counter() - begin,
        )
        self._found = found
        guess = guessing_accuracy(self.loader.dataset)
        for name in self.teachers:
            accuracy = found[f"top1_{name}"]
            enough = accuracy >= suspicious_below(guess, len(self.loader.dataset))
            if guess < 1 and not enough:  # also if it is NaN
                _warn_of(name, accuracy, guess)

    def before_train(self, run: Run) -> None:
        """Record the accuracies."""
        if self.log.writer:
            self.log.writer.write("teacher", run.progress.step, 0, self._found)

    def _accuracies(self, outputs: Mapping[str, Any], label: paddle.Tensor) -> dict[str, paddle.Tensor]:
        found = {}
        for name, output in outputs.items():
            logits = in_students_order(logits_of(output), self.class_maps.get(name))
            found[f"top1_{name}"] = topk_accuracy(logits, label, [1])[0]
        return found


def guessing_accuracy(dataset: Dataset) -> float:
    """Return the accuracy of a network that always predicts the most frequent class."""
    counts: dict[int, int] = {}
    for index in range(len(dataset)):
        label = dataset.label(index)
        counts[label] = counts.get(label, 0) + 1
    return max(counts.values()) / len(dataset)


def suspicious_below(guess: float, images: int) -> float:
    """Return the accuracy below which a teacher is assumed to guess.

    It is three standard deviations (for this number of `images`) above the accuracy `guess`, at least 5 % and
    at most 50 % of the way from `guess` to 1.
    """
    deviation = 3 * math.sqrt(guess * (1 - guess) / images)
    return guess + min(max(deviation, 0.05 * (1 - guess)), 0.5 * (1 - guess))


def _warn_of(name: str, accuracy: float, guess: float) -> None:
    LOGGER.warning(
        "!!! %s has top-1 accuracy %.5f on the validation set; naming one class for all reaches %.5f. "
        "A student cannot learn from it. Its weights did not load (see the load report above, and its "
        "`pretrained`), or it counts the classes in another order, or it wants other mean, std or input_size",
        name,
        accuracy,
        guess,
    )
