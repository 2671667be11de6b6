"""From the bytes of a file to an array."""

from __future__ import annotations

import io
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from ppcls.data.images import ImageError
from ppcls.data.transforms.arrays import with_channels
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS

# What Pillow raises for files that are damaged, of no known format, or too big to be meant.
_PIL_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@TRANSFORMS.register()
class DecodeImage:
    """Decode an image file to uint8 [H, W, C], turned as its EXIF orientation says.

    Transparency is dropped and deeper pixels become 8 bits.

    Args:
        to_rgb: channels in the order red, green, blue; otherwise blue, green, red.
        to_np: accepted for old recipes; arrays are passed on between transforms in either case.
        channel_first: return [C, H, W]; only for chains in which no transform of images follows.
        backend: ``cv2`` or ``pil``; JPEG files differ by a level here and there.
        channels: 3, or 1 for gray.

    Raises:
        ConfigError: for other values.
    """

    def __init__(
        self,
        to_rgb: bool = True,
        to_np: bool = True,
        channel_first: bool = False,
        backend: Literal["cv2", "pil"] = "cv2",
        channels: Literal[1, 3] = 3,
    ) -> None:
        if backend not in ("cv2", "pil"):
            raise ConfigError(f"DecodeImage: backend must be cv2 or pil, got {backend!r}")
        if channels not in (1, 3):
            raise ConfigError(f"DecodeImage: channels must be 1 or 3, got {channels!r}")
        self.to_rgb, self.backend, self.channels = to_rgb, backend, channels
        self.channel_first = channel_first

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return uint8 [H, W, C], or [C, H, W] with `channel_first`.

        Raises:
            ImageError: if the bytes are no image.
            DataError: if `image` is not the content of a file.
        """
        if not isinstance(image, bytes | bytearray | memoryview) and getattr(image, "ndim", 0) != 1:
            raise DataError(
                f"DecodeImage: expected the bytes of a file, got {_describe(image)}; it comes first in a "
                "chain, and decoded images need none"
            )
        buffer = np.frombuffer(image, np.uint8)
        pixels = with_channels(self._cv2(buffer) if self.backend == "cv2" else self._pil(buffer))
        return pixels.transpose(2, 0, 1) if self.channel_first else pixels

    def _cv2(self, buffer: np.ndarray) -> np.ndarray:
        try:
            pixels = cv2.imdecode(buffer, cv2.IMREAD_GRAYSCALE if self.channels == 1 else cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise ImageError(f"cannot be decoded: {error.err}") from error
        if pixels is None:
            raise ImageError(f"cannot be decoded: {len(buffer)} bytes that are no complete image")
        if self.to_rgb and self.channels == 3:
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        return pixels

    def _pil(self, buffer: np.ndarray) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(buffer.tobytes())) as file:
                picture = ImageOps.exif_transpose(file).convert("L" if self.channels == 1 else "RGB")
        except _PIL_ERRORS as error:
            raise ImageError(f"cannot be decoded: {error}") from error
        pixels = np.asarray(picture)
        return pixels if self.to_rgb or self.channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


def _describe(image: Any) -> str:
    return f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
