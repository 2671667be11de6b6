"""What all transforms share: how an image lies in memory, and sizes as a YAML writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcls.errors import ConfigError, DataError


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


def with_channels(image: np.ndarray) -> np.ndarray:
    """Give back the channel axis that OpenCV and Pillow drop from images with one channel."""
    return image[:, :, None] if image.ndim == 2 else image


def width_height(size: int | Sequence[int], op: str) -> tuple[int, int]:
    """Read a size: one number for a square, or ``[width, height]``.

    Raises:
        ConfigError: for anything else; `op` is named.
    """
    pair = [size, size] if isinstance(size, int) else size
    whole = isinstance(pair, list | tuple) and all(isinstance(n, int) and n > 0 for n in pair)
    if isinstance(size, bool) or not whole or len(pair) != 2:
        raise ConfigError(f"{op}: size must be a positive whole number or [width, height], got {size!r}")
    return pair[0], pair[1]
