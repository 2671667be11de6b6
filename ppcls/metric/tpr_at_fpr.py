"""The hit rate of a detector at a bounded rate of false alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_FLOOR, Context
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.nn import functional as F

from ppcls.errors import ConfigError, DataError
from ppcls.metric.base import Metric, WholeSet
from ppcls.registry import METRICS

# Names of the values, in the order in which `best_operating_point` returns them.
VALUES = ("tpr", "fpr", "threshold")


def best_operating_point(rows: np.ndarray, max_fpr: float) -> tuple[float, float, float]:
    """Return the operating point with the largest hit rate among those with few enough false alarms.

    An image is called positive if its score is at least the threshold t. With the scores P of the positive
    images and N of the negative ones,

        TPR(t) = |{s in P: s >= t}| / |P|,   FPR(t) = |{s in N: s >= t}| / |N|.

    Args:
        rows: for each image its class (0 negative, 1 positive) and its score, [M, 2].
        max_fpr: the largest FPR allowed, 0 to 1.

    Returns:
        TPR, FPR and a threshold that gives both, of as few digits as possible. If no threshold satisfies the
        bound, the rates are 0 and the threshold is 1. All are NaN if one of the classes has no image.
    """
    positive = np.sort(rows[rows[:, 0] == 1, 1])
    negative = np.sort(rows[rows[:, 0] == 0, 1])
    if not len(positive) or not len(negative):
        return math.nan, math.nan, math.nan
    # Between two scores of positive images only false alarms change, so only these scores need to be tried.
    thresholds = np.unique(positive)
    alarms = (len(negative) - np.searchsorted(negative, thresholds)) / len(negative)
    allowed = np.flatnonzero(alarms <= max_fpr)
    if not len(allowed):
        return 0.0, 0.0, 1.0
    threshold = thresholds[allowed[0]]
    hits = (len(positive) - np.searchsorted(positive, threshold)) / len(positive)
    below = rows[rows[:, 1] < threshold, 1]
    return float(hits), float(alarms[allowed[0]]), _shortest(float(below.max(initial=-1)), float(threshold))


def _shortest(lower: float, score: float) -> float:
    """Return the number of the fewest decimal digits above `lower` and at most `score`, also as float32.

    All of these call the same images positive, and one with few digits is the same after it was printed. Nine
    are always enough, because scores are float32.
    """
    for digits in range(1, 10):
        number = float(Context(prec=digits, rounding=ROUND_FLOOR).create_decimal_from_float(score))
        if lower < min(number, float(np.float32(number))):
            return number
    return score


def _value(rows: np.ndarray, max_fpr: float, place: int) -> float:
    return best_operating_point(rows, max_fpr)[place]


@METRICS.register()
class TprAtFpr(Metric):
    """The largest true positive rate whose false positive rate is at most `max_fpr`, over the whole set.

    For networks with two classes; class 1 is the positive one, and its probability is the score. The values
    are ``tpr``, and the ``fpr`` and ``threshold`` at which it was reached. The threshold is the number of the
    fewest digits that gives these rates.

    The scores are the probabilities in float32, as an exported network gives them and ``ThreshOutput``
    compares them. Images of which they are exactly 1 cannot be told apart.

    Args:
        max_fpr: the largest rate of false alarms, 0 to 1.

    Raises:
        ConfigError: for a rate out of range.
    """

    evaluation_only = True
    class_num = 2

    def __init__(self, max_fpr: float = 1e-3) -> None:
        if not 0 <= max_fpr <= 1:
            raise ConfigError(f"expected a rate, 0 to 1, got {max_fpr}", path="TprAtFpr.max_fpr")
        self.max_fpr = max_fpr

    def __call__(self, outputs: Any, label: Tensor) -> Mapping[str, WholeSet]:
        """Return the values, which are computed at the end of the evaluation.

        Raises:
            ConfigError: if the network does not have two classes.
        """
        logits = self.output_of(outputs)
        if logits.shape[-1] != 2:
            raise ConfigError(f"TprAtFpr needs a network with two classes, this one has {logits.shape[-1]}")
        score = F.softmax(logits.astype("float32"), axis=-1)[:, 1]
        rows = paddle.stack([label.reshape([-1]).astype("float32"), score], axis=1)
        return {
            name: WholeSet(rows, partial(_value, max_fpr=self.max_fpr, place=place))
            for place, name in enumerate(VALUES)
        }

    def check_labels(self, labels: np.ndarray) -> None:
        """Check that there are images of both classes.

        Raises:
            DataError: if one of them has no images.
        """
        missing = [str(number) for number in (0, 1) if number not in labels]
        if missing:
            raise DataError(
                f"TprAtFpr: DataLoader.Eval has no image of class {' and '.join(missing)}; the rates of hits "
                "and of false alarms need both, negative images (class 0) and positive ones (class 1)"
            )
