"""The measures of an evaluation: losses and metrics of every student.

A student is a network that trains, whatever its name is; deep mutual learning has two of them. Each is
measured separately. Values of the network to deploy keep their names (``top1``); to those of another student
its name is added (``top1_Student2``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import paddle

from ppcls.class_maps import in_students_order
from ppcls.config import Recipe
from ppcls.data import Dataset
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.loss import build_loss
from ppcls.loss.class_map import class_maps_of
from ppcls.loss.combined import CombinedLoss
from ppcls.loss.kldiv import kl_divergence
from ppcls.metric import LOSS, CombinedMetric, Criterion, WholeSet, build_metric, build_metric_for
from ppcls.run_states import EMA

Measure = Callable[[Any, paddle.Tensor], Mapping[str, paddle.Tensor | WholeSet]]


def logits_of(output: Any) -> paddle.Tensor:
    """Return the logits [N, C] from the output of one network: a map, or only the logits."""
    return output["logits"] if isinstance(output, Mapping) else output


def classifiers(outputs: Mapping[str, Any], classes: int) -> list[str]:
    """Return the names of the networks with `classes` classes.

    Args:
        outputs: outputs of each network for two images, by name.
        classes: number of classes of the labels.
    """
    found = []
    for name, output in outputs.items():
        logits = output.get("logits") if isinstance(output, Mapping) else output
        if isinstance(logits, paddle.Tensor) and list(logits.shape) == [2, classes]:
            found.append(name)
    return found


def value_name(name: str, network: str | None) -> str:
    """Return the name of a value among all averages: the name of another student is added."""
    return f"{name}_{network}" if network else name


def measure_batch(
    groups: Mapping[str, Sequence[Measure]], outputs: Any, label: paddle.Tensor
) -> dict[str, dict[str, paddle.Tensor | WholeSet]]:
    """Measure a batch.

    Args:
        groups: the measures by student, ``""`` for the network to deploy.
        outputs: outputs of the model.
        label: labels of the batch.

    Returns:
        values by name for each key of `groups`.

    Raises:
        ConfigError: if two values have the same name.
    """
    found: dict[str, dict[str, paddle.Tensor | WholeSet]] = {}
    taken: set[str] = set()
    for network, measures in groups.items():
        values = found[network] = {}
        for measure in measures:
            for name, value in measure(outputs, label).items():
                full = value_name(name, network)
                if full in taken:
                    raise ConfigError(
                        f"Metric.Eval: two values of an evaluation are called {full!r}; rename one"
                    )
                taken.add(full)
                values[name] = value
    return found


class Agreement:
    """The agreement of a student with its teachers, as a measure for evaluations.

    ``agreement_<teacher>`` is the share of images with the same predicted class, ``kl_<teacher>`` the mean
    of KL(softmax(teacher) || softmax(student)) in nats, without temperature.

    Args:
        student: name of the network to deploy.
        teachers: names of networks with as many classes.
        class_maps: for teachers that count the classes in another order, the teacher's class of each of the
            student's.
    """

    def __init__(
        self, student: str, teachers: Sequence[str], class_maps: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.student = student
        self.teachers = list(teachers)
        self.class_maps = dict(class_maps or {})

    def __call__(self, outputs: Mapping[str, Any], label: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Return scalar means over the batch."""
        own = logits_of(outputs[self.student])
        values = {}
        for name in self.teachers:
            theirs = in_students_order(logits_of(outputs[name]), self.class_maps.get(name))
            same = (own.argmax(-1) == theirs.argmax(-1)).astype("float32")
            values[f"agreement_{name}"] = same.mean()
            values[f"kl_{name}"] = kl_divergence(own, theirs, temperature=1.0)
        return values


class Measures:
    """The measures of an evaluation, student by student.

    Args:
        config: the recipe.
        main: the network to deploy; None for a model of one network.
        students: the other networks that are measured on their own.
        absent: further networks that train but cannot be measured, because their weights are missing.

    Attributes:
        groups: see :func:`measure_batch`.
        networks: names of the networks whose outputs are needed; empty for a model of one network.
        named: names of the networks that ``Metric.Eval`` names.
    """

    def __init__(
        self,
        config: Recipe,
        main: str | None,
        students: Sequence[str] = (),
        absent: Sequence[str] = (),
    ) -> None:
        self.main = main
        metrics = config.Metric.Eval
        losses = config.Loss.Eval
        self._metrics: dict[str, CombinedMetric] = {}
        self._losses: dict[str, CombinedLoss] = {}
        if main is None:
            self._metrics[""] = build_metric(metrics, where="Metric.Eval")
        else:
            maps = class_maps_of(config.Loss, config.arch)
            others = [*students, *absent]
            self._metrics[""] = build_metric_for(metrics, main, main, others, class_maps=maps)
            for name in students:
                self._metrics[name] = build_metric_for(metrics, name, main, [], class_maps=maps)
        if losses:
            self._losses[""] = build_loss(losses, main=main, where="Loss.Eval")
            for name in students:
                own = self._losses[""].for_network(name)
                if own is not None:
                    self._losses[name] = own
        for loss in self._losses.values():
            loss.eval()
        self.named = build_metric(metrics, main, "Metric.Eval").networks
        self._more: dict[str, list[Measure]] = {}
        self.networks: set[str] = set()
        for metric in self._metrics.values():
            self.networks |= metric.networks
        for loss in self._losses.values():
            self.networks |= loss.networks

    @property
    def groups(self) -> dict[str, list[Measure]]:
        """The measures of each student; see :func:`measure_batch`."""
        return {
            network: [
                *([self._losses[network]] if network in self._losses else []),
                metric,
                *self._more.get(network, []),
            ]
            for network, metric in self._metrics.items()
        }

    def add(self, network: str, measure: Measure) -> None:
        """Add a measure of a student, ``""`` for the network to deploy."""
        self._more.setdefault(network, []).append(measure)

    def check_labels(self, dataset: Dataset) -> None:
        """Raise DataError if a metric cannot work with the labels of the images to evaluate."""
        labels = np.array([dataset.label(index) for index in range(len(dataset))])
        for metric in self._metrics.values():
            metric.check_labels(labels)

    def log_following(self) -> None:
        """Log that metrics which only name other networks are also used for the network to deploy."""
        if self.named and self.main not in self.named:
            names = ", ".join(sorted(self.named))
            LOGGER.info(
                "Metric.Eval names %s; %s, the network to deploy, has the same metrics", names, self.main
            )

    def need_logits_alone(self, name: str, outputs: Any) -> bool:
        """Tell whether all measures need only the logits of a network.

        Args:
            name: name of the network.
            outputs: outputs of the model for two images.
        """
        if not isinstance(outputs[name], Mapping):
            return True
        reduced = {**outputs, name: {key: value for key, value in outputs[name].items() if key == "logits"}}
        try:
            with paddle.no_grad():
                measure_batch(self.groups, reduced, paddle.zeros([2, 1], "int64"))
        except (ConfigError, KeyError):
            return False
        return "logits" in reduced[name]

    def criteria(self, outputs: Any) -> dict[str, Criterion]:
        """Return the value by which evaluations of each student are compared, and try every measure.

        If no metric names a student, and it lacks the output that the metrics of the network to deploy need,
        it is compared by its loss or, without one, left out.

        Args:
            outputs: outputs of the model for two images.

        Returns:
            the value the value by student, ``""`` for the network to deploy.

        Raises:
            ConfigError: if a measure does not fit the model.
        """
        label = paddle.zeros([2, 1], "int64")
        found = {}
        with paddle.no_grad():
            for network in list(self._metrics):
                criterion = self._criterion(network, outputs, label)
                if criterion is not None:
                    found[network] = replace(criterion, name=value_name(criterion.name, network))
            for network, values in measure_batch(self.groups, outputs, label).items():
                for name in values:
                    if value_name(name, network).endswith(EMA):
                        raise ConfigError(
                            f"Metric.Eval: {value_name(name, network)!r} cannot name a value: names that end "
                            f"in {EMA} stand for averaged weights"
                        )
        return found

    def _criterion(self, network: str, outputs: Any, label: paddle.Tensor) -> Criterion | None:
        loss = LOSS if network in self._losses else None
        try:
            return self._metrics[network].criterion(outputs, label) or loss
        except ConfigError as error:
            if not network:
                raise
            LOGGER.info("%s: not measured by the metrics of %s (%s)", network, self.main, error)
        self._metrics[network] = CombinedMetric([])
        if loss is None:
            del self._metrics[network]
        return loss


def is_better(score: float, best: float | None) -> bool:
    """Tell whether a score is the best so far; minus infinity (a value that is not finite) never is."""
    return score > (-math.inf if best is None else best)
