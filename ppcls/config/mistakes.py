"""Collects every mistake of a file, so that one run of the checks tells the user all of them."""

from __future__ import annotations

import logging

from ppcls.errors import ConfigError, PpclsError

_log = logging.getLogger("ppcls")


# What constructing a component raises for values that its signature says nothing about: Paddle asserts on
# sizes below 1, and finds others out of range in many ways.
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
    """Mistakes and warnings in the order they were found, each with its config path."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []

    def error(self, path: str, text: str) -> None:
        """Note a mistake at `path`; the same one twice counts once."""
        if (path, text) not in self.mistakes:
            self.mistakes.append((path, text))

    def warn(self, path: str, text: str) -> None:
        """Note something at `path` that works but is unlikely to be meant."""
        if (path, text) not in self.warnings:
            self.warnings.append((path, text))

    def mistakes_below(self, path: str) -> bool:
        """Tell whether there is a mistake at `path` or below it."""
        return any(place == path or place.startswith(f"{path}.") for place, _ in self.mistakes)

    def finish(self, file: str) -> None:
        """Log the warnings.

        Raises:
            ConfigError: if there are mistakes; its text lists all of them, one a line.
        """
        for path, text in self.warnings:
            _log.warning("%s: %s: %s", file, path, text)
        if self.mistakes:
            count = len(self.mistakes)
            lines = [f"  {path}: {text}" for path, text in self.mistakes]
            raise ConfigError("\n".join([f"{count} mistake{'s' * (count > 1)} in {file}", *lines]))


def join(*steps: object) -> str:
    """Return a config path such as ``Loss.Train.0``."""
    return ".".join(str(step) for step in steps if step != "")
