"""Match the options of a component in a recipe with its signature.

The checks of a recipe bind every node and collect mistakes; builders bind one node and raise the same
messages as an error.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, get_type_hints

from ppcls.config.mistakes import Findings, is_below, join
from ppcls.config.nodes import Options, is_flat, split
from ppcls.config.option_types import Mismatch, convert
from ppcls.errors import ConfigError, nearest
from ppcls.registry import Registry

Factory = Callable[..., Any]
Parameters = Mapping[str, inspect.Parameter]


def parameters_of(factory: Factory, signature: inspect.Signature | None = None) -> Parameters:
    """Return the parameters of a class or function with their annotations resolved to types.

    A layer without ``__init__`` of its own has none: what a recipe would set is Paddle's name and precision.
    An annotation that cannot be resolved (a name imported for type checkers only) accepts everything; so does
    one that is a remark.

    Args:
        factory: the class or function.
        signature: use this one instead of the factory's own.
    """
    if signature is None and isinstance(factory, type | types.FunctionType):
        return _parameters_of(factory)
    return _resolved(factory, signature or inspect.signature(factory))


@lru_cache(maxsize=4096)
def _parameters_of(factory: Factory) -> Parameters:
    """Return the parameters of what is written in Python, whose signature stays as it is."""
    if inspect.isclass(factory) and _is_of_paddle(factory.__init__):
        return {}
    return types.MappingProxyType(_resolved(factory, inspect.signature(factory)))


def _resolved(factory: Factory, signature: inspect.Signature) -> dict[str, inspect.Parameter]:
    found = {}
    target = inspect.unwrap(factory)
    for name, parameter in signature.parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _resolve(annotation, target)
        found[name] = parameter.replace(annotation=annotation)
    return found


def _is_of_paddle(function: Any) -> bool:
    # what C code defines, such as object.__init__, has no module
    return str(getattr(function, "__module__", "")).partition(".")[0] == "paddle"


def node_parameters(registry: Registry, name: str, options: Options) -> Parameters:
    """Return the options of a component, which may depend on the values of other options.

    Args:
        registry: knows the name.
        name: the component's name.
        options: those of the node.

    Raises:
        ConfigError: for an unknown name, or if the component refuses its options.
    """
    return parameters_of(registry[name], registry.trait(name, "signature_for")(dict(options)))


def takes(factory: Factory, option: str) -> bool:
    """Tell whether a class or function has a parameter of this name."""
    return option in parameters_of(factory)


def joined_signature(
    *parts: Factory | Parameters, result: Any = inspect.Signature.empty
) -> inspect.Signature:
    """Return a signature with the keyword parameters of all `parts`; later ones replace earlier ones.

    Args:
        parts: classes and functions, or parameters as :func:`parameters_of` gives them; ``**options`` of one
            is left out, because it stands for those of the next; that of the last stays.
        result: the annotation of what a call returns.
    """
    joined: dict[str, inspect.Parameter] = {}
    for part in parts:
        for name, parameter in (part if isinstance(part, Mapping) else parameters_of(part)).items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                joined[name] = parameter.replace(kind=parameter.KEYWORD_ONLY)
            elif part is parts[-1]:
                joined[name] = parameter
    return inspect.Signature(list(joined.values()), return_annotation=result)


def _resolve(annotation: str, target: Any) -> Any:
    owner = target.__init__ if inspect.isclass(target) else target
    if isinstance(owner, types.FunctionType):
        return _annotation_of(owner, annotation)
    return _evaluate(annotation, vars(sys.modules[target.__module__]))


@lru_cache(maxsize=4096)
def _annotation_of(function: types.FunctionType, annotation: str) -> Any:
    """Evaluate an annotation once: every check of a recipe asks for those of all its components."""
    return _evaluate(annotation, function.__globals__)


def _evaluate(annotation: str, scope: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return get_type_hints(holder, globalns=scope)["value"]
    except Exception:  # noqa: BLE001 - a text of somebody else, perhaps no Python at all: "how far ahead"
        return Any


def bind(
    label: str,
    parameters: Parameters,
    options: Options,
    path: tuple[str, str],
    findings: Findings,
    *,
    extra: Mapping[str, Any] | None = None,
    supplied: Collection[str] = (),
) -> dict[str, Any]:
    """Check `options` against `parameters`; return them with arithmetic computed.

    Args:
        label: the component's name, for messages.
        parameters: see :func:`parameters_of`.
        options: options of the node. Python objects from scripts, which YAML cannot contain, are accepted.
        path: config path of the node and of its options.
        findings: receives unknown, missing and wrongly typed options.
        extra: further options and their types, which the builder of the component reads.
        supplied: parameters that the builder fills in if they are left out.
    """
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    types_of = {name: p.annotation for name, p in parameters.items() if p.kind not in variadic}
    types_of |= extra or {}
    bound: dict[str, Any] = {}
    meant: set[str] = set()  # what an unknown option may have been meant to be
    for name, value in options.items():
        if name in types_of:
            here = join(path[1], name)
            wrong = findings.mistakes_below(here)  # found while checking the nodes inside
            bound[name] = value if wrong else _converted(value, types_of[name], here, findings)
        elif open_ended:
            bound[name] = value
        else:
            # A node in the spelling {name: ...} has its options beside the key `name`.
            candidates = [*types_of, "name"] if path[0] == path[1] else types_of
            near = nearest(name, candidates)
            meant.update(near or types_of)
            advice = "" if near else _listing(types_of)
            problem = f"{label} has no option {name!r}"
            parts = {"value": value, "suggestions": near, "advice": advice}
            findings.error(path[0], problem, **parts, written_as=join(path[1], name))
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and name in types_of and name not in supplied
        if required and name not in options and name not in meant:
            findings.error(path[0], f"{label} needs the option {name!r}")
    return bound


def _converted(value: Any, wanted: Any, path: str, findings: Findings) -> Any:
    """Return `value` converted to `wanted`; for a mismatch, record it and return the unchanged value."""
    if wanted is inspect.Parameter.empty:
        return value
    if not isinstance(value, (bool, int, float, str, list, dict, type(None))):
        return value  # a Python object, given by a script
    try:
        return convert(value, wanted)
    except Mismatch as mismatch:
        findings.refuse(path, mismatch)
        return value


def _listing(names: Mapping[str, Any]) -> str:
    return f"It has: {', '.join(sorted(names))}" if names else "It has none"


def bound_options(
    name: str, parameters: Parameters, options: Options, path: tuple[str, str], **rules: Any
) -> dict[str, Any]:
    """Return the options of one node, checked as in a recipe; for builders.

    Args:
        name: the component's name.
        parameters: what may be set of it.
        options: those of the node.
        path: config path of the node and of its options.
        rules: `extra` and `supplied` of :func:`bind`.

    Raises:
        ConfigError: with all mistakes, each with its config path.
    """
    findings = Findings()
    bound = bind(name, parameters, options, path, findings, **rules)
    findings.raise_mistakes(path[0])
    return bound


def construct(registry: Registry, node: Any, where: str, **supplied: Any) -> Any:
    """Return the component that `node` names.

    Args:
        registry: knows the name.
        node: ``{"Name": {...}}`` or ``{"name": "Name", ...}``.
        where: config path, for messages.
        supplied: passed to a component that has such a parameter, unless the node sets it.

    Raises:
        ConfigError: for an unknown name, or options that do not fit its signature, by name, type or value.
    """
    try:
        name, options = split(node)
        registry[name]
    except ConfigError as error:
        raise error.below(where) from None
    paths = (where, where if is_flat(node) else join(where, name))
    parameters = node_parameters(registry, name, options)
    options = bound_options(name, parameters, options, paths, supplied=supplied)
    options = {k: v for k, v in supplied.items() if k in parameters} | options
    return created(registry, name, options, paths)


def created(registry: Registry, name: str, options: Options, path: tuple[str, str]) -> Any:
    """Call a component with bound options; add the config path to its errors.

    Args:
        registry: knows the name.
        name: the component's name.
        options: keyword arguments.
        path: config path of the node and of its options.

    Raises:
        ConfigError: if the component refuses its options.
    """
    try:
        return registry.create(name, options)
    except ConfigError as error:
        raise placed(error, name, path) from error


def placed(error: ConfigError, name: str, path: tuple[str, str]) -> ConfigError:
    """Return an error of a component with its config path.

    Components say which of their options they are about: ``CELoss.epsilon``, or ``Optimizer.lr`` where the
    node's place is always the same.

    Args:
        error: what the component raised.
        name: its name.
        path: config path of the node and of its options.
    """
    for known in (name, *path):
        if known and error.path != known and is_below(error.path, known):
            return error.moved(join(path[1], error.path[len(known) + 1 :]))
    return error.below(path[0])
