"""Shapes that a config may leave out: found by one dry forward, or checked against it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

import paddle.nn.functional as F
from paddle import Tensor

from ppcls.errors import ConfigError
from ppcls.loss.base import TensorPairLoss

LOGGER = logging.getLogger(__name__)


def found_size(option: str, given: int | None, found: int) -> int:
    """Return `found`. It must equal `given`; if that was left out, `found` is logged.

    Args:
        option: ``Loss.option``, for the message.
        given: the number in the config; None if it was left out.
        found: the number of the network.

    Raises:
        ConfigError: if both are known and differ.
    """
    if given is None:
        LOGGER.info("%s: found %d", option, found)
    elif given != found:
        text = f"got {given}, but the network has {found}; without this option it is found by a dry forward"
        raise ConfigError(text, path=option)
    return found


def not_prepared(loss: str, options: str) -> ConfigError:
    """Return the error of a loss that is used although its shapes are neither given nor found."""
    return ConfigError(
        f"{loss}: {options} are missing; set them, or let one forward find them: "
        "build_loss(config, outputs=model(images))"
    )


def check_sizes(option: str, given: Sequence[int | None]) -> None:
    """Raise ConfigError for a given number below 1."""
    for size in given:
        if size is not None and size < 1:
            raise ConfigError(f"got {size}, expected at least 1, or null to have it found", path=option)


def check_falling(option: str, maps: Sequence[Tensor]) -> None:
    """Raise ConfigError for feature maps [N, C, H, W] that do not get smaller, from shallow to deep."""
    heights = [x.shape[2] for x in maps]
    if heights != sorted(heights, reverse=True):
        raise ConfigError(
            f"the maps have heights of {', '.join(map(str, heights))}, expected the order from the "
            "shallowest map, the largest, to the deepest",
            path=option,
        )


VECTOR_MODES = ("flatten", "gap")


def as_vectors(x: Tensor, mode: str) -> Tensor:
    """Return features [N, ...] as vectors [N, D]: flattened, or the mean over H and W of maps for ``gap``."""
    return x.mean([2, 3]) if mode == "gap" and x.ndim == 4 else x.flatten(1)


def on_smaller_grid(first: Tensor, second: Tensor) -> list[Tensor]:
    """Return two maps [N, C, H, W], the larger one averaged to the height and width of the smaller."""
    size = [min(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True)]
    return [x if list(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size) for x in (first, second)]


class SizedPairLoss(TensorPairLoss):
    """A loss of two tensors with layers between the student's features and the teacher's.

    The sizes of these features are options; what is left out is found by :meth:`prepare`. A subclass defines
    `create` and calls `create_if_known` at the end of its ``__init__``.

    Attributes:
        size_options: names of the two options.
        sizes: their values; None where it was left out.
    """

    size_options: ClassVar[tuple[str, str]] = ("student_channels", "teacher_channels")

    def __init__(self, student: int | None, teacher: int | None) -> None:
        super().__init__()
        self.sizes = (student, teacher)
        self.is_created = False
        for option, size in zip(self.size_options, self.sizes, strict=True):
            check_sizes(f"{type(self).__name__}.{option}", [size])

    def create(self, student: int, teacher: int) -> None:
        """Create the layers from features of the student to those of the teacher."""
        raise NotImplementedError

    def create_if_known(self) -> None:
        """Create the layers if both sizes are given."""
        student, teacher = self.sizes
        if student is not None and teacher is not None:
            self.create(student, teacher)
            self.is_created = True

    def features(self, x: Tensor) -> Tensor:
        """Return the features [N, size, ...] that the layers see."""
        return x

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Create the layers, or check the given sizes, from the tensors of both networks.

        Raises:
            ConfigError: if a given size differs from the network's.
        """
        found = (
            found_size(f"{type(self).__name__}.{option}", size, self.features(x).shape[1])
            for option, size, x in zip(self.size_options, self.sizes, (student, teacher), strict=True)
        )
        sizes = tuple(found)
        if not self.is_created:
            self.create(*sizes)
            self.is_created = True

    def require_layers(self) -> None:
        """Raise ConfigError if the layers do not exist because the sizes are not known."""
        if not self.is_created:
            raise not_prepared(type(self).__name__, ", ".join(self.size_options))
