"""A yes-or-no answer of a network with two classes, decided by a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcls.data.postprocess import PostProcess
from ppcls.errors import ConfigError
from ppcls.registry import POSTPROCESSES


@POSTPROCESSES.register()
class ThreshOutput(PostProcess):
    """Class 1 if its probability is at least `threshold`, else class 0; for networks with two classes.

    The score is the probability of the returned class, so it is below 1/2 if the threshold decides against
    the more probable class.

    Args:
        threshold: smallest probability of class 1, 0 to 1. ``TprAtFpr`` finds one for a given rate of false
            alarms.
        label_0: name of class 0.
        label_1: name of class 1.

    Raises:
        ConfigError: if `threshold` is not a probability.
    """

    def __init__(self, threshold: float, label_0: str = "0", label_1: str = "1") -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(
                f"expected a probability, 0 to 1, got {threshold}", path="ThreshOutput.threshold"
            )
        self.threshold = threshold
        self.labels = (label_0, label_1)

    def __call__(
        self, probabilities: np.ndarray, file_names: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return a dict for each row: class_ids, scores, file_name (if given), label_names.

        Args:
            probabilities: [N, 2].
            file_names: one for each row.

        The lists have one entry each; scores are rounded to 5 places.

        Raises:
            ConfigError: if there are not two classes.
        """
        values = np.asarray(probabilities)
        if values.shape[-1] != 2:
            raise ConfigError(
                f"ThreshOutput decides between two classes, but the network has {values.shape[-1]}; use Topk"
            )
        results = []
        for row, pair in enumerate(values):
            chosen = int(pair[1] >= self.threshold)
            result: dict[str, Any] = {"class_ids": [chosen], "scores": [round(float(pair[chosen]), 5)]}
            if file_names is not None:
                result["file_name"] = file_names[row]
            result["label_names"] = [self.labels[chosen]]
            results.append(result)
        return results
