"""Decoding JPEG files with simplejpeg, an optional library: libjpeg-turbo with its fastest settings."""

from __future__ import annotations

import functools
import io
from types import ModuleType

import numpy as np
from PIL import Image

from ppcls.data.headers import PIL_ERRORS, may_have_exif
from ppcls.logger import LOGGER

_EXIF_ORIENTATION = 0x0112
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


def can_decode_fast(buffer: np.ndarray) -> bool:
    """Tell whether simplejpeg is there, and a file is a JPEG file that need not be turned."""
    return simplejpeg() is not None and buffer[:3].tobytes() == JPEG and not _is_turned(buffer)


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


def _is_turned(buffer: np.ndarray) -> bool:
    if not may_have_exif(buffer.data):
        return False
    try:
        with Image.open(io.BytesIO(buffer.data)) as file:
            return file.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)
    except PIL_ERRORS:
        return True
