"""Metrics: values by name for a batch, from what a network returns and its labels."""

from __future__ import annotations

from typing import Any

from paddle import Tensor

from ppcls.config import plain
from ppcls.config.construct import construct
from ppcls.errors import ConfigError
from ppcls.metric.topk import DistillationTopkAcc, TopkAcc
from ppcls.registry import METRICS

__all__ = ["CombinedMetric", "DistillationTopkAcc", "TopkAcc", "build_metric"]


class CombinedMetric:
    """All metrics of a section, called as one.

    Attributes:
        networks: names of the sub-networks whose outputs are needed; empty for a plain network.
    """

    def __init__(self, metrics: list[Any]) -> None:
        self.metrics = metrics
        self.networks: set[str] = {m.network for m in metrics if m.network is not None}

    def __call__(self, outputs: Any, label: Tensor) -> dict[str, Tensor]:
        """Return scalar means over the batch, by name, in the order of the section.

        A name that is taken already gets that of the network behind it: ``top1``, ``top1_Teacher``.
        """
        values: dict[str, Tensor] = {}
        for number, metric in enumerate(self.metrics):
            for name, value in metric(outputs, label).items():
                values[name if name not in values else f"{name}_{metric.network or number}"] = value
        return values


def build_metric(config: Any, main: str | None = None) -> CombinedMetric:
    """Build the metrics of ``Metric.Train`` or ``Metric.Eval``.

    Args:
        config: ``[{"TopkAcc": {"topk": [1, 5]}}, ...]``; nothing gives a metric without values.
        main: the sub-network that metrics which name none look at, when the model is made of several.

    Raises:
        ConfigError: for unknown names and options.
    """
    nodes = plain(config) or []
    if not isinstance(nodes, list):
        raise ConfigError(f"Metric: expected a list of metrics, got {nodes!r}")
    return CombinedMetric([_build(node, f"Metric.{i}", main) for i, node in enumerate(nodes)])


def _build(node: Any, where: str, main: str | None) -> Any:
    metric = construct(METRICS, node, where)
    if metric.network is None:
        metric.network = main
    return metric
