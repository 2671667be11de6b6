"""Collect all mistakes of a file, so that one run of the checks reports all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ppcls.errors import ConfigError, Mistake, Place, PpclsError

_log = logging.getLogger("ppcls")


# Errors of constructors for values that a signature does not exclude: Paddle uses assertions for sizes below
# 1, and other errors for other values.
REFUSALS = (
    PpclsError,
    TypeError,
    ValueError,
    AssertionError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    SystemError,
)


def reason_of(error: BaseException) -> str:
    """Return the text of an exception as one line of a message; Paddle's have many."""
    if isinstance(error, PpclsError):
        return str(error)
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else f"{text[:297]}...") or type(error).__name__


class Findings:
    """Mistakes and warnings in the order in which they were found, each with its config path."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []

    def error(self, path: str, problem: str = "", **parts: Any) -> None:
        """Record a mistake at `path`; `parts` are the other attributes of :class:`~ppcls.errors.Mistake`."""
        _note(Mistake(path, problem, **parts), self.mistakes)

    def warn(self, path: str, problem: str = "", **parts: Any) -> None:
        """Record a warning at `path`: it works, but is probably not intended."""
        _note(Mistake(path, problem, **parts), self.warnings)

    def add(self, mistake: Mistake) -> None:
        """Record a mistake."""
        _note(mistake, self.mistakes)

    def refuse(self, path: str, error: BaseException) -> None:
        """Record an exception as a mistake at `path`, or at the path below it that the exception gives."""
        if isinstance(error, ConfigError):
            for mistake in error.mistakes:
                _note(mistake.below(path), self.mistakes)
        elif isinstance(error, PpclsError):
            _note(Mistake(join(path, error.path), error.text), self.mistakes)
        else:
            _note(Mistake(path, reason_of(error)), self.mistakes)

    def mistakes_below(self, path: str) -> bool:
        """Tell whether there is a mistake at `path` or below it."""
        return any(is_below(mistake.path, path) for mistake in self.mistakes)

    def finish(self, file: str, find: Callable[[str], Place | None] | None = None) -> None:
        """Log the warnings.

        Args:
            file: name of the file, for messages.
            find: returns the place of a config path in the files.

        Raises:
            ConfigError: if there are mistakes; its text lists all of them, one per line.
        """
        for warning in self.warnings:
            _log.warning("%s: %s", file, warning)
        if find is not None:
            self.mistakes = [replace(m, place=m.place or find(m.written_as or m.path)) for m in self.mistakes]
        self._raise(file)

    def raise_mistakes(self, where: str) -> None:
        """Raise the mistakes of one node; a single mistake has no headline.

        Raises:
            ConfigError: if there are mistakes.
        """
        if len(self.mistakes) == 1:
            raise ConfigError.of(self.mistakes[0])
        self._raise(where)

    def _raise(self, where: str) -> None:
        if not self.mistakes:
            return
        count = len(self.mistakes)
        lines = [f"  {mistake}" for mistake in self.mistakes]
        headline = f"{count} mistake{'s' * (count > 1)} in {where}"
        raise ConfigError("\n".join([headline, *lines]), mistakes=self.mistakes)


def _note(mistake: Mistake, noted: list[Mistake]) -> None:
    """Add a mistake unless it was added before."""
    if not any(known.path == mistake.path and str(known) == str(mistake) for known in noted):
        noted.append(mistake)


def is_below(path: str, above: str) -> bool:
    """Tell whether a config path is `above` or leads below it."""
    return path == above or path.startswith(f"{above}.")


def join(*steps: object) -> str:
    """Return a config path such as ``Loss.Train.0``."""
    return ".".join(str(step) for step in steps if step != "")
