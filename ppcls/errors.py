"""Errors a user can cause, and the mistakes that those about a recipe consist of.

The command line prints the text of an error alone and exits with code 2. A script finds in ``error.mistakes``
what the text says, piece by piece; nothing in this package reads a text that it wrote itself.
"""

from __future__ import annotations

import difflib
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

PADDLE_MISSING = (
    "Paddle is not installed. For CPUs: python -m pip install 'paddlepaddle>=3.3,<3.4'; for GPUs, with the "
    "index of your CUDA version: python -m pip install 'paddlepaddle-gpu>=3.3,<3.4' "
    "-i https://www.paddlepaddle.org.cn/packages/stable/cu126/"
)

INTERRUPTED = "ppcls: interrupted"

# The name and password of an address, and the part after its question mark, which is often a token.
_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s?#'\"]*@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"]*\?)[^\s'\"]*[^\s'\":,.;)\]}>]", re.IGNORECASE)


def mask_credentials(text: str) -> str:
    """Return a text in which name, password and the part after ``?`` of addresses are masked."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text)) if "://" in text else text


class _Absent:
    """The value of a mistake that is about no value, such as a missing key; null is a value."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


@dataclass(frozen=True)
class Place:
    """Where something is written: a file, or an override of the command line, and the line if it is known."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """One thing in a recipe that is wrong, or that works but is unlikely to be meant.

    Attributes:
        path: config path, such as ``Loss.Train.0.CELoss.epsilon``; empty where there is none.
        problem: what is wrong; empty where value and expectation say it.
        value: what came, ABSENT if it is not about a value.
        expected: what may stand there, in words such as ``a whole number``.
        suggestions: the right names or values that are nearest to what came.
        advice: what else to know or do.
        place: where it is written, None if that is not known.
        written_as: config path of what to correct, if that is below `path`; an unknown option is reported at
            its node.
    """

    path: str
    problem: str = ""
    value: Any = ABSENT
    expected: str = ""
    suggestions: tuple[str, ...] = ()
    advice: str = ""
    place: Place | None = None
    written_as: str = ""

    @property
    def text(self) -> str:
        """What is wrong and how to put it right, without the path."""
        text = self.problem or f"expected {self.expected}, got {show(self.value)}"
        near = f"Did you mean: {', '.join(self.suggestions)}?" if self.suggestions else ""
        rest = " ".join(filter(None, (near, self.advice)))
        return f"{text}. {rest}" if rest else text

    def __str__(self) -> str:
        where = self.path or self.place
        return f"{where}: {self.text}" if where else self.text

    def below(self, path: str) -> Mistake:
        """Return the same mistake at its path below another path."""
        return replace(self, path=".".join(filter(None, (path, self.path))))


_Error = TypeVar("_Error", bound="PpclsError")
_ConfigError = TypeVar("_ConfigError", bound="ConfigError")


class PpclsError(Exception):
    """Base of all errors that the user can fix; the text is complete without a traceback.

    Passwords and tokens in addresses are masked in it.

    Args:
        text: what is wrong.
        path: config path of what it is about, or the part of it that whoever raises it knows, such as
            ``CELoss.epsilon``; the text of the error begins with it.
    """

    def __init__(self, text: str = "", *, path: str = "") -> None:
        super().__init__(f"{path}: {text}" if path else text)
        self.text = text
        self.path = path

    def __str__(self) -> str:
        return mask_credentials(super().__str__())

    def below(self: _Error, path: str) -> _Error:
        """Return the same error with its config path below another one."""
        return type(self)(self.text, path=".".join(filter(None, (path, self.path))))


class ConfigError(PpclsError):
    """A mistake in the YAML, in ``-o`` overrides or in arguments given to a registered class.

    Args:
        text: what is wrong; with `mistakes` the headline of their list.
        path: see :class:`PpclsError`.
        mistakes: what was found, if that is a list.

    Attributes:
        mistakes: the mistakes, at least one.
    """

    def __init__(self, text: str = "", *, path: str = "", mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(text, path=path)
        self.mistakes = tuple(mistakes) or (Mistake(path, text),)

    @classmethod
    def of(cls: type[_ConfigError], mistake: Mistake) -> _ConfigError:
        """Return the error about one mistake."""
        error = cls(mistake.text, path=mistake.path or str(mistake.place or ""))
        error.path = mistake.path
        error.mistakes = (mistake,)
        return error

    def below(self: _ConfigError, path: str) -> _ConfigError:
        """Return the error about the same mistake with its config path below another one."""
        return self.moved(".".join(filter(None, (path, self.path))))

    def moved(self: _ConfigError, path: str) -> _ConfigError:
        """Return the error about the same mistake at another config path; a list of them stays as it is."""
        return type(self).of(replace(self.mistakes[0], path=path)) if len(self.mistakes) == 1 else self


class DataError(PpclsError):
    """A mistake in list files or images."""


class WeightsError(PpclsError):
    """A weights file or checkpoint that cannot be read or does not fit."""


class TrainingError(PpclsError):
    """A run that cannot continue, such as one with a non-finite loss."""


def was_interrupted(error: BaseException | None) -> bool:
    """Tell whether an error is Ctrl-C, or Paddle's ImportError if it comes while its library is loaded."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def nearest(name: object, known: Iterable[object]) -> tuple[str, ...]:
    """Return the known names that are most like `name`, the nearest first."""
    folded = {str(k).lower(): str(k) for k in known}
    close = difflib.get_close_matches(str(name).lower(), list(folded), n=3, cutoff=0.6)
    return tuple(folded[c] for c in close)


def hint(name: object, known: Iterable[object]) -> str:
    """Return ``" Did you mean: a, b?"`` for the known names most similar to `name`, or an empty string."""
    close = nearest(name, known)
    return f" Did you mean: {', '.join(close)}?" if close else ""


def show(value: Any) -> str:
    """Return a value as a message shows it: null as YAML spells it, long ones cut, with the type's name."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        keys = ", ".join(shorten(str(key), 30) for key in list(value)[:4])
        return f"a map ({keys})" if value else "an empty map"
    return f"{shorten(repr(value), 60)} ({type(value).__name__})"


def shorten(text: str, longest: int = 300) -> str:
    """Return a text as it is, or its beginning and three dots where it is longer than a message should be."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def describe_failure(error: BaseException, inside: str | None = None) -> str:
    """Return type, text and origin of an exception of foreign code, as one line of a message.

    Args:
        error: the exception.
        inside: file or folder of that code; its last line is named, not a line of a library that it calls.
    """
    text = " ".join(str(error).split()) or "no message"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    frames = [frame for frame in frames if inside and os.path.realpath(frame[0]).startswith(inside)] or frames
    where = f" ({frames[-1][0]}:{frames[-1][1]})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
