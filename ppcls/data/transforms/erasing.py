"""Transforms that hide parts of an image.

They accept images [H, W, C] and [C, H, W]. By default hidden parts become zero. That is the mean of the
training images if NormalizeImage comes before, as in the published recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ppcls.config.arithmetic import evaluate
from ppcls.data.transforms.arrays import check_share, last_axis_channels
from ppcls.data.transforms.base import Transform
from ppcls.errors import ConfigError
from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class RandomErasing(Transform):
    """Fill a rectangle of random area, shape and place (Zhong et al., arXiv 1708.04896, algorithm 1).

    Numbers may be written as arithmetic, ``1.0/3.0``.

    Args:
        EPSILON: probability that an image is changed.
        sl: smallest share of the image's area.
        sh: largest share of the image's area.
        r1: smallest height / width; the largest is its inverse.
        mean: value of each channel in mode ``const``, or one for all. Channels that NormalizeImage added
            (`channel_num`) stay zero.
        attempt: how often at most area and shape are drawn until the rectangle fits into the image.
        use_log_aspect: draw the logarithm of height / width uniformly, rather than height / width itself.
        mode: ``const`` fills with `mean`, ``rand`` with one random colour, ``pixel`` with a random colour for
            each pixel. Colours are normally distributed, or uniform among the 256 levels of images that are
            not normalised.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(
        self,
        EPSILON: float | str = 0.5,
        sl: float | str = 0.02,
        sh: float | str = 0.4,
        r1: float | str = 0.3,
        mean: list[float] | tuple[float, ...] = (0.0, 0.0, 0.0),
        attempt: int = 100,
        use_log_aspect: bool = False,
        mode: Literal["const", "rand", "pixel"] = "const",
    ) -> None:
        self.probability = check_share("RandomErasing.EPSILON", _number(EPSILON))
        self.area = _number(sl), _number(sh)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(f"expected 0 < sl <= sh <= 1, got sl {sl} and sh {sh}", path="RandomErasing.sh")
        self.least_ratio = _number(r1)
        if not 0 < self.least_ratio <= 1:
            raise ConfigError(f"expected a number above 0 and at most 1, got {r1}", path="RandomErasing.r1")
        if attempt < 1:
            raise ConfigError(f"expected 1 or more, got {attempt}", path="RandomErasing.attempt")
        if mode not in ("const", "rand", "pixel"):
            raise ConfigError(f"expected const, rand or pixel, got {mode!r}", path="RandomErasing.mode")
        self.mean = _colour(mean, "RandomErasing.mean") if mode == "const" else list(mean)
        self.attempt = attempt
        self.use_log_aspect = use_log_aspect
        self.mode = mode

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        """Draw a rectangle in an image of `width` x `height`.

        Returns:
            left, top, width, height in pixels; None if no attempt gave one that fits.
        """
        low = self.least_ratio
        high = 1 / self.least_ratio
        for _ in range(self.attempt):
            area = width * height * rng.uniform(*self.area)
            if self.use_log_aspect:
                ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
            else:
                ratio = rng.uniform(low, high)
            h = round(math.sqrt(area * ratio))
            w = round(math.sqrt(area / ratio))
            if 0 < w < width and 0 < h < height:
                return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
        return None

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or a copy with a rectangle filled."""
        pixels = last_axis_channels(image, "RandomErasing")
        if rng.random() >= self.probability:
            return image
        height, width, channels = pixels.shape
        box = self.box(width, height, rng)
        if box is None:
            return image
        left, top, w, h = box
        image = image.copy()
        target = last_axis_channels(image, "RandomErasing")[top : top + h, left : left + w]
        target[...] = self._content((h, w, channels), pixels.dtype, rng)
        return image

    def _content(self, shape: tuple[int, int, int], kind: np.dtype[Any], rng: np.random.Generator) -> Any:
        if self.mode == "const":
            return _for_channels(self.mean, shape[2])
        return _random_colours((1, 1, shape[2]) if self.mode == "rand" else shape, kind, rng)


@TRANSFORMS.register()
class Cutout(Transform):
    """Hide squares around random points of the image (DeVries and Taylor, arXiv 1708.04552).

    The centre of a square is in the image; parts outside the image are cut off.

    Args:
        n_holes: number of squares.
        length: side of a square in pixels.
        fill_value: value of each channel, or one for all; ``none`` or null draws a random colour for each
            square, in the same way as mode ``rand`` of RandomErasing.

    Raises:
        ConfigError: for numbers below 1, or a colour of another length.
    """

    def __init__(
        self,
        n_holes: int = 1,
        length: int = 112,
        fill_value: list[float] | tuple[float, ...] | Literal["none"] | None = (0,),
    ) -> None:
        if n_holes < 1 or length < 1:
            raise ConfigError(f"Cutout: n_holes and length must be 1 or more, got {n_holes} and {length}")
        if isinstance(fill_value, str) and fill_value != "none":
            raise ConfigError(
                f"expected a number for each channel, none or null, got {fill_value!r}",
                path="Cutout.fill_value",
            )
        self.n_holes = n_holes
        self.length = length
        self.fill_value: list[float] | None = None
        if fill_value is not None and not isinstance(fill_value, str):
            self.fill_value = _colour(fill_value, "Cutout.fill_value")

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return a copy with the squares filled."""
        image = _copy(image, "Cutout")
        pixels = last_axis_channels(image, "Cutout")
        height, width = pixels.shape[:2]
        for _ in range(self.n_holes):
            top = int(rng.integers(height)) - self.length // 2
            left = int(rng.integers(width)) - self.length // 2
            colour: Any = self.fill_value
            if colour is None:
                colour = _random_colours((1, 1, pixels.shape[2]), pixels.dtype, rng)
            else:
                colour = _for_channels(colour, pixels.shape[2])
            square = pixels[
                max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)
            ]
            square[...] = colour
        return image


@TRANSFORMS.register()
class HideAndSeek(Transform):
    """Hide half of the cells of a grid, each by chance (Singh and Lee, arXiv 1704.04232).

    The side of the cells is drawn from 16, 32, 44 and 56 pixels; one image in five stays unchanged.
    """

    SIDES = (0, 16, 32, 44, 56)

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or a copy with cells set to zero."""
        pixels = last_axis_channels(image, "HideAndSeek")
        side = self.SIDES[int(rng.integers(len(self.SIDES)))]
        if not side:
            return image
        image = image.copy()
        pixels = last_axis_channels(image, "HideAndSeek")
        for top in range(0, pixels.shape[0], side):
            for left in range(0, pixels.shape[1], side):
                if rng.integers(2):
                    pixels[top : top + side, left : left + side] = 0
        return image


@TRANSFORMS.register()
class GridMask(Transform):
    """Hide the stripes of a grid, or the areas between them (Chen et al., arXiv 2001.04086).

    The grid repeats every d pixels in both directions, has a random offset, and is rotated about the centre
    of the image.

    Args:
        d1: smallest d.
        d2: d is below this number.
        rotate: the angle is a whole number of degrees, from 0 to below this number.
        ratio: width of a stripe as a share of d.
        mode: 0 hides the stripes, 1 hides the squares between them.
        prob: probability that an image is changed.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(
        self,
        d1: int = 96,
        d2: int = 224,
        rotate: int = 1,
        ratio: float = 0.5,
        mode: Literal[0, 1] = 0,
        prob: float = 1.0,
    ) -> None:
        if not 2 <= d1 < d2:
            raise ConfigError(f"expected 2 <= d1 < d2, got d1 {d1} and d2 {d2}", path="GridMask.d2")
        if rotate < 1:
            raise ConfigError(f"expected 1 or more, got {rotate}", path="GridMask.rotate")
        if mode not in (0, 1):
            raise ConfigError(f"expected 0 or 1, got {mode!r}", path="GridMask.mode")
        self.d1 = d1
        self.d2 = d2
        self.rotate = rotate
        self.mode = mode
        self.ratio = check_share("GridMask.ratio", ratio)
        self.prob = check_share("GridMask.prob", prob)

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or a copy with parts set to zero."""
        pixels = last_axis_channels(image, "GridMask")
        if rng.random() >= self.prob:
            return image
        image = image.copy()
        hidden = self.mask(pixels.shape[0], pixels.shape[1], rng)
        last_axis_channels(image, "GridMask")[hidden] = 0
        return image

    def mask(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Draw which pixels of an image are hidden: bool [height, width]."""
        period = int(rng.integers(self.d1, self.d2))
        stripe = round(period * self.ratio)
        begin = rng.integers(period, size=2)
        angle = math.radians(int(rng.integers(self.rotate)))
        y, x = np.ogrid[:height, :width]
        if angle:
            middle_y = (height - 1) / 2
            middle_x = (width - 1) / 2
            dy = y - middle_y
            dx = x - middle_x
            y = math.cos(angle) * dy - math.sin(angle) * dx + middle_y
            x = math.sin(angle) * dy + math.cos(angle) * dx + middle_x
        stripes = ((y - begin[0]) % period < stripe) | ((x - begin[1]) % period < stripe)
        return stripes if self.mode == 0 else ~stripes


def _colour(values: Sequence[float], path: str) -> list[float]:
    """Return the values of the channels.

    Raises:
        ConfigError: if they fit no image.
    """
    if len(values) not in (1, 3, 4):
        raise ConfigError(
            f"expected one number for all channels or one for each, 3 or 4, got {list(values)}", path=path
        )
    return list(values)


def _for_channels(colour: list[float], channels: int) -> list[float]:
    """Return a colour for images with `channels`; a fourth one is zero, as NormalizeImage makes it."""
    return colour if len(colour) == 1 else [*colour, 0.0][:channels]


def _random_colours(shape: tuple[int, int, int], kind: np.dtype[Any], rng: np.random.Generator) -> np.ndarray:
    """Draw colours: uniform among the 256 levels of uint8 images, else normally distributed."""
    if kind == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape, np.float32)


def _number(value: float | str) -> float:
    return float(evaluate(value)) if isinstance(value, str) else float(value)


def _copy(image: Any, op: str) -> np.ndarray:
    last_axis_channels(image, op)
    return image.copy()
