"""Top-k accuracy."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import Tensor

from ppcls.errors import ConfigError
from ppcls.metric.base import Metric
from ppcls.registry import METRICS


def topk_accuracy(logits: Tensor, label: Tensor, ks: list[int]) -> list[Tensor]:
    """Return the share of samples whose label is among the k largest logits, for each k; NaN if a logit is.

    Of equal logits, the first is the largest one, as in predictions and reports. For k above 1 it is open
    which of those count that are equal to the smallest of the k.

    Args:
        logits: [N, C].
        label: class indices, int64 [N] or [N, 1], or soft labels, float [N, C]; for soft labels (mixup)
            the class with the largest value is the label.
        ks: values of k; those above C are treated as C.
    """
    if label.is_floating_point():
        label = label.argmax(axis=-1)
    label = label.reshape([-1, 1])
    if logits.dtype != paddle.float32:  # CPUs have no argmax in half precision; a cast copies
        logits = logits.astype("float32")
    ks = [min(k, logits.shape[-1]) for k in ks]
    hits = {1: (logits.argmax(axis=-1, keepdim=True) == label).astype("float32")}
    if max(ks) > 1:
        best = (paddle.topk(logits, max(ks), axis=-1)[1] == label).astype("float32")
        hits |= {k: best[:, :k] for k in ks if k > 1}
    # Added, and not asked about: the answer would have to come from the device in every step.
    nothing = paddle.where(logits.isnan().any(), paddle.full([], math.nan), paddle.zeros([]))
    return [hits[k].sum(axis=1).mean() + nothing for k in ks]


@METRICS.register()
class TopkAcc(Metric):
    """Top-k accuracy, 0 to 1, of the network, or of the main one among several.

    Args:
        topk: one or several k; the values are called ``top1``, ``top5`` and so on.
    """

    def __init__(self, topk: int | list[int] | tuple[int, ...] = (1, 5)) -> None:
        self.topk = [topk] if isinstance(topk, int) else list(topk)
        if not self.topk or any(not isinstance(k, int) or k < 1 for k in self.topk):
            raise ConfigError(f"TopkAcc: topk is {topk!r}, expected whole numbers of 1 or more")
        self.key = "logits"

    def __call__(self, outputs: Any, label: Tensor) -> dict[str, Tensor]:
        """Return scalar means over the batch."""
        values = topk_accuracy(self.output_of(outputs, self.key), label, self.topk)
        return {f"top{k}": value for k, value in zip(self.topk, values, strict=True)}


@METRICS.register()
class DistillationTopkAcc(TopkAcc):
    """Top-k accuracy of one sub-network.

    Args:
        model_key: name of the sub-network, such as ``Student``.
        topk: as for TopkAcc.
        feature_key: name of the output to measure; by default the logits.
    """

    def __init__(
        self,
        model_key: str,
        topk: int | list[int] | tuple[int, ...] = (1, 5),
        feature_key: str | None = None,
    ) -> None:
        super().__init__(topk)
        self.network = model_key
        self.key = feature_key or "logits"
