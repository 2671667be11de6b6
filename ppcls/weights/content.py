"""Recognise by its first bytes a file that is not weights, and say what to do about it."""

from __future__ import annotations

import re
from typing import BinaryIO

_HEAD = 2048
_PAGE = (
    "a web page (HTML), not the file that the page offers. Download the file itself: the address of the "
    "page's download button, behind a login if there is one"
)
_SPACE = rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
_LFS = "a Git LFS pointer, a few lines in place of the file. Run `git lfs pull` in its repository"
_UNPACK = "unpack it and give the file inside"
_KINDS = tuple(
    (re.compile(start, re.DOTALL | re.IGNORECASE), meaning)
    for start, meaning in (
        (_SPACE + rb"<(?:!doctype html|html|head|script)\b", _PAGE),
        (rb"version https://git-lfs\.github\.com/spec/", _LFS),
        (rb"\x1f\x8b", f"a gzip archive; {_UNPACK} (tar xf FILE, or gunzip FILE)"),
        (rb"BZh\d", f"a bzip2 archive; {_UNPACK} (tar xf FILE)"),
        (rb"\xfd7zXZ\x00", f"an xz archive; {_UNPACK} (tar xf FILE)"),
        (rb"\x28\xb5\x2f\xfd", f"a zstd archive; {_UNPACK}"),
        (rb"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
        (rb"Rar!\x1a", f"a rar archive; {_UNPACK}"),
        (rb".{257}ustar", f"a tar archive; {_UNPACK} (tar xf FILE)"),
        (rb"PK\x03\x04", f"a zip archive. If PyTorch wrote it, call it .pth; else {_UNPACK}"),
        (rb"\x89HDF\r\n", "an HDF5 file, as Keras writes them, which ppcls does not read"),
        (rb"\x93NUMPY", "an array that NumPy saved, without the names of parameters"),
        (rb"GGUF", "a GGUF file, which ppcls does not read"),
        (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image"),
        (rb".{4}\x00{4}\{", "a safetensors file; call it .safetensors"),
        (rb"\s*[{\[]\s*[\"{\[]", "text (JSON), perhaps a description that lies beside the weights"),
    )
)


def describe_content(stream: BinaryIO) -> str | None:
    """Describe a file and what to do about it; None if its first bytes are not recognised.

    Args:
        stream: the file, at any position.
    """
    stream.seek(0)
    head = stream.read(_HEAD)
    if not head:
        return "it is empty: it was not written, copied or downloaded to its end"
    return next((f"it is {meaning}" for start, meaning in _KINDS if start.match(head)), None)
