"""Helpers for the two forms of a named node and for OmegaConf containers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ppcls.errors import ConfigError, show

# A recipe as a file has it: nothing of it is checked, a later or an earlier version may have written it.
RecipeTree: TypeAlias = dict[str, Any]
# A component as a file names it, with its options: {"CELoss": {...}} or {"name": "SGD", ...}.
Node: TypeAlias = dict[str, Any]
# The options of a component, by name. Its own signature says which there are, and of which types.
Options: TypeAlias = Mapping[str, Any]

_PLAIN_VALUES = frozenset({str, int, float, bool, type(None)})


def plain(node: Any) -> Any:
    """Return an OmegaConf node or plain container as a new plain dict or list; other values unchanged.

    Raises:
        ConfigError: if an interpolation such as ``${Arch.class_num}`` cannot be resolved.
    """
    if type(node) in _PLAIN_VALUES:  # most are, and the checks below take long
        return node
    if isinstance(node, DictConfig | ListConfig):
        try:
            node = OmegaConf.to_container(node, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(str(error).splitlines()[0], path=error.full_key or "") from None
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return copy.copy(node) if isinstance(node, set) else node


def single(node: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Split a named node into its name and options.

    Both forms are accepted: ``{"CELoss": {"weight": 1.0}}`` (options may be null) and
    ``{"name": "CELoss", "weight": 1.0}``.

    Args:
        node: the node, plain or OmegaConf.
        where: its config path, for the message.

    Raises:
        ConfigError: if the node is neither; the message shows it.
    """
    try:
        return split(node)
    except ConfigError as error:
        raise error.below(where) from None


def is_flat(node: Any) -> bool:
    """Tell whether name and options are in the same map: ``{"name": "CELoss", "weight": 1.0}``."""
    return isinstance(node, Mapping) and "name" in node and not isinstance(node["name"], Mapping)


def split(node: Any) -> tuple[str, dict[str, Any]]:
    """Do the work of :func:`single`; its message names no place."""
    node = plain(node)
    if isinstance(node, str):
        raise ConfigError(f"expected a name with options, got the text {node!r}. Write '{node}:'")
    if not isinstance(node, dict) or not node:
        raise ConfigError(f"expected a name with options, got {show(node)}")
    if is_flat(node):
        name = node.pop("name")
        if not isinstance(name, str):
            raise ConfigError(f"name must be a string, got {show(name)}")
        return name, node
    if len(node) > 1:
        first = next(iter(node))
        if node[first] is None:
            advice = f" Indent the options of {first!r}"
        else:
            advice = " If these are options, `name: ...` is missing beside them"
        raise ConfigError(f"expected one name, got {len(node)}: {', '.join(map(str, node))}.{advice}")
    ((name, options),) = node.items()
    if not isinstance(name, str):
        raise ConfigError(f"a name must be a string, got {show(name)}")
    if options is not None and not isinstance(options, dict):
        raise ConfigError(
            f"the options of {name} must be a map, got {show(options)}. If {name} is an option itself, "
            "`name: ...` is missing beside it"
        )
    return name, options or {}
