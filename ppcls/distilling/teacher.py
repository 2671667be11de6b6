"""What teaches, how it wants its images, and whether it fits the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls.class_names import shown_name
from ppcls.config import ArchSpec, single
from ppcls.config.arithmetic import evaluate
from ppcls.config.nodes import Node
from ppcls.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from ppcls.engine.build import build_trained_model
from ppcls.errors import ConfigError, WeightsError, show
from ppcls.weights import ClassifierError

CHANNELS = 3


@dataclass(frozen=True)
class Preprocessing:
    """How a teacher wants its images.

    Attributes:
        size: side of the images, or height and width; None if it is unknown or does not matter.
        mean: mean of each channel, for pixels of 0 to 1; None if it is unknown.
        std: standard deviation, in the same way.
    """

    size: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def options(self, side: int) -> dict[str, Any]:
        """Return the options of a teacher that gets images of `side` pixels, normalised for ImageNet."""
        found: dict[str, Any] = {}
        if self.size is not None and self.size not in (side, (side, side)):
            found["input_size"] = self.size if isinstance(self.size, int) else list(self.size)
        if self.mean is not None and self.std is not None:
            usual = (*IMAGENET_MEAN, *IMAGENET_STD)
            if not np.allclose((*self.mean, *self.std), usual, atol=1e-3):
                found |= {"mean": list(self.mean), "std": list(self.std)}
        return found


@dataclass(frozen=True)
class Teacher:
    """A teacher.

    Attributes:
        shown: what it is, for messages.
        network: its registered name, such as ``ResNet50_vd`` or ``OnnxModel``.
        node: its entry in ``Arch.models``, with weights; None if it has yet to be trained.
        classes: number of its classes; None if it has yet to be trained.
        names: names of its classes; None if they are unknown.
        preprocessing: how it wants its images.
        notes: sentences about what is assumed.
    """

    shown: str
    network: str
    node: Node | None = None
    classes: int | None = None
    names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = Preprocessing()
    notes: tuple[str, ...] = ()

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise an error if it answers about other classes than these.

        Args:
            names: names of the classes of the data, in order.

        Raises:
            ConfigError: if their number, their names or their order differ.
        """
        if self.classes is not None and self.classes != len(names):
            raise ConfigError(
                f"teacher: {self.shown} has {self.classes} classes, and the data have {len(names)}. Name the "
                "network alone (`ppcls models` lists all), then it is trained on your classes first"
            )
        ours, theirs = (list(map(shown_name, every)) for every in (names, self.names or names))
        if ours == theirs or all(name.isdecimal() for name in ours) or all(n.isdecimal() for n in theirs):
            return
        place = next(i for i, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
        order = "the same classes in another order" if sorted(ours) == sorted(theirs) else "other classes"
        raise ConfigError(
            f"teacher: {self.shown} was trained on {order}: class {place} is {theirs[place]!r} there and "
            f"{ours[place]!r} in the data"
        )


def shape_of(value: Any, shown: str) -> list[int | None]:
    """Return the shape [channels, height, width] of a teacher's images; sizes are None if it says none.

    Raises:
        ConfigError: if it is no shape, or not that of colour images.
    """
    if value is None:
        return [CHANNELS, None, None]
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(size, int) for size in value):
        raise ConfigError(f"teacher: {shown}: image_shape: expected three whole numbers, got {show(value)}")
    if value[0] != CHANNELS:
        raise ConfigError(f"teacher: {shown} takes images of {value[0]} channels, expected {CHANNELS}")
    return list(value)


def side_of(shape: Sequence[int | None]) -> int | tuple[int, int] | None:
    """Return the size of images [..., height, width]: one number for a square; None if it is open."""
    height, width = shape[-2:]
    if height is None or width is None:
        return None
    return height if height == width else (height, width)


def normalization(chain: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation for pixels of 0 to 1; None if a chain does not say them."""
    for entry in chain if isinstance(chain, list) else []:
        name, options = single(entry, "transform_ops")
        if name != "NormalizeImage":
            continue
        scale = options.get("scale")
        factor = float(evaluate(scale) if isinstance(scale, str) else 1 / 255 if scale is None else scale)
        mean, std = (
            np.resize(np.asarray(usual if options.get(key) is None else options[key], float), CHANNELS)
            for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
        )
        return tuple((mean / (255 * factor)).tolist()), tuple((std / (255 * factor)).tolist())
    return None, None


def require_rgb(shown: str, chain: Any) -> None:
    """Raise an error for a chain of transforms with images in BGR: those of a project are in RGB."""
    for entry in chain if isinstance(chain, list) else []:
        name, options = single(entry, "transform_ops")
        if name == "DecodeImage" and options.get("to_rgb") is False:
            raise ConfigError(
                f"teacher: {shown} takes images in BGR, and those of a project are in RGB; write a recipe "
                "with to_rgb: False in all chains"
            )


def check_weights(teacher: Teacher, class_num: int) -> None:
    """Load the weights of a teacher once, so that wrong ones are found before anything is trained.

    Raises:
        WeightsError: if they do not fit, their number of classes included.
    """
    if teacher.node is None or "pretrained" not in teacher.node:
        return
    node = {**teacher.node, "class_num": class_num}
    weights = node.pop("pretrained")
    for option in ("mean", "std", "input_size"):
        node.pop(option, None)
    try:
        build_trained_model(ArchSpec.read(node), None, weights, "distill")
    except ClassifierError as error:
        advice = "A teacher has to know the classes of the data; the name of a network alone trains one"
        raise WeightsError(f"teacher: {error}\n  {advice}") from error
    except WeightsError as error:
        raise WeightsError(f"teacher: {error}") from error
