"""The answers of all networks for the images of the best evaluation, and the file that keeps them."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls.errors import DataError
from ppcls.files import write_atomic

FILES = {False: "best_answers.npz", True: "best_answers_ema.npz"}  # by whether the weights are averaged ones
_FORMAT = 1
# What numpy and zipfile raise for damaged files.
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, OverflowError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


@dataclass(frozen=True)
class Answer:
    """The answers of one network.

    Attributes:
        predicted: classes with the highest probability, int [N].
        score: their probabilities, float32 [N].
        label_score: probabilities of the true classes, float32 [N].
    """

    predicted: np.ndarray
    score: np.ndarray
    label_score: np.ndarray


@dataclass(frozen=True)
class Answers:
    """The answers of one evaluation.

    Attributes:
        epoch: epoch of the evaluation.
        classes: number of classes.
        index: places of the images in the dataset, int [N], in increasing order.
        label: their true classes, int [N].
        networks: answers by name of the network; ``""`` for a model of one network.
    """

    epoch: int
    classes: int
    index: np.ndarray
    label: np.ndarray
    networks: Mapping[str, Answer]

    def accuracy(self, name: str) -> float | None:
        """Return the share of images for which a network is right; None if its answers are not known."""
        answer = self.networks.get(name)
        return None if answer is None else float((answer.predicted == self.label).mean())

    def agreement(self, one: str, other: str) -> float | None:
        """Return the share of images for which two networks predict the same class; None if not known."""
        first = self.networks.get(one)
        second = self.networks.get(other)
        if first is None or second is None:
            return None
        return float((first.predicted == second.predicted).mean())

    def most_wrong(self, name: str, count: int) -> list[int]:
        """Return the rows of the images on which a network is wrong, the highest probabilities first."""
        answer = self.networks.get(name)
        if answer is None:
            return []
        wrong = np.flatnonzero(answer.predicted != self.label)
        order = np.argsort(-answer.score[wrong], kind="stable")
        return [int(row) for row in wrong[order][:count]]


def write_answers(path: Path, answers: Answers) -> None:
    """Write the answers of an evaluation; an earlier file is replaced completely or not at all.

    Raises:
        WeightsError: if the file cannot be written.
    """
    head = {
        "format": _FORMAT,
        "epoch": answers.epoch,
        "classes": answers.classes,
        "networks": list(answers.networks),
    }
    whole = np.int32 if answers.classes > 65535 else np.uint16
    arrays = {
        "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
        "index": answers.index.astype(np.int32),
        "label": answers.label.astype(whole),
    }
    for place, answer in enumerate(answers.networks.values()):
        arrays[f"predicted_{place}"] = answer.predicted.astype(whole)
        arrays[f"score_{place}"] = answer.score.astype(np.float32)
        arrays[f"label_score_{place}"] = answer.label_score.astype(np.float32)
    write_atomic(path, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]


def read_answers(path: Path) -> Answers | None:
    """Read what :func:`write_answers` wrote; None if there is no file.

    Raises:
        DataError: if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(file["head"].tobytes())
            label = file["label"].astype(np.int64)
            networks = {
                str(name): Answer(
                    file[f"predicted_{place}"].astype(np.int64),
                    file[f"score_{place}"].astype(np.float32),
                    file[f"label_score_{place}"].astype(np.float32),
                )
                for place, name in enumerate(head["networks"])
            }
            found = Answers(
                int(head["epoch"]), int(head["classes"]), file["index"].astype(np.int64), label, networks
            )
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if not _is_sound(found):
        raise DataError(f"{path} is damaged: its arrays do not fit each other")
    return found


def _is_sound(answers: Answers) -> bool:
    """Tell whether all arrays have an entry for each image, and all classes exist."""
    count = len(answers.label)
    columns = [answers.index]
    classes = [answers.label]
    for answer in answers.networks.values():
        columns += [answer.predicted, answer.score, answer.label_score]
        classes.append(answer.predicted)
    if count == 0 or answers.label.ndim != 1 or any(column.shape != (count,) for column in columns):
        return False
    return all(column.min() >= 0 and column.max() < answers.classes for column in classes)
