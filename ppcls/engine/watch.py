"""Watching a run: are the teachers any good, does the student come to agree, is it still learning."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle import nn

from ppcls.arch.distillation import AttentionModel
from ppcls.data import Dataset, Loader
from ppcls.engine.evaluate import evaluate, evaluating
from ppcls.engine.hooks import LogHook, split_averages
from ppcls.engine.train import Hook, Run
from ppcls.logger import LOGGER
from ppcls.loss.kldiv import kl_divergence
from ppcls.metric import Criterion
from ppcls.metric.topk import topk_accuracy


def logits_of(output: Any) -> paddle.Tensor:
    """Return the logits [N, C] in what one network returns: a map with taps, else the logits alone."""
    return output["logits"] if isinstance(output, Mapping) else output


def watched_teachers(model: nn.Layer, student: str | None, classifying: Sequence[str]) -> list[str]:
    """Return the names of frozen networks that classify into the student's classes.

    Args:
        model: the whole.
        student: the network to deploy; None for a plain network, which has no teacher.
        classifying: names of the networks with the student's classes.
    """
    return [name for name in classifying if name != student and _is_frozen(model, name)]


def watched_students(model: nn.Layer, student: str | None, classifying: Sequence[str]) -> list[str]:
    """Return the names of the other networks that train and classify into the student's classes."""
    return [name for name in classifying if name != student and not _is_frozen(model, name)]


def _is_frozen(model: nn.Layer, name: str) -> bool:
    network = model.network(name)
    if isinstance(network, AttentionModel) and network.names[0] in network.frozen:
        return True  # the chain's classifier is frozen, what transforms its features is not
    return name in model.frozen


class Agreement:
    """How near a student is to its teachers: a measure for evaluations.

    ``agreement_<teacher>`` is the share of images for which both name the same class, ``kl_<teacher>`` the
    mean of KL(softmax(teacher) || softmax(student)) in nats, without temperature.

    Args:
        student: name of the network to deploy.
        teachers: names of networks with the same classes.
    """

    def __init__(self, student: str, teachers: Sequence[str]) -> None:
        self.student, self.teachers = student, list(teachers)

    def __call__(self, outputs: Mapping[str, Any], label: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Return scalar means over the batch."""
        own, values = logits_of(outputs[self.student]), {}
        for name in self.teachers:
            theirs = logits_of(outputs[name])
            same = (own.argmax(-1) == theirs.argmax(-1)).astype("float32")
            values[f"agreement_{name}"] = same.mean()
            values[f"kl_{name}"] = kl_divergence(own, theirs, temperature=1.0)
        return values


class TeacherCheck(Hook):
    """Measure the teachers on the validation set before the start, and warn of one that only guesses.

    Args:
        teachers: their names, see :func:`watched_teachers`.
        loader: the validation set.
        log: its writer receives the accuracies; it comes before this hook.
        print_every: batches between log lines.
        casting: options of ``paddle.amp.auto_cast`` in evaluations.
    """

    def __init__(
        self,
        teachers: Sequence[str],
        loader: Loader,
        log: LogHook,
        *,
        print_every: int,
        casting: Mapping[str, Any],
    ) -> None:
        self.teachers, self.loader, self.log = list(teachers), loader, log
        self.print_every, self.casting = print_every, dict(casting)
        self._found: dict[str, float] = {}

    def before_start(self, run: Run) -> None:
        """Measure, and warn."""
        networks = {name: run.model.network(name) for name in self.teachers}
        begin = time.perf_counter()
        with evaluating(run.model), paddle.amp.auto_cast(**self.casting):
            found = evaluate(
                lambda image: {name: network(image) for name, network in networks.items()},
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
            if guess < 1 and accuracy < suspicious_below(guess, len(self.loader.dataset)):
                _warn_of(name, accuracy, guess)

    def before_train(self, run: Run) -> None:
        """Record the accuracies."""
        if self.log.writer:
            self.log.writer.write("teacher", run.progress.step, 0, self._found)

    def _accuracies(self, outputs: Mapping[str, Any], label: paddle.Tensor) -> dict[str, paddle.Tensor]:
        return {
            f"top1_{name}": topk_accuracy(logits_of(output), label, [1])[0]
            for name, output in outputs.items()
        }


def guessing_accuracy(dataset: Dataset) -> float:
    """Return the accuracy of always naming the most frequent class, as a network without weights may."""
    counts: dict[int, int] = {}
    for index in range(len(dataset)):
        label = dataset.label(index)
        counts[label] = counts.get(label, 0) + 1
    return max(counts.values()) / len(dataset)


def suspicious_below(guess: float, images: int) -> float:
    """Return the accuracy below which a teacher is taken for one that guesses.

    Three standard deviations of the accuracy of a guess over `images`, and at least a twentieth of the way
    from guessing to perfect; but half of that way suffices, however few images there are.
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


class EarlyStopping(Hook):
    """End the run when evaluations no longer get better.

    Its state is part of ``run.progress``, and each epoch is judged once, so a resumed run ends where an
    uninterrupted one does. Comes before the hook that saves.

    Args:
        patience: evaluations in a row without improvement that end the run.
        min_delta: by how much the score must pass that of the last improvement.
        criterion: what evaluations are compared by. With averaged weights the better of both counts.
    """

    def __init__(self, patience: int, min_delta: float, criterion: Criterion) -> None:
        self.patience, self.min_delta, self.criterion = patience, min_delta, criterion

    def after_eval(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Judge an evaluation."""
        progress = run.progress
        if progress.judged_epoch != progress.epoch:  # the same again: resumed between evaluation and save
            score = max(self.criterion.score(own) for own in split_averages(metrics) if own)
            progress.judged_epoch = progress.epoch
            mark = -math.inf if progress.judged_score is None else progress.judged_score + self.min_delta
            if score > mark:
                progress.judged_score, progress.waited = score, 0
            else:
                progress.waited += 1
        if progress.waited >= self.patience:
            run.ending = True
            LOGGER.info(
                "early stopping: no evaluation of the last %d was better than %s%s; the run ends after "
                "epoch %d of %d",
                progress.waited,
                self.criterion.shown(progress.judged_score),
                f" by more than {self.min_delta:g}" if self.min_delta else "",
                progress.epoch,
                run.epochs,
            )
