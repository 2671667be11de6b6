"""Scores of classes, and which of them are mistaken for each other.

With ``tp``, the number of images of a class that are predicted correctly: precision = tp / predictions of the
class, recall = tp / images of the class, F1 = 2 tp / (predictions + images). 0 / 0 is left empty, but a class
that has images and is never predicted has precision 0. Macro averages are over the classes that have images,
weighted averages weight these by their number of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScores:
    """Arrays [C] with one entry per class; NaN for 0 / 0 (see the module)."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray

    def averages(self) -> dict[str, dict[str, float]]:
        """Return precision, recall and f1 for ``macro`` and ``weighted``."""
        there = self.support > 0
        weights = {"macro": there / there.sum(), "weighted": self.support / self.support.sum()}
        values = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {
            kind: {name: float((column[there] * weight[there]).sum()) for name, column in values.items()}
            for kind, weight in weights.items()
        }


def class_scores(label: np.ndarray, predicted: np.ndarray, classes: int) -> ClassScores:
    """Return precision, recall and F1 of each class.

    Args:
        label: true classes, int [N], N > 0.
        predicted: predicted classes, int [N].
        classes: number of classes C.
    """
    support, guesses = (np.bincount(values, minlength=classes) for values in (label, predicted))
    hits = np.bincount(label[label == predicted], minlength=classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where((guesses == 0) & (support > 0), 0.0, hits / guesses)
        return ClassScores(precision, hits / support, 2 * hits / (support + guesses), support, guesses)


def confusion_matrix(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how many images of each true class (rows) were predicted as each class, int64 [C, C]."""
    cells = np.bincount(label * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def confused_pairs(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return rows (true class, predicted class, images) of mistakes, most frequent first."""
    wrong = label != predicted
    cells, counts = np.unique(label[wrong] * classes + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return np.stack([cells // classes, cells % classes, counts], axis=1)[order]
