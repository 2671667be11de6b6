"""Turn probabilities into results for users."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcls.class_names import find_class_names, is_packaged, read_class_names, read_fitting_names
from ppcls.contracts import Component
from ppcls.errors import ConfigError, DataError, WeightsError
from ppcls.logger import LOGGER
from ppcls.registry import POSTPROCESSES

__all__ = ["UNKNOWN", "PostProcess", "Topk", "check_scores", "find_class_names", "read_class_names"]

UNKNOWN = -1  # the class of images of which the network is too unsure
UNKNOWN_NAME = "unknown"


def check_scores(scores: np.ndarray, file_names: Sequence[str]) -> None:
    """Raise an error for scores that are NaN or infinite, instead of showing them as a result.

    Args:
        scores: output of a network, [N, C].
        file_names: names of the N images.

    Raises:
        WeightsError: naming the images.
    """
    broken = [name for name, row in zip(file_names, scores, strict=True) if not np.isfinite(row).all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise WeightsError(
            f"the network gives no finite scores for {', '.join(broken[:3])}{more} ({len(broken)} of "
            f"{len(file_names)} images of the batch): its weights are broken, or NormalizeImage does not fit"
        )


class PostProcess(Component):
    """Base class of post-processes: from probabilities to what a user reads."""

    @abstractmethod
    def __call__(
        self, probabilities: np.ndarray, file_names: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return a dict for each image, with whatever is to be shown of it.

        Args:
            probabilities: [N, C].
            file_names: of the N images, if they come from files.
        """


@POSTPROCESSES.register()
class Topk(PostProcess):
    """The classes with the highest probabilities.

    Args:
        topk: how many classes; at most the number of classes of the network.
        class_id_map_file: file with the names of the classes, one line ``id name`` per class, ids from 0,
            UTF-8. A path ``ppcls/data/labels/...`` names a list of the package, from any working directory;
            such a list is ignored if it does not fit the classes.
        delimiter: text between id and name; null means the first blank or tab.
        label_list: the names themselves, in order of the classes, instead of a file.
        threshold: probability that the best class must reach, 0 to 1; otherwise the result is class -1 alone,
            with the probability of the best class. Null for no threshold.
        unknown_name: name of class -1; no class may have this name.

    Attributes:
        names: by class; None if there are none.

    Raises:
        ConfigError: if `topk` is below 1, or `threshold` is not a probability.
        DataError: if the file is missing, or does not name each class once.
    """

    def __init__(
        self,
        topk: int = 1,
        class_id_map_file: str | None = None,
        delimiter: str | None = None,
        label_list: list[str] | None = None,
        threshold: float | None = None,
        unknown_name: str = UNKNOWN_NAME,
    ) -> None:
        if topk < 1:
            raise ConfigError(f"Topk: topk must be at least 1, got {topk}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"expected a probability, 0 to 1, got {threshold}", path="Topk.threshold")
        self.topk = topk
        self.threshold = threshold
        self.unknown_name = unknown_name
        self.names: list[str] | None = None
        self._origin = "label_list"
        self._packaged = False
        if label_list is not None:
            if not isinstance(label_list, list | tuple):
                raise ConfigError(f"Topk: label_list must be a list of names, got {label_list!r:.100}")
            self.names = [str(name) for name in label_list]
        elif class_id_map_file is not None:
            self._origin = f"class_id_map_file {class_id_map_file}"
            self._packaged = is_packaged(find_class_names(class_id_map_file))
            self.names = read_fitting_names(class_id_map_file, None, delimiter)
        if threshold is not None and unknown_name in (self.names or []):
            raise ConfigError(
                f"class {(self.names or []).index(unknown_name)} is called {unknown_name!r}; choose another "
                "name for images below the threshold",
                path="Topk.unknown_name",
            )

    def __call__(
        self, probabilities: np.ndarray, file_names: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return a dict for each row: class_ids, scores, file_name (if given), label_names.

        Args:
            probabilities: [N, C].
            file_names: one for each row.

        Scores are rounded to 5 places; equal ones stay in order of their ids. Without names of the classes
        ``label_names`` is empty. If the best class does not reach the threshold, the result is
        ``class_ids: [-1]`` with the score of that class.

        Raises:
            DataError: if there are names for another number of classes.
        """
        probabilities = np.asarray(probabilities)
        names = self._fitting_names(probabilities.shape[-1])
        results = []
        for row, values in enumerate(probabilities):
            ids = np.argsort(-values, kind="stable")[: self.topk].tolist()
            scores = [round(float(values[place]), 5) for place in ids]
            labels = [] if names is None else [names[place] for place in ids]
            if self.threshold is not None and scores[0] < self.threshold:  # as printed
                ids, scores, labels = [UNKNOWN], scores[:1], [self.unknown_name]
            result: dict[str, Any] = {"class_ids": ids, "scores": scores}
            if file_names is not None:
                result["file_name"] = file_names[row]
            result["label_names"] = labels
            results.append(result)
        return results

    def _fitting_names(self, classes: int) -> list[str] | None:
        names = self.names
        if names is None or len(names) == classes:
            return names
        problem = f"{self._origin} has {len(names)} names, but the network has {classes} classes"
        if not self._packaged:
            raise DataError(f"{problem}; give each class one name")
        LOGGER.warning("%s; results go without names", problem)
        self.names = None
        return None
