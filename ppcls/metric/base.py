"""The base class of metrics: the network to measure, and whether larger values are better."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import Tensor

from ppcls.contracts import Component
from ppcls.errors import ConfigError


@dataclass(frozen=True)
class WholeSet:
    """A value of all images that is not a mean over them, such as a rate at a threshold.

    Only for evaluations: the rows are kept until the end of the evaluation.

    Attributes:
        rows: numbers of each image of a batch, [N, ...].
        reduce: returns the value from the rows of all images, float32 [M, ...], in the order of their
            batches. It must be a function of a module, or a ``functools.partial`` of one, because processes
            send it to each other.
    """

    rows: Tensor
    reduce: Callable[[np.ndarray], float]


class Metric(Component):
    """Base class of metrics; values are averaged over the images of an evaluation.

    The first value of the first metric of ``Metric.Eval`` decides about ``best_model`` and early stopping,
    and ReduceOnPlateau uses it.

    Attributes:
        higher_is_better: whether larger values are better; False for an error rate, for example.
        evaluation_only: whether it is not allowed in ``Metric.Train``; True for a value of the whole set.
        class_num: the number of classes that it needs; None for any.
        network: name of the sub-network to measure. None means the network to deploy; if the model has
            several networks, its name is filled in when the metric is built.
    """

    higher_is_better: bool = True
    evaluation_only: bool = False
    class_num: int | None = None
    network: str | None = None

    @abstractmethod
    def __call__(self, outputs: Any, label: Tensor) -> Mapping[str, Tensor | WholeSet]:
        """Return scalar means over the batch, by name; a :class:`WholeSet` for values that are not means.

        Args:
            outputs: outputs of the model: logits [N, C], a map with ``logits`` among other outputs, or,
                for a model of several networks, a map from their names to one of these.
            label: classes, int64 [N, 1].
        """

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise DataError if the metric cannot work with the labels of the images to evaluate, int64 [M]."""

    def output_of(self, outputs: Any, key: str = "logits") -> Tensor:
        """Return the output `key` of the metric's network.

        Raises:
            ConfigError: if the model did not return it; the message lists what it returned.
        """
        for name in (self.network, key):
            # A network of which only the logits are needed may return them without a map.
            alone = name == self.network and isinstance(outputs, Mapping) and "logits" in outputs
            if name is None or not isinstance(outputs, Mapping) or alone:
                continue
            if name not in outputs:
                raise ConfigError(
                    f"a metric needs {name!r}; the model returns {', '.join(map(str, outputs))}"
                )
            outputs = outputs[name]
        return outputs
