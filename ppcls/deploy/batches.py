"""From images to results, batch by batch: what `ppcls infer` and `ppcls predict` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from ppcls.config.binding import takes
from ppcls.data import ImageError
from ppcls.data.postprocess import check_scores
from ppcls.deploy.images import Image
from ppcls.errors import ConfigError, DataError
from ppcls.registry import POSTPROCESSES

OnError = Literal["raise", "skip"]
PostProcess = Callable[[np.ndarray, Sequence[str]], list[dict[str, Any]]]
_PLACES = 5
_SKIP = "or leave such files out with on_error: skip (--on-error skip)"


@dataclass(frozen=True)
class ResultOptions:
    """What a result contains, where the caller wants something else than the recipe or the export says.

    Attributes:
        topk: number of classes; None for that of the recipe or export.
        threshold: probability that the best class must reach; otherwise the image is of an unknown class.
            None for that of the recipe or export, usually none.
        unknown_name: name of the unknown class.
        all_probabilities: add the probabilities of all classes.
    """

    topk: int | None = None
    threshold: float | None = None
    unknown_name: str | None = None
    all_probabilities: bool = False

    def __post_init__(self) -> None:
        if self.topk is not None and not (_is_number(self.topk, Integral) and self.topk >= 1):
            raise ConfigError(f"topk: {self.topk!r}; expected a whole number, at least 1")
        if self.threshold is not None and not (_is_number(self.threshold, Real) and 0 <= self.threshold <= 1):
            raise ConfigError(f"threshold: {self.threshold!r}; expected a probability, 0 to 1")
        if self.unknown_name is not None and not str(self.unknown_name).strip():
            raise ConfigError("unknown_name: the name is empty")

    def applied_to(self, postprocess: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a post-process, ``{"name": ..., ...}``, with the wishes of the caller.

        Raises:
            ConfigError: for a wish that the post-process does not know, or that has no effect.
        """
        wishes = {"topk": self.topk, "threshold": self.threshold, "unknown_name": self.unknown_name}
        given = {name: value for name, value in wishes.items() if value is not None}
        factory = POSTPROCESSES.find(postprocess["name"])
        if not given or factory is None:
            return postprocess
        lacking = next((name for name in given if not takes(factory, name)), None)
        if lacking is not None:
            raise ConfigError(
                f"{lacking}: an option of Topk, and here the post-process is {postprocess['name']}"
            )
        options = {**postprocess, **given}
        if "unknown_name" in given and options.get("threshold") is None:
            raise ConfigError(f"unknown_name: {self.unknown_name}: has no effect without a threshold")
        return options


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def result_batches(
    images: Iterable[tuple[str, Image]],
    read: Callable[[str, Image], np.ndarray],
    answer: Callable[[np.ndarray, list[str]], list[dict[str, Any]]],
    *,
    batch_size: int,
    on_error: OnError = "raise",
    remedy: str = "Remove it",
    empty: Mapping[str, Any] = MappingProxyType({"class_ids": [], "scores": [], "label_names": []}),
) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of each batch as soon as it is finished, one dict per image, in order.

    Args:
        images: name and file or pixels of each image.
        read: returns an image as input of the network, [C, H, W].
        answer: returns the results for a batch [N, C, H, W] and the names of its images.
        batch_size: number of images in a batch.
        on_error: ``raise`` an error for an image that cannot be read, when the images before it have their
            results; or ``skip`` it: its result then is empty and has the reason under ``error``.
        remedy: what else the user can do about such an image.
        empty: what the result of a skipped image has beside ``file_name`` and ``error``.

    Raises:
        ImageError: naming the image.
        DataError: if the images of a batch have different sizes after the transforms.
    """
    source = iter(images)
    while batch := list(islice(source, batch_size)):
        arrays: list[np.ndarray] = []
        names: list[str] = []
        failed: dict[int, dict[str, Any]] = {}
        broken: ImageError | None = None
        for place, (name, image) in enumerate(batch):
            try:
                arrays.append(read(name, image))
                names.append(name)
            except ImageError as error:
                if on_error == "raise":
                    broken = ImageError(f"{error}. {remedy}, {_SKIP}")
                    break
                failed[place] = {**empty, "file_name": name, "error": str(error)}
        found = iter(answer(_stacked(arrays, names), names) if arrays else [])
        yield [failed.get(place) or next(found) for place in range(len(arrays) + len(failed))]
        if broken is not None:
            raise broken


def _stacked(arrays: list[np.ndarray], names: list[str]) -> np.ndarray:
    for name, array in zip(names, arrays, strict=True):
        shape, first = list(array.shape), list(arrays[0].shape)
        if shape != first:
            raise DataError(
                f"{name}: the transforms make it {shape}, and {names[0]} {first}; images of a batch need one "
                "size, which ResizeImage or CropImage gives them"
            )
    return np.stack(arrays)


def classified(
    scores: np.ndarray,
    names: list[str],
    postprocess: PostProcess,
    *,
    softmax: bool = False,
    all_probabilities: bool = False,
) -> list[dict[str, Any]]:
    """Return the results for the output of a classifier.

    Args:
        scores: [N, classes].
        names: of the N images.
        postprocess: turns probabilities and names into results.
        softmax: the scores are logits.
        all_probabilities: add the probabilities of all classes in order of their ids, ``probabilities``.

    Raises:
        WeightsError: for scores that are not finite.
    """
    check_scores(scores, names)
    probabilities = _softmax(scores) if softmax else scores
    results = postprocess(probabilities, names)
    if all_probabilities:
        for result, row in zip(results, probabilities, strict=True):
            result["probabilities"] = [round(float(value), _PLACES) for value in row]
    return results


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
