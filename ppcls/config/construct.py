"""Building a named component from its node."""

from __future__ import annotations

import inspect
from typing import Any

from ppcls.config.nodes import single
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
        ConfigError: for an unknown name, or options that do not fit its signature.
    """
    name, options = single(node, where)
    try:
        factory = registry[name]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    everything = inspect.signature(factory).parameters
    parameters = {k: p for k, p in everything.items() if p.kind is not p.VAR_KEYWORD}
    for option in options:
        if option not in parameters and len(parameters) == len(everything):
            raise ConfigError(f"{where}: {name} has no option {option!r}.{hint(option, parameters)}")
    options = {k: v for k, v in supplied.items() if k in parameters} | options
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in options]
    if missing:
        raise ConfigError(f"{where}: {name} needs {', '.join(missing)}")
    return create(name, factory, options)
