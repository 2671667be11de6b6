"""Information from the first bytes of an image file, before anything is decoded."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from PIL import Image

# Errors of Pillow for files that are damaged, of unknown format, or unreasonably large.
PIL_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_EXIF_ORIENTATION = 0x0112
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".jif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png"},
    "BMP": {".bmp", ".dib"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
}
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_BITS_PER_SAMPLE = 258
# Width, height and the largest value of a PGM or PPM file, the last of which is the group.
_NETPBM = re.compile(rb"P[2356](?:(?:\s|#[^\r\n]*[\r\n])+(\d+)){3}\s")
_NOT_IMAGES = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"8BPS": "a Photoshop file",
    b"\x00\x05\x16\x07": "what macOS notes about a file of the same name without ._",
    b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched (git lfs pull)",
}


def declared_size(content: bytes | memoryview) -> tuple[int, int] | None:
    """Return (width, height) from the header; None if the format is unknown or the header is damaged."""
    content = memoryview(content)
    start = bytes(content[:8])
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(content)
    if start == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:
        return struct.unpack(">II", content[16:24])
    try:
        with Image.open(io.BytesIO(content)) as file:
            return file.size
    except PIL_ERRORS:
        return None


def _jpeg_size(content: memoryview) -> tuple[int, int] | None:
    """Skip the segments before the frame header; fifteen times faster than opening with Pillow."""
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return width, height
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame of a JPEG file that is decoded from the top down: baseline, in one scan.

    Attributes:
        width: of the image.
        height: of the image.
        place: where the two bytes of the height are in the file.
        sampling: horizontal and vertical sampling factor of each component; the first is the brightness.
        exif: whether there are EXIF data, which may say that the image is turned.
    """

    width: int
    height: int
    place: int
    sampling: tuple[tuple[int, int], ...]
    exif: bool

    def rows_for(self, bottom: int) -> int:
        """Return how many rows have to be decoded for the rows above `bottom`: whole blocks.

        The colours of a row are interpolated from those of the rows beside it.
        """
        block = 8 * self.sampling[0][1]
        return min(self.height, -(-(bottom + 2 * self.sampling[0][1]) // block) * block)


def jpeg_frame(content: bytes | memoryview) -> JpegFrame | None:
    """Return the frame of a JPEG file; None if it is of another kind, damaged, or does not end as it should.

    Other kinds are: progressive or lossless files, several scans, other colours than gray and YCbCr.
    """
    if content[:2] != b"\xff\xd8" or content[-2:] != b"\xff\xd9":
        return None
    place, end = 2, len(content) - 9
    frame: tuple[int, int, int] | None = None
    sampling: tuple[tuple[int, int], ...] = ()
    exif = False
    while place < end and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        length = content[place + 2] << 8 | content[place + 3]
        if marker == 0xC0 and frame is None:
            width, height = (
                content[place + 7] << 8 | content[place + 8],
                content[place + 5] << 8 | content[place + 6],
            )
            count = content[place + 9]
            if content[place + 4] != 8 or count not in (1, 3) or place + 10 + 3 * count > len(content):
                return None
            factors = content[place + 11 : place + 10 + 3 * count : 3]
            sampling = tuple((factor >> 4, factor & 15) for factor in factors)
            frame = width, height, place + 5
        elif marker == 0xDA:
            if frame is None or content[place + 4] != len(sampling) or 0 in frame:
                return None
            return JpegFrame(*frame, sampling, exif)
        elif 0xC1 <= marker <= 0xCF and marker != 0xC4 or marker == 0xEE:  # another kind; colours of Adobe
            return None
        elif marker == 0xE1 and content[place + 4 : place + 8] == b"Exif":
            exif = True
        place += 2 + length
    return None


def opencv_darkens(content: bytes | memoryview) -> bool:
    """Tell whether OpenCV would make an image too dark, without an error.

    It multiplies the colours of an 8-bit TIFF file by their transparency, and does not scale those of a PGM
    or PPM file whose largest value is neither 255 nor 65535.
    """
    start = bytes(content[:4])  # nothing else is looked at of most images
    if start[:1] == b"P":
        header = _NETPBM.match(content[:4096])
        return header is not None and int(header[1]) not in (255, 65535)
    if _STARTS.get(start) != "TIFF":
        return False
    try:
        with Image.open(io.BytesIO(content)) as file:
            return file.mode == "RGBA" and _most_bits(file) == 8
    except PIL_ERRORS:
        return False


def may_have_exif(content: memoryview) -> bool:
    """Tell whether there are EXIF data in a JPEG file, or its header is of a kind that is not understood."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xDA:  # here the picture begins
            return False
        if marker == 0xE1 and bytes(content[place + 4 : place + 8]) == b"Exif":
            return True
        place += 1 if marker == 0xFF else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place + 4 <= len(content)


def why_not_decoded(content: bytes | memoryview) -> str:
    """Describe the content of a file that cannot be decoded, and what to do about it."""
    head = bytes(content[:4096])
    if not head.strip(b"\0"):
        return f"{len(content)} bytes that begin with zeros; copy or download the file again"
    for start, what in _NOT_IMAGES.items():
        if head.startswith(start):
            return f"it is {what}, no image"
    kind = _kind(head)
    if kind is not None:
        return (
            f"the {kind} data ({len(content)} bytes) are damaged, cut off or of a rare kind; copy the file "
            "again, or save it as an 8-bit PNG or JPEG"
        )
    if head[4:8] == b"ftyp":
        return f"it is a {_box_kind(head[8:12])} file, which is not supported; convert it to JPEG or PNG"
    if _is_text(head):
        shown = " ".join(head.decode("utf-8", "replace").split())[:40]
        return f"it is text, no image: {shown!r}; perhaps a failed download"
    return f"{len(content)} bytes of no known image format; convert it to JPEG or PNG"


def _kind(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), None)


def _box_kind(brand: bytes) -> str:
    if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIC"
    return "AVIF" if brand in (b"avif", b"avis") else "video or HEIC"


def _is_text(head: bytes) -> bool:
    try:
        text = head[:512].decode("utf-8", "strict" if len(head) <= 512 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def oddities(content: bytes | memoryview, path: str = "") -> dict[str, str]:
    """Return what is unusual about an image file, as ``{kind: detail}``; decoding handles all of it.

    Kinds: ``CMYK``, ``16 bits``, ``transparency``, ``turned by EXIF``, ``gray``, ``wrong extension``.

    Args:
        content: the file.
        path: its name, for the check of the extension.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            return _oddities(file, content, PurePath(path).suffix.lower())
    except PIL_ERRORS:
        return {}


def _oddities(file: Any, content: bytes | memoryview, suffix: str) -> dict[str, str]:
    found = {}
    if file.mode == "CMYK":
        found["CMYK"] = "converted to RGB without its colour profile"
    deep_png = file.format == "PNG" and len(content) > 24 and content[24] == 16
    if deep_png or file.mode.startswith("I") or _most_bits(file) > 8:
        found["16 bits"] = "reduced to 8"
    if "A" in file.mode or "transparency" in file.info:
        found["transparency"] = "dropped: what is hidden under it shows"
    # Pillow would decode a whole PNG in search of its EXIF data.
    orientation = 1
    if file.format != "PNG" or b"eXIf" in bytes(content):
        orientation = file.getexif().get(_EXIF_ORIENTATION, 1)
    if orientation in range(2, 9):
        found["turned by EXIF"] = f"orientation {orientation}; decoded upright"
    if file.mode in ("L", "LA", "1") or file.mode.startswith("I"):
        found["gray"] = "one channel"
    fitting = _SUFFIXES.get(file.format or "")
    if suffix and fitting is not None and suffix not in fitting:
        found["wrong extension"] = f"named {suffix}, but it is {file.format}; the content decides"
    return found


def _most_bits(file: Any) -> int:
    """Return how many bits a sample of a TIFF file has; 8 for other files."""
    bits = getattr(file, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8)
    return max(bits if isinstance(bits, tuple) else (bits,))
