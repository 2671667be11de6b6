"""Results of an evaluation for each class and each image: `ppcls eval --report DIR`.

    per_class.csv         precision, recall, F1 and support of each class
    averages.csv          their averages over classes, and the accuracy
    confusion_matrix.csv  images by true class (rows) and predicted class (columns)
    confusion_matrix.png  the same as a picture
    confused_pairs.csv    which class is mistaken for which, most frequent first
    misclassified.csv     the misclassified images, the most confident predictions first

The scores are explained in `ppcls.report.class_scores`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paddle.nn import functional as F

from ppcls.data import Batch, Dataset
from ppcls.distributed import gather, is_main, wait_for_main
from ppcls.errors import ConfigError, DataError
from ppcls.files import FileSet, require_writable
from ppcls.logger import LOGGER
from ppcls.report.class_scores import ClassScores, class_scores, confused_pairs, confusion_matrix
from ppcls.report.confusion_plot import draw_confusion, require_matplotlib

FILES = (
    "per_class.csv",
    "averages.csv",
    "confused_pairs.csv",
    "misclassified.csv",
    "confusion_matrix.csv",
    "confusion_matrix.png",
)
# A matrix of more classes takes gigabytes and is unreadable; confused_pairs.csv has the same content.
MATRIX_CLASSES = 4096


@dataclass(frozen=True)
class Predictions:
    """The predictions for all images of a dataset, in order of the dataset.

    Attributes:
        index: positions in the dataset, int64 [N].
        label: true classes, int64 [N].
        predicted: classes with the highest probability, int64 [N].
        score: probabilities of `predicted`, float32 [N].
        label_score: probabilities of `label`, float32 [N].
        classes: number of classes.
    """

    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    score: np.ndarray
    label_score: np.ndarray
    classes: int


class EvaluationTables:
    """Collects the predictions of an evaluation (as its `observe`), and writes the report.

    Args:
        folder: ``--report``; it is created when the report is written.
        network: the sub-network to report; None if the model is a single network.
        names: names of the classes; None if unknown.

    Raises:
        ConfigError: if the folder cannot be written or matplotlib is missing.
    """

    def __init__(self, folder: str, network: str | None, names: Sequence[str] | None) -> None:
        require_matplotlib("--report")
        if not folder:
            raise ConfigError("--report: expected a folder, got an empty path ('.' is the folder here)")
        self.folder = Path(folder)
        self.network = network
        if is_main():
            require_writable(self.folder, "--report")
        self._names = names
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._classes = 0

    def __call__(self, outputs: Any, batch: Batch) -> None:
        """Collect the predictions of a batch."""
        own = outputs if self.network is None else outputs[self.network]
        logits = own["logits"] if isinstance(own, Mapping) else own
        probabilities = F.softmax(logits.astype("float32"), axis=-1).numpy()
        label = batch.label.reshape(-1)
        rows = np.arange(len(batch.index))
        predicted = probabilities.argmax(-1)
        self._classes = probabilities.shape[-1]
        self._rows.append(
            (batch.index, label, predicted, probabilities[rows, predicted], probabilities[rows, label])
        )

    def write(self, dataset: Dataset) -> None:
        """Gather the predictions of all processes and write them; all processes have to call this."""
        found = self.gathered()
        if is_main():
            names = self._names or dataset.class_names or ()
            write_report(self.folder, found, dataset, dict(enumerate(names)))
        wait_for_main()

    def gathered(self) -> Predictions:
        """Return the predictions of all processes; all processes have to call this.

        Raises:
            DataError: if an image was counted twice.
        """
        mine = [np.concatenate(column) for column in zip(*self._rows, strict=True)]
        shares = [share for share in gather((mine, self._classes)) if share[0]]
        index, label, predicted, score, label_score = (
            np.concatenate(column) for column in zip(*(columns for columns, _ in shares), strict=True)
        )
        order = np.argsort(index, kind="stable")
        if (np.diff(index[order]) == 0).any():
            raise DataError("an image was evaluated twice; evaluation takes a sampler that repeats nothing")
        return Predictions(
            index[order],
            label[order],
            predicted[order],
            score[order],
            label_score[order],
            max(classes for _, classes in shares),
        )


def write_report(folder: Path, found: Predictions, dataset: Dataset, names: Mapping[int, str]) -> None:
    """Write the files of a report; together they replace those of an earlier report.

    Args:
        folder: folder of the report; it is created.
        found: what :meth:`EvaluationTables.gathered` returned.
        dataset: gives the files of the images.
        names: names of classes; classes without a name are called by their number.

    Raises:
        ConfigError: if a file cannot be written (disk full, no permission); an earlier report stays.
    """
    scores = class_scores(found.label, found.predicted, found.classes)
    pairs = confused_pairs(found.label, found.predicted, found.classes)
    titles = [names.get(number, str(number)) for number in range(found.classes)]
    files = {
        "per_class.csv": _per_class(scores, titles),
        "averages.csv": _averages(scores, found),
        "confused_pairs.csv": _pairs(pairs, scores.support, titles),
        "misclassified.csv": _misclassified(found, dataset, titles),
    }
    if found.classes <= MATRIX_CLASSES:
        matrix = confusion_matrix(found.label, found.predicted, found.classes)
        files["confusion_matrix.csv"] = _matrix(matrix, titles)
        files["confusion_matrix.png"] = draw_confusion(matrix, titles)
    else:
        LOGGER.info(
            "%d classes: no confusion matrix above %d, see confused_pairs.csv", found.classes, MATRIX_CLASSES
        )
    try:
        with FileSet(folder, "report", FILES).replacing() as new:
            for name, content in files.items():
                (new / name).write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--report: cannot write to {folder}: {error.strerror or error}") from error
    _announce(folder, scores, pairs, titles)


def _announce(folder: Path, scores: ClassScores, pairs: np.ndarray, titles: Sequence[str]) -> None:
    macro = scores.averages()["macro"]
    LOGGER.info(
        "report in %s: macro precision %.5f, recall %.5f, F1 %.5f over %d classes",
        folder,
        macro["precision"],
        macro["recall"],
        macro["f1"],
        int((scores.support > 0).sum()),
    )
    for true, taken, count in pairs[:3].tolist():
        often = "once" if count == 1 else f"{count} times"
        LOGGER.info("%s is taken for %s %s", titles[true], titles[taken], often)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")  # file names may have another encoding


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5f}"


def _per_class(scores: ClassScores, titles: Sequence[str]) -> bytes:
    columns = (scores.precision, scores.recall, scores.f1)
    rows = (
        [number, title, *(_number(column[number]) for column in columns), support, guesses]
        for number, (title, support, guesses) in enumerate(
            zip(titles, scores.support.tolist(), scores.predicted.tolist(), strict=True)
        )
    )
    return _csv(["class_id", "name", "precision", "recall", "f1", "support", "predicted"], rows)


def _averages(scores: ClassScores, found: Predictions) -> bytes:
    rows = [
        [kind, *(_number(values[name]) for name in ("precision", "recall", "f1"))]
        for kind, values in scores.averages().items()
    ]
    accuracy = float((found.label == found.predicted).mean())
    images = len(found.label)
    rows = [[*row, _number(accuracy), str(images)] for row in rows]
    return _csv(["average", "precision", "recall", "f1", "accuracy", "images"], rows)


def _pairs(pairs: np.ndarray, support: np.ndarray, titles: Sequence[str]) -> bytes:
    header = ["class_id", "name", "predicted_id", "predicted_name", "images", "share_of_class"]
    rows = (
        [true, titles[true], taken, titles[taken], count, _number(count / support[true])]
        for true, taken, count in pairs.tolist()
    )
    return _csv(header, rows)


def _misclassified(found: Predictions, dataset: Dataset, titles: Sequence[str]) -> bytes:
    wrong = np.flatnonzero(found.label != found.predicted)
    wrong = wrong[np.argsort(-found.score[wrong], kind="stable")]
    header = ["file", "class_id", "name", "predicted_id", "predicted_name", "score", "score_of_class"]
    rows = (
        [
            dataset.path(int(found.index[place])),
            int(found.label[place]),
            titles[found.label[place]],
            int(found.predicted[place]),
            titles[found.predicted[place]],
            _number(found.score[place]),
            _number(found.label_score[place]),
        ]
        for place in wrong
    )
    return _csv(header, rows)


def _matrix(matrix: np.ndarray, titles: Sequence[str]) -> bytes:
    rows = ([number, titles[number], *row] for number, row in enumerate(matrix.tolist()))
    return _csv(["class_id", "name", *map(str, range(len(titles)))], rows)
