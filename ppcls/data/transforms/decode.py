"""Decode the bytes of an image file."""

from __future__ import annotations

import io
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from ppcls.data.headers import PIL_ERRORS, declared_size, why_not_decoded
from ppcls.data.images import ImageError
from ppcls.data.transforms.arrays import with_channels
from ppcls.data.transforms.base import Transform
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS

MAX_PIXELS = 178_956_970  # 512 MiB in three channels; Pillow's limit too


@TRANSFORMS.register()
class DecodeImage(Transform):
    """Decode an image file to uint8 [H, W, C], rotated as its EXIF orientation says.

    The content decides the format, not the extension of the file. Transparency is dropped: the colours
    under it show. CMYK becomes RGB, 16 bits per channel become 8, a palette becomes its colours, gray becomes
    three equal channels; of an animation the first picture is used.

    Args:
        to_rgb: channels in the order red, green, blue; otherwise blue, green, red.
        to_np: accepted for old recipes; arrays are passed on between transforms in either case.
        channel_first: return [C, H, W]; only if no other transform of images follows.
        backend: ``cv2`` or ``pil``; some pixels of JPEG files differ by one level.
        channels: 3, or 1 for gray.
        max_pixels: a file whose header declares more pixels is refused before it is decoded, because a few
            bytes can declare any number. The default is Pillow's own limit, which Pillow always applies.

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
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if backend not in ("cv2", "pil"):
            raise ConfigError(f"DecodeImage: backend must be cv2 or pil, got {backend!r}")
        if channels not in (1, 3):
            raise ConfigError(f"DecodeImage: channels must be 1 or 3, got {channels!r}")
        self.to_rgb = to_rgb
        self.backend = backend
        self.channels = channels
        if max_pixels < 1:
            raise ConfigError(f"DecodeImage: max_pixels must be at least 1, got {max_pixels}")
        self.channel_first = channel_first
        self.max_pixels = max_pixels

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return uint8 [H, W, C], or [C, H, W] with `channel_first`.

        Raises:
            ImageError: if the bytes are not an image, or it is larger than `max_pixels`.
            DataError: if `image` is not the content of a file.
        """
        if not isinstance(image, bytes | bytearray | memoryview) and getattr(image, "ndim", 0) != 1:
            raise DataError(
                f"DecodeImage: expected the bytes of a file, got {_describe(image)}; it comes first in a "
                "chain, and decoded images need none"
            )
        buffer = np.frombuffer(image, np.uint8)
        size = declared_size(buffer.data)
        if size is not None and size[0] * size[1] > self.max_pixels:
            raise ImageError(
                f"refused before decoding: its header declares {size[0]} x {size[1]} pixels, more than "
                f"max_pixels ({self.max_pixels}) of DecodeImage; shrink the image or raise the limit"
            )
        pixels = with_channels(self._cv2(buffer) if self.backend == "cv2" else self._pil(buffer))
        return pixels.transpose(2, 0, 1) if self.channel_first else pixels

    def _cv2(self, buffer: np.ndarray) -> np.ndarray:
        try:
            pixels = cv2.imdecode(buffer, cv2.IMREAD_GRAYSCALE if self.channels == 1 else cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise ImageError(f"cannot be decoded: {why_not_decoded(buffer.data)} ({error.err})") from error
        if pixels is None:
            raise ImageError(f"cannot be decoded: {why_not_decoded(buffer.data)}")
        if self.to_rgb and self.channels == 3:
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        return pixels

    def _pil(self, buffer: np.ndarray) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(buffer.tobytes())) as file:
                picture = _eight_bits(ImageOps.exif_transpose(file))
                picture = picture.convert("L" if self.channels == 1 else "RGB")
        except PIL_ERRORS as error:
            raise ImageError(f"cannot be decoded: {why_not_decoded(buffer.data)} ({error})") from error
        pixels = np.asarray(picture)
        return pixels if self.to_rgb or self.channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Reduce 16-bit gray to 8 bits as OpenCV does; Pillow would make all values above 255 white."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    if picture.mode == "F" or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise ValueError("32-bit samples")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _describe(image: Any) -> str:
    return f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
