"""Transforms of whole batches: mixing pairs of images together with their labels.

``op(image, label, rng) -> (image, label)`` with images [N, C, H, W]. Every batch gets label probabilities,
float32 [N, K] with K classes, also a batch in which nothing was mixed. An image is mixed only with images of
the same process, so W processes with B images each mix other pairs than one process with W * B images. What
happens to a batch depends only on the seed, the epoch and the number of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ppcls.config.binding import construct
from ppcls.data.transforms.base import BatchTransform
from ppcls.errors import ConfigError, hint
from ppcls.registry import BATCH_OPS


def label_probabilities(label: np.ndarray, class_num: int | None) -> np.ndarray:
    """Return labels as probabilities, float32 [N, K].

    Args:
        label: class indices, int [N, 1], or probabilities, which are returned unchanged.
        class_num: K.

    Raises:
        ConfigError: if `class_num` is needed but None.
    """
    if label.dtype.kind == "f":
        return label
    if class_num is None:
        raise ConfigError("batch_transform_ops: class_num is not known; set it here or in Arch.class_num")
    result = np.zeros((len(label), class_num), np.float32)
    result[np.arange(len(label)), label.reshape(-1)] = 1
    return result


def blend(image: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Return ``share * image + (1 - share) * image[order]`` for images [N, C, H, W], in their type."""
    if image.dtype != np.float32:
        return (image * share + image[order] * (1 - share)).astype(image.dtype)
    image = np.ascontiguousarray(image)
    result = np.empty_like(image)
    planes, mixed = (batch.reshape(len(batch), -1, batch.shape[-1]) for batch in (image, result))
    for place, partner in enumerate(order):
        # One pass over the pixels and no copy in the new order: twice as fast as NumPy.
        cv2.addWeighted(planes[place], share, planes[partner], 1 - share, 0, dst=mixed[place])
    return result


class _Mixing(BatchTransform):
    """The common part of mixup and cutmix: options, the share of the first image, and the labels.

    Attributes:
        class_num: number of classes.
        alpha: the share of an image follows Beta(alpha, alpha).
    """

    def __init__(self, class_num: int | None, alpha: float) -> None:
        name = type(self).__name__
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ConfigError(f"expected a number above 0, got {alpha}", path=f"{name}.alpha")
        check_class_num(name, class_num)
        self.class_num = class_num
        self.alpha = float(alpha)

    def _labels(self, label: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
        """Return the labels of images of which `share` is their own and the rest that of `order`."""
        own = label_probabilities(label, self.class_num)
        return own * np.float32(share) + own[order] * np.float32(1 - share)


@BATCH_OPS.register()
class MixupOperator(_Mixing):
    """Replace every image by a weighted mean of itself and another one (Zhang et al., arXiv 1710.09412).

    The weight of the first image is drawn once per batch from Beta(alpha, alpha); labels get the same
    weights.

    Args:
        class_num: number of classes; null is that of the network.
        alpha: above 0; the larger, the more images become even mixtures.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(self, class_num: int | None = None, alpha: float = 1.0) -> None:
        super().__init__(class_num, alpha)

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mixed images and their label probabilities."""
        order = rng.permutation(len(image))
        share = rng.beta(self.alpha, self.alpha)
        return blend(image, order, share), self._labels(label, order, share)


@BATCH_OPS.register()
class CutmixOperator(_Mixing):
    """Replace a rectangle of every image by that of another image (Yun et al., arXiv 1905.04899).

    The share of the image that stays is drawn from Beta(alpha, alpha). The centre of the rectangle may be
    anywhere in the image, and the part of the rectangle outside the image is cut off. Labels are weighted by
    the resulting shares of pixels.

    Args:
        class_num: number of classes; null is that of the network.
        alpha: above 0; 1 makes every share equally likely.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(self, class_num: int | None = None, alpha: float = 0.2) -> None:
        super().__init__(class_num, alpha)

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return mixed images and their label probabilities."""
        height, width = image.shape[2:]
        order = rng.permutation(len(image))
        share = rng.beta(self.alpha, self.alpha)
        rows, columns = self._rectangle(height, width, share, rng)
        mixed = image.copy()
        mixed[:, :, rows, columns] = image[order, :, rows, columns]
        replaced = (rows.stop - rows.start) * (columns.stop - columns.start)
        return mixed, self._labels(label, order, 1 - replaced / (height * width))

    @staticmethod
    def _rectangle(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[slice, slice]:
        side = math.sqrt(1 - share)
        return _stretch(height, side, rng), _stretch(width, side, rng)


def _stretch(length: int, share: float, rng: np.random.Generator) -> slice:
    """Return a slice of length `share * length` around a random centre, cut off at the ends."""
    size = int(length * share)
    middle = int(rng.integers(length))
    begin = middle - size // 2
    return slice(max(begin, 0), min(begin + size, length))


@BATCH_OPS.register()
class OpSampler(BatchTransform):
    """Apply one of several batch transforms to a batch, or none, by chance.

    Written as ``OpSampler: {MixupOperator: {alpha: 0.8, prob: 0.5}, CutmixOperator: {prob: 0.5}}``.

    Args:
        class_num: number of classes; null is that of the network.
        **ops: options of each transform by its name, with its probability ``prob``. If the probabilities
            sum to less than 1, the rest is the probability of no mixing.

    Raises:
        ConfigError: for unknown transforms or options, for wrong probabilities, or if their sum exceeds 1.
    """

    # How the config checks the entries of `ops`, see ppcls.config.checks.components.
    nested_kind = "sampled_op"

    def __init__(self, class_num: int | None = None, **ops: dict[str, Any]) -> None:
        check_class_num("OpSampler", class_num)
        self.class_num = class_num
        if not ops:
            raise ConfigError(f"OpSampler: no transform to choose from; known: {', '.join(_members())}")
        self.ops = []
        self.limits = []
        total = 0.0
        for name, given in ops.items():
            if name not in BATCH_OPS:
                raise ConfigError(
                    f"unknown batch transform.{hint(name, _members())}", path=f"OpSampler.{name}"
                )
            if not isinstance(given, Mapping) or "prob" not in given:
                raise ConfigError("needs the option 'prob', its probability", path=f"OpSampler.{name}")
            options = dict(given)
            probability = options.pop("prob")
            if not 0 <= probability <= 1:
                raise ConfigError(
                    f"expected a number from 0 to 1, got {probability}", path=f"OpSampler.{name}.prob"
                )
            total += probability
            self.ops.append(construct(BATCH_OPS, {name: options}, "OpSampler", class_num=class_num))
            self.limits.append(total)
        if total > 1 + 1e-9:
            raise ConfigError(f"OpSampler: the probabilities (prob) sum to {total:g}, expected at most 1")

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return images, mixed or not, and their label probabilities."""
        drawn = rng.random()
        for op, limit in zip(self.ops, self.limits, strict=True):
            if drawn < limit:
                mixed: tuple[np.ndarray, np.ndarray] = op(image, label, rng)
                return mixed
        return image, label_probabilities(label, self.class_num)


def _members() -> list[str]:
    return [name for name in BATCH_OPS if name != "OpSampler"]


def check_class_num(name: str, class_num: int | None) -> None:
    """Raise ConfigError for a number of classes below 1."""
    if class_num is not None and class_num < 1:
        raise ConfigError(f"expected 1 or more, got {class_num}", path=f"{name}.class_num")
