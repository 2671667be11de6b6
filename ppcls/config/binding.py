"""Matching the options of a named node with the signature of what it names: to check it and to build it."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from ppcls.config.mistakes import Findings, join
from ppcls.config.nodes import single
from ppcls.config.option_types import Mismatch, convert
from ppcls.errors import ConfigError, hint
from ppcls.registry import Registry

Factory = Callable[..., Any]


def parameters_of(
    factory: Factory, signature: inspect.Signature | None = None
) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class or function with their annotations resolved to types.

    An annotation that cannot be resolved (a name imported for type checkers only) accepts everything.

    Args:
        factory: the class or function.
        signature: use this one in place of the factory's own.
    """
    found = {}
    target = inspect.unwrap(factory)
    for name, parameter in (signature or inspect.signature(factory)).parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _resolve(annotation, target)
        found[name] = parameter.replace(annotation=annotation)
    return found


def _resolve(annotation: str, target: Any) -> Any:
    owner = target.__init__ if inspect.isclass(target) else target
    scope = getattr(owner, "__globals__", None) or vars(sys.modules[target.__module__])
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return get_type_hints(holder, globalns=scope)["value"]
    except (NameError, TypeError, AttributeError):
        return Any


def bind(
    label: str,
    signature: Mapping[str, inspect.Parameter],
    options: Mapping[str, Any],
    path: tuple[str, str],
    findings: Findings,
    *,
    extra: Mapping[str, Any],
    supplied: Collection[str],
) -> dict[str, Any]:
    """Check `options` against `signature`; return them with arithmetic worked out.

    Args:
        label: the component's name, for messages.
        signature: its parameters, see :func:`parameters_of`.
        options: what the YAML gives.
        path: config path of the node and of its options.
        findings: receives unknown, missing and wrongly typed options.
        extra: further options and their types, read by whoever builds the component.
        supplied: parameters the builder fills in where they are left out.
    """
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    types_of = {
        name: p.annotation for name, p in signature.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    types_of |= extra
    bound, suggested = {}, ""
    for name, value in options.items():
        if name in types_of:
            here = join(path[1], name)
            wrong = findings.mistakes_below(here)  # found while checking the nodes inside
            bound[name] = value if wrong else check_type(value, types_of[name], here, findings)
        elif open_ended:
            bound[name] = value
        else:
            # A node in the spelling {name: ...} has its options beside the key `name`.
            candidates = [*types_of, "name"] if path[0] == path[1] else types_of
            near = hint(name, candidates) or _listing(types_of)
            suggested += near
            findings.error(path[0], f"{label} has no option {name!r}.{near}")
    for name, parameter in signature.items():
        required = parameter.default is parameter.empty and name in types_of and name not in supplied
        if required and name not in options and name not in suggested:
            findings.error(path[0], f"{label} needs the option {name!r}")
    return bound


def check_type(value: Any, wanted: Any, path: str, findings: Findings) -> Any:
    """Return `value` converted to `wanted`; a mismatch is reported and the value returned as it came."""
    try:
        return convert(value, wanted)
    except Mismatch as mismatch:
        findings.error(join(path, *mismatch.steps), mismatch.text)
        return value


def _listing(names: Mapping[str, Any]) -> str:
    return f" It has: {', '.join(sorted(names))}" if names else " It has none"


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
    return registry.create(name, options)


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
