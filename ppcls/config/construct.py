"""Building a named component from its node."""

from __future__ import annotations

import inspect
from typing import Any

from ppcls.config.nodes import single
from ppcls.config.report import join
from ppcls.config.signature import Mismatch, convert, parameters_of
from ppcls.errors import ConfigError, hint
from ppcls.registry import Registry, create


def construct(registry: Registry, node: Any, where: str, **supplied: Any) -> Any:
    """Return the component that `node` names.

    Args:
        registry: knows the name.
        node: ``{"Name": {...}}`` or ``{"name": "Name", ...}``.
        where: config path, for messages.
        supplied: passed to a component that has such a parameter, unless the node sets it.

    Raises:
        ConfigError: for an unknown name, or options that do not fit its signature, by name or by type.
    """
    name, options = single(node, where)
    try:
        factory = registry[name]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    everything = parameters_of(factory)
    parameters = {k: p for k, p in everything.items() if p.kind is not p.VAR_KEYWORD}
    for option in options:
        if option not in parameters and len(parameters) == len(everything):
            raise ConfigError(f"{where}: {name} has no option {option!r}.{hint(option, parameters)}")
    options = {
        key: _fitting(value, parameters.get(key), f"{where}.{name}.{key}") for key, value in options.items()
    }
    options = {k: v for k, v in supplied.items() if k in parameters} | options
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in options]
    if missing:
        raise ConfigError(f"{where}: {name} needs {', '.join(missing)}")
    return create(name, factory, options)


def _fitting(value: Any, parameter: inspect.Parameter | None, where: str) -> Any:
    """Return an option as the type its parameter wants, where it is a value that a YAML file can hold."""
    if parameter is None or parameter.annotation is parameter.empty:
        return value
    if not isinstance(value, (bool, int, float, str, list, dict, type(None))):
        return value  # a Python object, given by a script
    if isinstance(value, (str, int)) and "Literal[" in str(parameter.annotation):
        return value  # components name the nearest of their words themselves
    try:
        return convert(value, parameter.annotation)
    except Mismatch as mismatch:
        raise ConfigError(f"{join(where, *mismatch.steps)}: {mismatch.text}") from None
