"""Decoding JPEG files with simplejpeg, an optional library that hands out all of libjpeg-turbo.

It can be told to be fast instead of exact, and it decodes a file whose header declares fewer rows than there
are. So only the rows down to the bottom of a crop are decoded, with the same pixels.
"""

from __future__ import annotations

import functools
import io
from types import ModuleType

import cv2
import numpy as np
from PIL import Image

from ppcls.data.headers import PIL_ERRORS, JpegFrame, jpeg_frame, may_have_exif
from ppcls.logger import LOGGER

_EXIF_ORIENTATION = 0x0112
# Sampling factors of brightness and colours, by Pillow's name of them.
_USUAL = {
    "4:4:4": ((1, 1), (1, 1), (1, 1)),
    "4:2:2": ((2, 1), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "gray": ((1, 1),),
}
JPEG = b"\xff\xd8\xff"  # how such files begin


@functools.cache
def simplejpeg() -> ModuleType | None:
    """Return the library; None, after one message, if it is not installed."""
    try:
        import simplejpeg as library
    except ImportError as error:
        LOGGER.warning(
            "DecodeImage: backend simplejpeg cannot be used (%s), so OpenCV decodes: slower, and some pixels "
            "differ by a few levels. Install it with pip install 'ppcls[fast]'",
            error,
        )
        return None
    return library


def can_decode_fast(buffer: np.ndarray, frame: JpegFrame | None) -> bool:
    """Tell whether simplejpeg is there, and a file is a JPEG file that need not be turned.

    Args:
        buffer: the content of the file, uint8.
        frame: what its header says, if that is known.
    """
    if simplejpeg() is None or buffer[:3].tobytes() != JPEG:
        return False
    return not (is_turned(buffer) if frame is None else frame.exif and is_turned(buffer))


def decode_fast(buffer: np.ndarray, colours: str, smallest: tuple[int, int] | None) -> np.ndarray | None:
    """Decode a JPEG file for which :func:`can_decode_fast` is true to uint8 [H, W, C].

    Args:
        buffer: the content of the file, uint8.
        colours: ``RGB``, ``BGR`` or ``GRAY``.
        smallest: width and height that the result must have at least; None for the full size.

    Returns:
        None if another decoder has to do it: the file is damaged or of a rare kind.
    """
    library = simplejpeg()
    if library is None:
        return None
    width, height = smallest or (0, 0)
    least = {"min_width": width, "min_height": height, "min_factor": 2} if smallest else {}
    try:
        pixels: np.ndarray = library.decode_jpeg(
            buffer, colorspace=colours, fastdct=True, fastupsample=True, **least
        )
    except ValueError:
        return None
    return pixels


def decode_rows(
    buffer: np.ndarray, frame: JpegFrame, rows: int, colours: str, *, fast: bool
) -> np.ndarray | None:
    """Decode the upper part of a JPEG file to uint8 [rows, W, C].

    Args:
        buffer: the content of the file, uint8.
        frame: what its header says.
        rows: height of the part, of :meth:`JpegFrame.rows_for`.
        colours: ``RGB``, ``BGR`` or ``GRAY``.
        fast: see :func:`decode_fast`; otherwise the pixels are those of OpenCV.

    Returns:
        None if another decoder has to do it: the file is damaged.
    """
    library = simplejpeg()
    if library is None:
        return None
    content = bytearray(buffer)
    content[frame.place : frame.place + 2] = rows.to_bytes(2, "big")
    try:  # not strict, because there are data after the last declared row
        pixels: np.ndarray = library.decode_jpeg(
            content, colorspace=colours, fastdct=fast, fastupsample=fast, strict=False
        )
    except ValueError:
        return None
    return pixels


@functools.cache
def decoders_agree() -> bool:
    """Tell whether simplejpeg is there and is as exact as OpenCV if asked: all usual kinds are tried."""
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (72, 40, 3), np.uint8)
    for kind, sampling in _USUAL.items():
        picture, options = (noise[:, :, 0], {}) if kind == "gray" else (noise, {"subsampling": kind})
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=90, **options)
        content = np.frombuffer(file.getvalue(), np.uint8)
        frame = jpeg_frame(content.data)
        exact = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if frame is None or frame.sampling != sampling or exact is None:
            return False
        for bottom in (20, frame.height):
            pixels = decode_rows(content, frame, frame.rows_for(bottom), "BGR", fast=False)
            if pixels is None or not np.array_equal(pixels[:bottom], exact[:bottom]):
                return False
    return True


def is_usual(frame: JpegFrame) -> bool:
    """Tell whether :func:`decoders_agree` tries files of this kind."""
    return frame.sampling in _USUAL.values()


def is_turned(buffer: np.ndarray) -> bool:
    """Tell whether the EXIF data of a JPEG file turn or mirror the image, or cannot be read."""
    if not may_have_exif(buffer.data):
        return False
    try:
        with Image.open(io.BytesIO(buffer.data)) as file:
            return file.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)
    except PIL_ERRORS:
        return True
