"""Metrics: named values of a batch, computed from outputs and labels."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ppcls.class_maps import in_students_order
from ppcls.config import plain, single
from ppcls.config.binding import construct
from ppcls.contracts import PluginErrors
from ppcls.errors import ConfigError
from ppcls.metric.base import Metric, WholeSet
from ppcls.metric.topk import DistillationTopkAcc, TopkAcc
from ppcls.metric.tpr_at_fpr import TprAtFpr
from ppcls.registry import METRICS

__all__ = [
    "LOSS",
    "CombinedMetric",
    "Criterion",
    "DistillationTopkAcc",
    "Metric",
    "TopkAcc",
    "TprAtFpr",
    "WholeSet",
    "build_metric",
    "build_metric_for",
    "build_metrics",
]

ClassMaps = Mapping[str, Sequence[int]]
_NETWORK_OPTION = "model_key"  # the option that names the network that a metric measures


@dataclass(frozen=True)
class Criterion:
    """The value by which the evaluations of a run are compared.

    Attributes:
        name: name of an average of the evaluation, such as ``top1`` or ``loss``.
        higher_is_better: whether larger values are better.
    """

    name: str
    higher_is_better: bool

    def score(self, averages: Mapping[str, float]) -> float:
        """Return a number where larger is better; minus infinity if the value is not finite."""
        value = averages[self.name]
        if not math.isfinite(value):
            return -math.inf
        return value if self.higher_is_better else -value

    def shown(self, score: float | None) -> str:
        """Return the value with this score as text for the log; ``none`` if there is no score yet."""
        if score is None:
            return "none"
        return f"{score if self.higher_is_better else -score:.5f}"


LOSS = Criterion("loss", higher_is_better=False)


class CombinedMetric:
    """All metrics of a section, called together.

    Args:
        metrics: the metrics in the order of the section.
        main: the network whose values have no network's name added; None for a single network.
        places: config path of each metric, for messages.
        class_maps: for networks with other classes, or the same in another order: the class of the network
            for each class of the labels. Metrics get their logits in the order of the labels.

    Attributes:
        networks: names of the sub-networks whose outputs are needed; empty for a single network.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        main: str | None = None,
        places: Sequence[str] | None = None,
        class_maps: ClassMaps | None = None,
    ) -> None:
        self.metrics = list(metrics)
        self.main = main
        self.class_maps = dict(class_maps or {})
        self.places = list(places or [type(metric).__name__ for metric in metrics])
        self.networks: set[str] = {m.network for m in metrics if m.network is not None}

    def __call__(self, outputs: Any, label: Tensor) -> dict[str, Tensor | WholeSet]:
        """Return scalar means over the batch and values of the whole set, by name, in the section's order.

        The name of a network is added to its values unless it is the main one: ``top1``, ``top1_Teacher``.

        Raises:
            ConfigError: if a metric returns anything but numbers by name.
        """
        outputs = self._in_order_of_labels(outputs)
        values: dict[str, Tensor | WholeSet] = {}
        for number, metric in enumerate(self.metrics):
            for name, value in self._values(number, outputs, label).items():
                candidates = [f"{name}_{metric.network or number}", f"{name}_{number}"]
                if self._is_main(metric):
                    candidates.insert(0, name)
                values[next(c for c in candidates if c not in values)] = value
        return values

    def criterion(self, outputs: Any, label: Tensor) -> Criterion | None:
        """Return how the first metric of the main network compares evaluations.

        Args:
            outputs: outputs of the model for any batch; they are needed to find the names of the values.
            label: labels of that batch.

        Returns:
            None if no metric measures the main network.
        """
        for number, metric in enumerate(self.metrics):
            if self._is_main(metric):
                return Criterion(next(iter(self._values(number, outputs, label))), metric.higher_is_better)
        return None

    def _in_order_of_labels(self, outputs: Any) -> Any:
        mapped = self.class_maps.keys() & self.networks
        if not mapped or not isinstance(outputs, Mapping):
            return outputs
        ordered = dict(outputs)
        for name in mapped & outputs.keys():
            output = outputs[name]
            if not isinstance(output, Mapping):
                ordered[name] = in_students_order(output, self.class_maps[name])
            elif "logits" in output:
                logits = in_students_order(output["logits"], self.class_maps[name])
                ordered[name] = {**output, "logits": logits}
        return ordered

    def _is_main(self, metric: Metric) -> bool:
        return self.main is None or metric.network in (None, self.main)

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise DataError if a metric cannot work with the labels of the images to evaluate, int64 [M]."""
        for metric in self.metrics:
            metric.check_labels(labels)

    def _values(self, number: int, outputs: Any, label: Tensor) -> dict[str, Tensor | WholeSet]:
        place = self.places[number]
        metric = self.metrics[number]
        with PluginErrors(metric, place):
            found = metric(outputs, label)
        if not isinstance(found, Mapping) or not found:
            raise ConfigError(
                f"expected values by name such as {{'top1': 0.5}}, got {_described(found)}", path=place
            )
        return {name: _scalar(value, f"{place}: {name}") for name, value in found.items()}


def _scalar(value: Any, where: str) -> Tensor | WholeSet:
    if isinstance(value, WholeSet):
        return value
    if isinstance(value, numbers.Real):
        return paddle.to_tensor(float(value))
    if not isinstance(value, Tensor) or value.size != 1:
        raise ConfigError(
            f"expected one number, the mean over the batch, got {_described(value)}", path=where
        )
    return value


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return "an empty map" if value == {} else f"a {type(value).__name__}"


def build_metric(
    config: Any, main: str | None = None, where: str = "Metric", class_maps: ClassMaps | None = None
) -> CombinedMetric:
    """Build the metrics of ``Metric.Train`` or ``Metric.Eval``.

    Args:
        config: ``[{"TopkAcc": {"topk": [1, 5]}}, ...]``; without any entry the result has no values.
        main: the sub-network for metrics that do not name one, if the model has several.
        where: config path of the section, for messages.
        class_maps: see :class:`CombinedMetric`.

    Raises:
        ConfigError: for unknown names and options.
    """
    nodes = _nodes(config, where)
    metrics = [_build(node, f"{where}.{i}", main) for i, node in enumerate(nodes)]
    return CombinedMetric(metrics, main, _places(nodes, where), class_maps)


build_metrics = build_metric  # PaddleClas's name for it


def build_metric_for(
    config: Any,
    network: str,
    main: str,
    others: Sequence[str],
    where: str = "Metric.Eval",
    class_maps: ClassMaps | None = None,
) -> CombinedMetric:
    """Build the metrics that measure one network out of several.

    These are the metrics that name it. If there are none, those of the network to deploy are used for
    `network` instead, or else those of the network that is named first. For the network to deploy, metrics of
    networks that are not measured on their own (frozen ones) come after its own.

    Args:
        config: ``Metric.Eval``.
        network: the network to measure.
        main: the network to deploy.
        others: the other networks that are measured on their own.
        where: config path of the section, for messages.
        class_maps: see :class:`CombinedMetric`.

    Raises:
        ConfigError: for unknown names and options.
    """
    nodes = _nodes(config, where)
    places = _places(nodes, where)
    metrics = [_build(node, f"{where}.{i}", main) for i, node in enumerate(nodes)]
    named = [metric.network for metric in metrics]
    followed = next((name for name in (network, main, *named[:1]) if name in named), None)
    chosen = []
    shown = []
    for i, metric in enumerate(metrics):
        if metric.network == followed:
            chosen.append(_build(_aimed_at(network, nodes[i]), places[i], network))
            shown.append(places[i])
    if network == main:
        elsewhere = [i for i, name in enumerate(named) if name not in (main, *others)]
        chosen += [metrics[i] for i in elsewhere]
        shown += [places[i] for i in elsewhere]
    return CombinedMetric(chosen, network, shown, class_maps)


def _nodes(config: Any, where: str) -> list[Any]:
    nodes = plain(config) or []
    if not isinstance(nodes, list):
        raise ConfigError(f"expected a list of metrics, got {nodes!r}", path=where)
    return nodes


def _places(nodes: Sequence[Any], where: str) -> list[str]:
    return [f"{where}.{i}.{single(node, f'{where}.{i}')[0]}" for i, node in enumerate(nodes)]


def _aimed_at(network: str, node: Any) -> dict[str, Any]:
    """Return the config of a metric with `network` as its network, if it has such an option."""
    name, options = single(node, "Metric")
    return {name: {**options, _NETWORK_OPTION: network} if _NETWORK_OPTION in options else options}


def _build(node: Any, where: str, network: str | None) -> Metric:
    """Build one metric; if it names no network, it measures `network`."""
    metric: Metric = construct(METRICS, node, where)
    if metric.network is None:
        metric.network = network
    return metric
