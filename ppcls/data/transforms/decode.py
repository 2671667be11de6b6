"""Decode the bytes of an image file."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from ppcls.data.headers import (
    PIL_ERRORS,
    JpegFrame,
    declared_size,
    jpeg_frame,
    opencv_darkens,
    why_not_decoded,
)
from ppcls.data.images import ImageError
from ppcls.data.transforms.arrays import with_channels
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.jpeg import (
    JPEG,
    can_decode_fast,
    decode_fast,
    decode_rows,
    decoders_agree,
    is_turned,
    is_usual,
    simplejpeg,
)
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS

_WORTH_READING_EXIF = 500_000  # pixels
MAX_PIXELS = 178_956_970  # 512 MiB in three channels; Pillow's limit too
# OpenCV's flags by the factor by which the image is made smaller: gray, and what makes it blue, green, red.
_REDUCED = {
    1: (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR),
    2: (cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_COLOR_2),
    4: (cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_COLOR_4),
    8: (cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_COLOR_8),
}
# OpenCV 4.11 decodes to red, green, blue by itself; before, the channels are exchanged afterwards.
_RGB_FLAG: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)


@dataclass(slots=True)
class File:
    """A file whose header was read.

    Attributes:
        buffer: its content, uint8.
        decode: decodes it to [H, W, C].
        size: width and height of the result if the image is not turned; None if they are not known.
        frame: what its header says, if a part of the rows can be decoded.
    """

    buffer: np.ndarray
    decode: Callable[[], np.ndarray]
    size: tuple[int, int] | None
    frame: JpegFrame | None = None


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
        backend: ``cv2`` or ``pil``; some pixels of JPEG files differ by one level. ``simplejpeg`` decodes
            JPEG files faster and less exactly: some pixels differ by several levels. OpenCV decodes all
            other files, and JPEG files that are damaged, of a rare kind, or turned. The few kinds of files
            that OpenCV makes too dark are left to Pillow in any case.
        channels: 3, or 1 for gray.
        max_pixels: a file whose header declares more pixels is refused before it is decoded, because a few
            bytes can declare any number. The default is Pillow's own limit, which Pillow always applies.
        reduced: decode JPEG files at 1/2, 1/4 or 1/8 of their size, the smallest whose shorter side has at
            least this many pixels; null means at full size. Twice as fast for photos of cameras, with other
            pixels. Give the length of ``resize_short`` in evaluation. For random crops give more: a crop of a
            tenth of the area has a third of the side.

    Raises:
        ConfigError: for other values.
    """

    def __init__(
        self,
        to_rgb: bool = True,
        to_np: bool = True,
        channel_first: bool = False,
        backend: Literal["cv2", "pil", "simplejpeg"] = "cv2",
        channels: Literal[1, 3] = 3,
        max_pixels: int = MAX_PIXELS,
        reduced: int | None = None,
    ) -> None:
        if backend not in ("cv2", "pil", "simplejpeg"):
            raise ConfigError(f"DecodeImage: backend must be cv2, pil or simplejpeg, got {backend!r}")
        if channels not in (1, 3):
            raise ConfigError(f"DecodeImage: channels must be 1 or 3, got {channels!r}")
        self.to_rgb = to_rgb
        self.backend = backend
        self.channels = channels
        if max_pixels < 1:
            raise ConfigError(f"DecodeImage: max_pixels must be at least 1, got {max_pixels}")
        if reduced is not None and (isinstance(reduced, bool) or reduced < 1):
            raise ConfigError(
                "DecodeImage: reduced is the number of pixels that the shorter side must keep, at least 1, "
                f"got {reduced!r}"
            )
        self.channel_first = channel_first
        self.max_pixels = max_pixels
        self.reduced = reduced
        if backend == "simplejpeg":
            simplejpeg()  # says now if it is missing
        # Whether only the rows that a crop needs may be decoded.
        self._rows = decoders_agree() and backend != "pil"

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return uint8 [H, W, C], or [C, H, W] with `channel_first`.

        Raises:
            ImageError: if the bytes are not an image, or it is larger than `max_pixels`.
            DataError: if `image` is not the content of a file.
        """
        pixels = self.begin(image).decode()
        return pixels.transpose(2, 0, 1) if self.channel_first else pixels

    def begin(self, image: Any) -> File:
        """Read the header of a file.

        Raises:
            ImageError: if the image is larger than `max_pixels`.
            DataError: if `image` is not the content of a file.
        """
        if not isinstance(image, bytes | bytearray | memoryview) and getattr(image, "ndim", 0) != 1:
            raise DataError(
                f"DecodeImage: expected the bytes of a file, got {_describe(image)}; it comes first in a "
                "chain, and decoded images need none"
            )
        buffer = np.frombuffer(image, np.uint8)
        frame = jpeg_frame(image if isinstance(image, bytes) else buffer.data) if self._rows else None
        size = declared_size(buffer.data) if frame is None else (frame.width, frame.height)
        if size is not None and 0 in size:
            size = None  # a damaged header; the decoder says so
        if size is not None and size[0] * size[1] > self.max_pixels:
            raise ImageError(
                f"refused before decoding: its header declares {size[0]} x {size[1]} pixels, more than "
                f"max_pixels ({self.max_pixels}) of DecodeImage; shrink the image or raise the limit"
            )
        factor = 1 if self.reduced is None else self._factor(buffer, size)
        if size is not None and factor > 1:
            size = -(-size[0] // factor), -(-size[1] // factor)
            frame = None
        if self.backend == "pil" or opencv_darkens(buffer.data):
            return File(buffer, partial(self._pil, buffer, factor), size)
        if self.backend == "simplejpeg" and can_decode_fast(buffer, frame):
            return File(buffer, partial(self._decode_fast, buffer, factor, size), size, frame)
        if frame is not None and not (is_usual(frame) and _is_upright(buffer, frame)):
            frame = None
        return File(buffer, partial(self._cv2, buffer, self._flags(factor)), size, frame)

    def upper_part(self, file: File, bottom: int) -> tuple[Callable[[], np.ndarray], tuple[int, int] | None]:
        """Return what decodes a file at least down to `bottom`, and the size of its result.

        Rows further below are not decoded if that saves time; the pixels are the same.
        """
        frame = file.frame
        if frame is None:
            return file.decode, file.size
        rows = frame.rows_for(bottom)
        if rows == frame.height:
            return file.decode, file.size
        return partial(self._decode_rows, file, frame, rows), (frame.width, rows)

    def _factor(self, buffer: np.ndarray, size: tuple[int, int] | None) -> int:
        """Return by how much the image is to be made smaller while it is decoded: 1, 2, 4 or 8."""
        if self.reduced is None or size is None or buffer[:3].tobytes() != JPEG:
            return 1
        return next(factor for factor in (8, 4, 2, 1) if factor == 1 or min(size) >= factor * self.reduced)

    def _decode_rows(self, file: File, frame: JpegFrame, rows: int) -> np.ndarray:
        fast = self.backend == "simplejpeg"
        pixels = decode_rows(file.buffer, frame, rows, self._colours(), fast=fast)
        return file.decode() if pixels is None else pixels

    def _colours(self) -> str:
        return "GRAY" if self.channels == 1 else "RGB" if self.to_rgb else "BGR"

    def _decode_fast(self, buffer: np.ndarray, factor: int, size: tuple[int, int] | None) -> np.ndarray:
        pixels = decode_fast(buffer, self._colours(), size if factor > 1 else None)
        return self._cv2(buffer, self._flags(factor)) if pixels is None else pixels

    def _flags(self, factor: int) -> int:
        """Return the flags of OpenCV for an image that is to be made smaller by `factor`."""
        gray, colour = _REDUCED[factor]
        if self.channels == 1:
            return gray
        # It takes the place of the bit of IMREAD_COLOR.
        return colour & ~cv2.IMREAD_COLOR | _RGB_FLAG if self.to_rgb and _RGB_FLAG else colour

    def _cv2(self, buffer: np.ndarray, flags: int) -> np.ndarray:
        try:
            pixels = cv2.imdecode(buffer, flags)
        except cv2.error as error:
            raise ImageError(f"cannot be decoded: {why_not_decoded(buffer.data)} ({error.err})") from error
        if pixels is None:
            raise ImageError(f"cannot be decoded: {why_not_decoded(buffer.data)}")
        if self.to_rgb and self.channels == 3 and not _RGB_FLAG:
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        return pixels if pixels.ndim == 3 else with_channels(pixels)

    def _pil(self, buffer: np.ndarray, factor: int) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(buffer.tobytes())) as file:
                if factor > 1:
                    file.draft("", (file.width // factor, file.height // factor))
                picture = _eight_bits(ImageOps.exif_transpose(file))
                picture = picture.convert("L" if self.channels == 1 else "RGB")
        except PIL_ERRORS as error:
            raise ImageError(f"cannot be decoded: {why_not_decoded(buffer.data)} ({error})") from error
        pixels = with_channels(np.asarray(picture))
        return pixels if self.to_rgb or self.channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


def _is_upright(buffer: np.ndarray, frame: JpegFrame) -> bool:
    """Tell whether EXIF data turn an image; to read them takes longer than is saved for a small one."""
    if not frame.exif:
        return True
    return frame.width * frame.height >= _WORTH_READING_EXIF and not is_turned(buffer)


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
