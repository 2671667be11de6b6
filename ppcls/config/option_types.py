"""Types of options in signatures and sections: check, convert and describe them."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ppcls.config.arithmetic import evaluate
from ppcls.errors import ConfigError, Mistake, nearest, show

_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Collection)
ITERABLES = (*_LISTS, collections.abc.Iterable)
MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
Factory = Callable[..., Any]


class Mismatch(ConfigError):
    """A value of a wrong type; the path is that of the wrong element."""


def convert(value: Any, wanted: Any) -> Any:
    """Return `value` as type `wanted`: unchanged, or computed if a number is written as arithmetic.

    Raises:
        Mismatch: if it has another type. A bool is not a number; a whole number is accepted as a float.
    """
    origin = get_origin(wanted)
    if origin is Annotated:
        return convert(value, get_args(wanted)[0])
    if origin is Literal:
        return _choice(value, get_args(wanted))
    if origin in (Union, types.UnionType):
        return _union(value, get_args(wanted), wanted)
    base = origin or wanted
    if base is None or base is type(None):
        fits = value is None
    elif base in (int, float):
        return _number(value, base)
    elif base in (bool, str):
        fits = isinstance(value, base)
    elif base in ITERABLES:
        return _elements(value, wanted)
    elif base in MAPS:
        fits = isinstance(value, Mapping)
    else:
        return value
    if not fits:
        raise _mismatch(value, wanted)
    return value


def _mismatch(value: Any, wanted: Any) -> Mismatch:
    advice = "Put it in quotes" if wanted is str and isinstance(value, int | float) else ""
    return Mismatch.of(Mistake("", value=value, expected=describe(wanted), advice=advice))


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    near = nearest(value, choices) if isinstance(value, str) else ()
    raise Mismatch.of(Mistake("", value=value, expected=_any_of(choices), suggestions=near))


def _any_of(choices: tuple[Any, ...]) -> str:
    return " or ".join(_yaml(choice) for choice in choices)


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):  # 1 equals True, but is written 1
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value)


def _union(value: Any, options: tuple[Any, ...], wanted: Any) -> Any:
    if isinstance(value, str) and str in options:
        return value
    failures = []
    for option in options:
        try:
            return convert(value, option)
        except Mismatch as mismatch:
            if option is not type(None):
                failures.append(mismatch)
    deep = [mismatch for mismatch in failures if mismatch.path]
    if len(failures) == 1 or len(deep) == 1:
        raise (deep or failures)[0]
    raise _mismatch(value, wanted)


def _number(value: Any, wanted: type) -> Any:
    if isinstance(value, str):
        try:
            value = evaluate(value)
        except ConfigError:
            raise _mismatch(value, wanted) from None
    if isinstance(value, bool) or not isinstance(value, int if wanted is int else (int, float)):
        raise _mismatch(value, wanted)
    return value


def _elements(value: Any, wanted: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _mismatch(value, wanted)
    kinds = get_args(wanted)
    fixed = get_origin(wanted) is tuple and kinds[-1:] != (Ellipsis,)
    if fixed and len(kinds) != len(value):
        text = f"expected {len(kinds)} values, got {len(value)}: {show(value)}"
        raise Mismatch.of(Mistake("", text, value=value, expected=f"{len(kinds)} values"))
    result = []
    for index, element in enumerate(value):
        kind = kinds[index] if fixed else kinds[0] if kinds else Any
        try:
            result.append(convert(element, kind))
        except Mismatch as mismatch:
            raise mismatch.below(str(index)) from None
    return result


def describe(wanted: Any) -> str:
    """Return the description of a type for a message, such as ``a list of whole numbers or null``."""
    origin = get_origin(wanted)
    args = get_args(wanted)
    if origin is Annotated:
        return describe(args[0])
    if origin is Literal:
        return _any_of(args)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(arg) for arg in args))
    base = origin or wanted
    if base is type(None):
        return "null"
    if base in ITERABLES:
        kinds = [arg for arg in args if arg is not Ellipsis]
        inner = describe(kinds[0]).removeprefix("a ") if kinds and kinds[0] is not Any else ""
        return f"a list of {inner}s" if inner in ("number", "whole number", "string") else "a list"
    if base in MAPS:
        return "a map"
    return _WORDS.get(base, getattr(base, "__name__", str(base)))
