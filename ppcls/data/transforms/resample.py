"""Changing the size of an image with OpenCV or Pillow."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from ppcls.data.transforms.arrays import with_channels
from ppcls.errors import ConfigError, hint

Backend = Literal["cv2", "pil"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos", "box", "hamming", "random"]

_CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
_PIL = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
# Each library's own default.
_DEFAULT = {"cv2": "bilinear", "pil": "bicubic"}
_RANDOM = ("bilinear", "bicubic")


class Resampler:
    """Resize to a width and height.

    Pillow widens its filter when it shrinks an image (antialiasing), OpenCV does so only for ``area``:
    the two give different values under the same name.

    Args:
        interpolation: null means the backend's default, bilinear for cv2 and bicubic for pil; ``random``
            draws bilinear or bicubic for each image.
        backend: ``cv2`` or ``pil``.
        op: the transform's name, for messages.

    Raises:
        ConfigError: for an interpolation that the backend does not have.
    """

    def __init__(self, interpolation: str | None, backend: str, op: str) -> None:
        if backend not in _DEFAULT:
            raise ConfigError(f"{op}: backend must be cv2 or pil, got {backend!r}")
        known = _CV2 if backend == "cv2" else _PIL
        if interpolation is not None and interpolation not in (*known, "random"):
            near = hint(str(interpolation), known)
            raise ConfigError(
                f"{op}: {backend} has no interpolation {interpolation!r}, only {', '.join(known)}.{near}"
            )
        self.op = op
        self.backend = backend
        self.interpolation = interpolation or _DEFAULT[backend]

    def choose(self, rng: np.random.Generator) -> str:
        """Return the interpolation for an image."""
        if self.interpolation != "random":
            return self.interpolation
        return _RANDOM[int(rng.integers(len(_RANDOM)))]

    def resize(self, image: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
        """Return `image` [H, W, C] at `size` = (width, height), with the interpolation `name`."""
        if size == (image.shape[1], image.shape[0]):
            return image
        if self.backend == "cv2":
            pixels = cv2.resize(image, size, interpolation=_CV2[name])
            return pixels if pixels.ndim == 3 else with_channels(pixels)
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        return with_channels(np.asarray(picture.resize(size, _PIL[name])))
