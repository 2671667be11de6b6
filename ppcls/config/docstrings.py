"""What docstrings of components say, for the JSON schema and ``ppcls explain``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

_SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")
_OPTIONS = ("Args", "Attributes")  # a dataclass describes its options as attributes


def summary(factory: Callable[..., Any]) -> str:
    """Return the first paragraph of a component's docstring as one line, empty if it has none."""
    return _one_line(inspect.cleandoc(factory.__doc__ or "").split("\n\n")[0])


def description(factory: Callable[..., Any]) -> list[str]:
    """Return the paragraphs of a component's docstring before its sections (``Args:`` and so on).

    The paragraphs of functions of the same module that they refer to (``:func:`attention_transfer```) follow.
    """
    found = _paragraphs(factory)
    scope = getattr(inspect.getmodule(inspect.unwrap(factory)), "__dict__", {})
    for name in re.findall(r":func:`(\w+)`", " ".join(found)):
        if inspect.isfunction(scope.get(name)):
            found += _paragraphs(scope[name])
    return found


def option_documents(factory: Callable[..., Any]) -> dict[str, str]:
    """Return what the docstrings of a component and of its base classes say of each option."""
    target = inspect.unwrap(factory)
    documents: dict[str, str] = {}
    for source in reversed(target.__mro__) if inspect.isclass(target) else (target,):
        if source is target or source.__module__.partition(".")[0] != "paddle":
            documents |= _entries(inspect.cleandoc(source.__doc__ or ""))
    return documents | _entries(inspect.cleandoc(factory.__doc__ or ""))


def plain_text(text: str) -> str:
    """Return a text without the marks of reStructuredText: ``x``, `x` and :func:`x` all become x."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return re.sub(r"``?([^`]+)``?", r"\1", text)


def _paragraphs(factory: Callable[..., Any]) -> list[str]:
    text = inspect.cleandoc(factory.__doc__ or "")
    before = re.split(rf"^(?:{'|'.join(_SECTIONS)}):$", text, maxsplit=1, flags=re.MULTILINE)[0]
    return [part.strip("\n") for part in before.split("\n\n") if part.strip()]


def _entries(text: str) -> dict[str, str]:
    documents: dict[str, str] = {}
    pattern = rf"^(?:{'|'.join(_OPTIONS)}):\n((?:[ ]+.*\n?|\n)+)"
    for section in re.findall(pattern, text, re.MULTILINE):
        for entry in re.split(r"^ {4}(?=\S)", section, flags=re.MULTILINE):
            names, colon, meaning = entry.partition(": ")
            if colon:
                documents |= {name.strip(): _one_line(meaning) for name in names.split(",")}
    return documents


def _one_line(text: str) -> str:
    return " ".join(text.split())
