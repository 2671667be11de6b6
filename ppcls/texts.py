"""Text files and paths that users write: find what is wrong with them, and say what to do about it."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from pathlib import Path, PureWindowsPath

from ppcls.errors import DataError, hint

# Usual encodings of text files that are not UTF-8, the most likely one first.
_ENCODINGS = {"gbk": "GBK", "cp1252": "Windows-1252"}
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_LONGEST = 60


def read_text(path: Path, what: str = "list") -> str:
    """Return the text of a file, without a byte order mark.

    Args:
        path: the file, UTF-8.
        what: its name in messages, such as ``list``.

    Raises:
        DataError: if it is missing, cannot be read, or is not UTF-8 (with the number of the line).
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such {what} file.{near_path(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: the {what} cannot be read: {error.strerror}") from error
    return decode(content, path, what)


def decode(content: bytes, path: str | Path, what: str = "list") -> str:
    """Return the text of `content`, without a byte order mark.

    Raises:
        DataError: if it is not UTF-8; the message names the line and, if it can be guessed, the encoding.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}:1: not UTF-8 but UTF-16 ('Unicode' in Notepad); save the {what} as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        shown = _guess(content, line)
        raise DataError(f"{path}:{line}: not UTF-8{shown}; save the {what} as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: holds zero bytes, so it is not plain text; save the {what} as UTF-8")
    return text


def lines_of(text: str) -> list[str]:
    """Return the lines of a text with the line ends of Linux, Windows or old Macs."""
    return re.split(r"\r\n|\r|\n", text)


def _guess(content: bytes, line: int) -> str:
    """Return a guess of the encoding, with the line in this encoding."""
    for codec, name in _ENCODINGS.items():
        try:
            content.decode(codec)
            text = content.split(b"\n")[line - 1].decode(codec).strip()
        except UnicodeDecodeError:
            continue
        return f" (as {name} the line reads {text[:_LONGEST]!r})"
    return ""


def is_windows_path(text: str) -> bool:
    """Tell whether a path has the form of Windows, while this system uses ``/``."""
    return os.sep == "/" and ("\\" in text or _WINDOWS_DRIVE.match(text) is not None)


def near_path(path: str | Path) -> str:
    r"""Return a hint about a missing path, or an empty text.

    It names the same path with ``/`` instead of ``\`` or in another Unicode form if that exists, or a similar
    name in its folder.
    """
    text = str(path)
    if is_windows_path(text):
        turned = text.replace("\\", "/")
        if os.path.exists(turned):
            return f" It is written for Windows: {turned} exists, write / for \\"
        if PureWindowsPath(text).drive:
            return f" {text} is a path of Windows, which this system does not have"
    other = other_spelling(text)
    if other is not None:
        return f" {other}"
    path = Path(path)
    try:
        searched = path.parent.is_dir() and not path.exists()  # it may exist and be something else
        return hint(path.name, os.listdir(path.parent)) if searched else ""
    except OSError:
        return ""


def other_spelling(path: str, root: str = "") -> str | None:
    """Return a sentence about a file whose name looks like that of this missing one; None if there is none.

    Letters with accents are one character in Unicode's form NFC, and two in NFD, which a Mac writes.
    """
    forms = {
        "NFC, which most systems write": unicodedata.normalize("NFC", path),
        "NFD, which a Mac writes": unicodedata.normalize("NFD", path),
    }
    for form, turned in forms.items():
        if turned != path and os.path.exists(os.path.join(root, turned)):
            return (
                f"The same name exists in another Unicode form ({form}): rename the file, or "
                "write its name in that form"
            )
    return None


def sentence(hint_text: str) -> str:
    """Return a hint, which begins with a blank, as a sentence that follows another one."""
    return f".{hint_text}" if hint_text else ""
