"""Resizing, cropping and flipping of images [H, W, C]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np

from ppcls.data.transforms.arrays import check_area, check_image, width_height, with_channels
from ppcls.data.transforms.base import SizedTransform, Step, Transform
from ppcls.data.transforms.padding import Padder, PaddingMode, sides
from ppcls.data.transforms.resample import Backend, Interpolation, Resampler
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS


@dataclass(slots=True)
class Cut:
    """A step that cuts out a rectangle, and uses nothing else of the image.

    Attributes:
        box: left, top, width, height in pixels.
        after: what is done to the rectangle; None for nothing.
    """

    box: tuple[int, int, int, int]
    after: Step | None = None

    @property
    def bottom(self) -> int:
        """The number of rows that the image must have."""
        return self.box[1] + self.box[3]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the rectangle [H, W, C] after all steps."""
        left, top, width, height = self.box
        part = image[top : top + height, left : left + width]
        return part if self.after is None else self.after(part)


@TRANSFORMS.register()
class ResizeImage(SizedTransform):
    """Resize to a given size, or to a given length of the shorter side.

    Args:
        size: a number for a square, or [width, height].
        resize_short: length of the shorter side; the other keeps the proportions, rounded. Give this or
            `size`.
        interpolation: nearest, bilinear, bicubic, lanczos, area (cv2), box and hamming (pil), random;
            null means bilinear for cv2 and bicubic for pil.
        backend: ``cv2``, or ``pil``, which smooths when it makes an image smaller.
        return_numpy: accepted for old recipes; arrays are passed on in either case.

    Raises:
        ConfigError: if not exactly one of `size` and `resize_short` is given.
    """

    def __init__(
        self,
        size: int | list[int] | None = None,
        resize_short: int | None = None,
        interpolation: Interpolation | None = None,
        backend: Backend = "cv2",
        return_numpy: bool = True,
    ) -> None:
        if (size is None) == (resize_short is None):
            raise ConfigError("ResizeImage: give either size or resize_short")
        if resize_short is not None and resize_short < 1:
            raise ConfigError(f"ResizeImage: resize_short must be positive, got {resize_short}")
        self.size = None if size is None else width_height(size, "ResizeImage")
        self.resize_short = resize_short
        self.resample = Resampler(interpolation, backend, "ResizeImage")

    def choose(self, width: int, height: int, rng: np.random.Generator) -> tuple[Step, int, int]:
        """Return what gives the image its new size."""
        size = self.size
        if size is None:
            factor = float(self.resize_short or 0) / min(width, height)
            size = round(width * factor), round(height * factor)
            if size != (width, height):
                check_area(*size, "ResizeImage")
        name = self.resample.choose(rng)
        return partial(self.resample.resize, size=size, name=name), *size


@TRANSFORMS.register()
class CropImage(SizedTransform):
    """Cut out the centre of the image.

    Args:
        size: a number for a square, or [width, height].
    """

    def __init__(self, size: int | list[int]) -> None:
        self.width, self.height = width_height(size, "CropImage")

    def choose(self, width: int, height: int, rng: np.random.Generator) -> tuple[Step, int, int]:
        """Return what cuts out the centre.

        Raises:
            DataError: if the image is smaller.
        """
        free_x, free_y = _room(width, height, self.width, self.height, "CropImage")
        left = free_x // 2
        top = free_y // 2
        return Cut((left, top, self.width, self.height)), self.width, self.height


@TRANSFORMS.register()
class RandCropImage(SizedTransform):
    """Cut out a rectangle of random area, shape and place, and resize it.

    The shape r (width / height) is drawn first. A rectangle of that shape covers at most the share
    ``b = min(R / r, r / R)`` of an image of shape R; both bounds of `scale` are limited to b, and the
    share is drawn between them. So every drawn rectangle fits, and there is no second attempt.

    Args:
        size: size of the result; a number for a square, or [width, height].
        scale: bounds of the share of the image's area; null means [0.08, 1].
        ratio: bounds of width / height; null means [3/4, 4/3].
        interpolation: see ResizeImage.
        use_log_aspect: draw the logarithm of width / height uniformly, so that a shape and its inverse
            are equally likely, rather than the shape itself.
        backend: ``cv2`` or ``pil``.

    Raises:
        ConfigError: for bounds that are not 0 < low <= high.
    """

    def __init__(
        self,
        size: int | list[int],
        scale: list[float] | None = None,
        ratio: list[float] | None = None,
        interpolation: Interpolation | None = None,
        use_log_aspect: bool = False,
        backend: Backend = "cv2",
    ) -> None:
        self.size = width_height(size, "RandCropImage")
        self.scale = _bounds(scale, (0.08, 1.0), "RandCropImage: scale")
        self.ratio = _bounds(ratio, (3 / 4, 4 / 3), "RandCropImage: ratio")
        if self.scale[1] > 1:
            raise ConfigError(f"RandCropImage: scale is a share of the area, at most 1, got {self.scale[1]}")
        self.use_log_aspect = use_log_aspect
        self.resample = Resampler(interpolation, backend, "RandCropImage")

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a rectangle in an image of `width` x `height`.

        Returns:
            left, top, width, height in pixels.
        """
        low, high = self.ratio
        if self.use_log_aspect:
            shape = math.exp(_between(math.log(low), math.log(high), rng))
        else:
            shape = _between(low, high, rng)
        relative = width / height / shape
        largest = min(relative, 1 / relative)
        area = width * height * _between(min(self.scale[0], largest), min(self.scale[1], largest), rng)
        w = min(max(int(math.sqrt(area * shape)), 1), width)
        h = min(max(int(math.sqrt(area / shape)), 1), height)
        left = int(rng.integers(width - w, endpoint=True))
        top = int(rng.integers(height - h, endpoint=True))
        return left, top, w, h

    def choose(self, width: int, height: int, rng: np.random.Generator) -> tuple[Step, int, int]:
        """Return what cuts out a random rectangle and resizes it."""
        box = self.box(width, height, rng)
        name = self.resample.choose(rng)
        return Cut(box, partial(self.resample.resize, size=self.size, name=name)), *self.size


@TRANSFORMS.register()
class RandomCropImage(Transform):
    """Cut out a rectangle of fixed size at a random place, after padding; the usual crop for small images.

    Args:
        size: a number for a square, or [width, height].
        padding: pixels added on all sides, or [left and right, top and bottom], or [left, top, right,
            bottom].
        pad_if_needed: also pad images that are smaller than `size`, by the missing pixels on both sides.
        fill: value of added pixels, or one for each channel, when `padding_mode` is constant.
        padding_mode: constant, edge (repeat the outermost pixel), reflect (mirror without repeating it)
            or symmetric (mirror with it).

    Raises:
        ConfigError: for negative padding or an unknown mode.
    """

    def __init__(
        self,
        size: int | list[int],
        padding: int | list[int] | None = None,
        pad_if_needed: bool = False,
        fill: int | list[int] = 0,
        padding_mode: PaddingMode = "constant",
    ) -> None:
        op = type(self).__name__
        self.width, self.height = width_height(size, op)
        self.padding = sides(padding or 0, op)
        self.pad_if_needed = pad_if_needed
        self.pad = Padder(padding_mode, fill, op)

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return a random crop.

        Raises:
            DataError: if the padded image is smaller than the crop.
        """
        op = type(self).__name__
        image = self.pad(check_image(image, op), self.padding)
        if self.pad_if_needed:
            x = max(self.width - image.shape[1], 0)
            y = max(self.height - image.shape[0], 0)
            image = self.pad(image, (x, y, x, y))
        free_x, free_y = _room(image.shape[1], image.shape[0], self.width, self.height, op)
        left = int(rng.integers(free_x, endpoint=True))
        top = int(rng.integers(free_y, endpoint=True))
        return image[top : top + self.height, left : left + self.width]


@TRANSFORMS.register()
class RandCropImageV2(RandomCropImage):
    """Cut out a rectangle of fixed size at a random place, without padding or resizing.

    Args:
        size: a number for a square, or [width, height].
    """

    def __init__(self, size: int | list[int]) -> None:
        super().__init__(size)


@TRANSFORMS.register()
class RandFlipImage(SizedTransform):
    """Mirror the image with probability 1/2.

    Args:
        flip_code: 1 swaps left and right, 0 swaps top and bottom, -1 does both.

    Raises:
        ConfigError: for other codes.
    """

    def __init__(self, flip_code: Literal[1, 0, -1] = 1) -> None:
        if flip_code not in (1, 0, -1):
            raise ConfigError(f"RandFlipImage: flip_code must be 1, 0 or -1, got {flip_code!r}")
        self.flip_code = flip_code

    def choose(self, width: int, height: int, rng: np.random.Generator) -> tuple[Step | None, int, int]:
        """Return what mirrors the image, with probability 1/2."""
        return self._flip if rng.integers(2) else None, width, height

    def _flip(self, image: np.ndarray) -> np.ndarray:
        pixels = cv2.flip(image, self.flip_code)
        return pixels if pixels.ndim == 3 else with_channels(pixels)


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    """Return what ``rng.uniform(low, high)`` returns; that takes three times as long."""
    return low + (high - low) * rng.random()


def _room(have_w: int, have_h: int, width: int, height: int, op: str) -> tuple[int, int]:
    """Return how many columns and rows are left outside a crop."""
    if have_w < width or have_h < height:
        raise DataError(
            f"{op}: the image is {have_w}x{have_h}, smaller than the crop of {width}x{height}; "
            "enlarge it before"
        )
    return have_w - width, have_h - height


def _bounds(pair: list[float] | None, default: tuple[float, float], where: str) -> tuple[float, float]:
    if pair is None:
        return default
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise ConfigError(f"{where} must be [low, high] with 0 < low <= high, got {pair!r}")
    return float(pair[0]), float(pair[1])
