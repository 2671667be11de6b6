"""What every metric has: the network that it looks at, and the direction in which its value is better."""

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
    """A value of all images together that is no mean over them, such as a rate at a threshold.

    Only for evaluations: the rows are kept until all images were seen.

    Attributes:
        rows: what each image of a batch contributes, [N, ...].
        reduce: returns the value of the rows of all images, float32 [M, ...], in the order of their batches;
            a function of a module, or a ``functools.partial`` of one, because processes exchange it.
    """

    rows: Tensor
    reduce: Callable[[np.ndarray], float]


class Metric(Component):
    """Base class of metrics; values are averaged over the images of an evaluation.

    The first value of the first metric of ``Metric.Eval`` chooses ``best_model``, ends a run early and is
    what ReduceOnPlateau watches.

    Attributes:
        higher_is_better: whether a larger value is the better one. A metric of which less is better, such as
            an error, sets it to False.
        evaluation_only: whether it cannot stand in ``Metric.Train``; true for a value of the whole set.
        class_num: the number of classes that it is for; None for any.
        network: name of the sub-network that the metric looks at. None stands for the network to deploy;
            whoever builds the metric fills its name in when the model has several networks.
    """

    higher_is_better: bool = True
    evaluation_only: bool = False
    class_num: int | None = None
    network: str | None = None

    @abstractmethod
    def __call__(self, outputs: Any, label: Tensor) -> Mapping[str, Tensor | WholeSet]:
        """Return scalar means over the batch, by name; for what is no mean, a :class:`WholeSet`.

        Args:
            outputs: what the model returns: logits [N, C], a map with ``logits`` among other outputs, or,
                for a model of several networks, a map from their names to one of these.
            label: classes, int64 [N, 1].
        """

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise DataError if the labels of the images to evaluate, int64 [M], do not do for this metric."""

    def output_of(self, outputs: Any, key: str = "logits") -> Tensor:
        """Return the output `key` of the metric's network.

        Raises:
            ConfigError: if the model did not return it; the message lists what it returned.
        """
        for name in (self.network, key):
            # A network asked for its logits alone may come without the map around it.
            alone = name == self.network and isinstance(outputs, Mapping) and "logits" in outputs
            if name is None or not isinstance(outputs, Mapping) or alone:
                continue
            if name not in outputs:
                raise ConfigError(
                    f"a metric needs {name!r}; the model returns {', '.join(map(str, outputs))}"
                )
            outputs = outputs[name]
        return outputs
