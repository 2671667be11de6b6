"""Add borders around images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np

from ppcls.data.transforms.arrays import check_area, check_image, with_channels
from ppcls.data.transforms.base import Transform
from ppcls.errors import ConfigError
from ppcls.registry import TRANSFORMS

PaddingMode = Literal["constant", "edge", "reflect", "symmetric"]

_BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


class Padder:
    """Adds pixels around images.

    Args:
        mode: constant, edge (repeat the outermost pixel), reflect (mirror without repeating it) or symmetric
            (mirror with it).
        fill: value of added pixels, or one for each channel, when `mode` is constant.
        op: the transform's name, for messages.

    Raises:
        ConfigError: for an unknown mode.
    """

    def __init__(self, mode: str, fill: int | Sequence[int], op: str) -> None:
        if mode not in _BORDERS:
            raise ConfigError(f"{op}: padding_mode must be one of {', '.join(_BORDERS)}, got {mode!r}")
        self.op = op
        self.border = _BORDERS[mode]
        self.fill = [fill] * 4 if isinstance(fill, int) else list(fill)

    def __call__(self, image: np.ndarray, sides: tuple[int, int, int, int]) -> np.ndarray:
        """Return `image` with left, top, right and bottom pixels added."""
        left, top, right, bottom = sides
        if not any(sides):
            return image
        check_area(image.shape[1] + left + right, image.shape[0] + top + bottom, self.op)
        padded = cv2.copyMakeBorder(image, top, bottom, left, right, self.border, value=self.fill)
        return with_channels(padded)


def sides(padding: int | Sequence[int], op: str) -> tuple[int, int, int, int]:
    """Return a padding as left, top, right, bottom.

    Args:
        padding: one number for all sides, [left and right, top and bottom], or [left, top, right, bottom].
        op: the transform's name, for messages.

    Raises:
        ConfigError: for another number of values, or negative ones.
    """
    numbers = [padding] if isinstance(padding, int) else list(padding)
    if len(numbers) not in (1, 2, 4) or any(n < 0 for n in numbers):
        raise ConfigError(f"{op}: padding must be 1, 2 or 4 numbers >= 0, got {padding!r}")
    left, top, right, bottom = (numbers * (4 // len(numbers)))[:4]
    return left, top, right, bottom


@TRANSFORMS.register()
class Pad(Transform):
    """Add pixels around the image.

    Args:
        padding: pixels on all sides, or [left and right, top and bottom], or [left, top, right, bottom].
        fill: value of added pixels, or one for each channel, when `padding_mode` is constant.
        padding_mode: constant, edge (repeat the outermost pixel), reflect (mirror without repeating it) or
            symmetric (mirror with it).
        backend: accepted for old recipes; both give the same values.

    Raises:
        ConfigError: for negative padding or an unknown mode.
    """

    def __init__(
        self,
        padding: int | list[int],
        fill: int | list[int] = 0,
        padding_mode: PaddingMode = "constant",
        backend: Literal["cv2", "pil"] = "pil",
    ) -> None:
        self.sides = sides(padding, "Pad")
        self.pad = Padder(padding_mode, fill, "Pad")

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the larger image."""
        return self.pad(check_image(image, "Pad"), self.sides)
