"""Collect the answers of the networks of a run while it is evaluated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ppcls.class_maps import in_students_order
from ppcls.data import Batch
from ppcls.distributed import gather
from ppcls.engine.evaluation.measures import classifiers, logits_of
from ppcls.report.answers import Answer, Answers


class AnswerCollector:
    """Keeps the classes that networks predict in an evaluation, and their probabilities.

    It only looks at outputs that the evaluation computes anyway, and leaves them on the device until they are
    asked for.

    Args:
        networks: names of the networks; none for a model of one network.
        classes: number of classes.
        class_maps: the class of a network for each class of the images, of networks with another order.
    """

    def __init__(
        self, networks: Sequence[str], classes: int, class_maps: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.networks = list(networks) or [""]
        self.classes = classes
        self.class_maps = dict(class_maps or {})
        self._batches: dict[bool, list[tuple[np.ndarray, np.ndarray, list[paddle.Tensor]]]] = {}
        self._averaged = False

    def begin(self, *, averaged: bool) -> None:
        """Forget the last evaluation of the weights, or of the averaged weights, because one begins."""
        self._averaged = averaged
        self._batches[averaged] = []

    def __call__(self, outputs: Any, batch: Batch) -> None:
        """Keep the answers for a batch."""
        label = np.asarray(batch.label).reshape(-1)
        if len(label) != len(batch.index):  # mixed images have no single class
            return
        rows = paddle.arange(len(label))
        truth = paddle.stack([rows, paddle.to_tensor(label.astype(np.int64))], axis=1)
        kept = []
        for name in self.networks:
            logits = logits_of(outputs[name] if name else outputs)
            logits = in_students_order(logits, self.class_maps.get(name))
            probabilities = F.softmax(logits.detach().astype("float32"), axis=-1)
            kept += [probabilities.argmax(-1), probabilities.max(-1), paddle.gather_nd(probabilities, truth)]
        self._batches[self._averaged].append((np.array(batch.index), label, kept))

    def gathered(self, *, averaged: bool, epoch: int) -> Answers | None:
        """Return the answers of the last evaluation; all processes have to call this.

        Args:
            averaged: those of the averaged weights.
            epoch: epoch of the evaluation.

        Returns:
            None if nothing was collected.
        """
        shares = [share for share in gather(self._columns(averaged)) if share is not None]
        if not shares:
            return None
        index, label, *columns = (np.concatenate(parts) for parts in zip(*shares, strict=True))
        index, first = np.unique(index, return_index=True)
        networks = {
            name: Answer(*(column[first] for column in columns[3 * place : 3 * place + 3]))
            for place, name in enumerate(self.networks)
        }
        return Answers(epoch, self.classes, index, label[first], networks)

    def _columns(self, averaged: bool) -> list[np.ndarray] | None:
        """Return index, label and the answers of this process, on the host."""
        batches = self._batches.get(averaged)
        if not batches:
            return None
        index = np.concatenate([batch[0] for batch in batches])
        label = np.concatenate([batch[1] for batch in batches])
        answers = [paddle.concat(list(parts)).numpy() for parts in zip(*(b[2] for b in batches), strict=True)]
        return [index, label, *answers]


def collected_networks(measured: Collection[str], outputs: Any, classes: int) -> list[str] | None:
    """Return the names of the networks of an evaluation that classify its images.

    Args:
        measured: names of the networks that the evaluation runs; none for a model of one network.
        outputs: outputs of the model for two images.
        classes: number of classes.

    Returns:
        no names for a model of one network; None if no network classifies.
    """
    if measured:
        return [name for name in classifiers(outputs, classes) if name in measured] or None
    return [] if classifiers({"": outputs}, classes) else None
