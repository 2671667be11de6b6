"""Helpers of all transforms: the memory layout of images, and sizes as written in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcls.data.images import ImageError
from ppcls.errors import ConfigError, DataError, show

# More than any classifier needs, and 100 MB as uint8: a size with a digit too many must not fill the memory.
MAX_AREA = 1 << 25


def check_area(width: int, height: int, op: str) -> None:
    """Check that the result of a transform is not too large.

    Raises:
        ImageError: naming the transform `op`; a long and thin image may be left out like one that is damaged.
    """
    if width * height > MAX_AREA:
        raise ImageError(
            f"{op}: the result would have {width} x {height} pixels, at most {MAX_AREA} are allowed"
        )


def check_image(image: Any, op: str) -> np.ndarray:
    """Return `image` if it is an array [H, W, C] with 1 to 4 channels.

    Raises:
        DataError: naming the transform `op` that cannot work on it.
    """
    if not isinstance(image, np.ndarray):
        raise DataError(f"{op}: expected a decoded image, got {type(image).__name__}; put DecodeImage first")
    if image.ndim != 3 or not 1 <= image.shape[2] <= 4:
        raise DataError(
            f"{op}: expected an image [H, W, C], got an array of shape {image.shape}; "
            "ToCHWImage and channel_first belong at the end of the chain"
        )
    return image


def last_axis_channels(image: Any, op: str) -> np.ndarray:
    """Return a view [H, W, C] of an image that is [H, W, C] or [C, H, W].

    For transforms that may follow ToCHWImage. If both layouts would give 1 to 4 channels, [H, W, C] is
    assumed.

    Raises:
        DataError: naming the transform `op` that cannot work on it.
    """
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] > 4 and image.shape[0] <= 4:
        image = image.transpose(1, 2, 0)
    return check_image(image, op)


def with_channels(image: np.ndarray) -> np.ndarray:
    """Restore the channel axis that OpenCV and Pillow drop from images with one channel."""
    return image[:, :, None] if image.ndim == 2 else image


def check_share(name: str, value: float) -> float:
    """Return a probability or share.

    Raises:
        ConfigError: if it is not in 0..1; `name` is its path.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"expected a number from 0 to 1, got {value}", path=name)
    return value


def width_height(size: int | Sequence[int], op: str) -> tuple[int, int]:
    """Read a size: one number for a square, or ``[width, height]``.

    Raises:
        ConfigError: for anything else; `op` is named.
    """
    pair = [size, size] if isinstance(size, int) else size
    whole = isinstance(pair, list | tuple) and all(isinstance(n, int) and n > 0 for n in pair)
    if isinstance(size, bool) or not whole or len(pair) != 2:
        raise ConfigError(f"{op}: size must be a positive whole number or [width, height], got {show(size)}")
    if pair[0] * pair[1] > MAX_AREA:
        raise ConfigError(f"{op}: size {pair[0]} x {pair[1]} has more than {MAX_AREA} pixels")
    return pair[0], pair[1]
