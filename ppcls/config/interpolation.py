"""Interpolations such as ``${Arch.class_num}``: OmegaConf resolves them after a check of their size."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ppcls.config.mistakes import join
from ppcls.config.nodes import RecipeTree
from ppcls.config.yaml_text import MAX_DEPTH, MAX_NODES, TEXT_OF_A_NODE
from ppcls.errors import ConfigError, hint, shorten

_log = logging.getLogger("ppcls")

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_STEP = re.compile(r"[^.\[\]]+")
_UNSET = re.compile(r"Interpolation key '(.+)' not found")
_NO_PATH = "delimiter"
_LONGEST = 1000
_MISSING = "???"
# Placeholders of interpolations inside another one: of the environment, and of the recipe.
_ENVIRONMENT = "\x01"
_VALUE = "\x02"


def resolve(tree: RecipeTree) -> RecipeTree:
    """Return a copy of `tree` with interpolations replaced by their values.

    ``${Arch.class_num}`` means another value of the recipe, ``${oc.env:NAME}`` or ``${oc.env:NAME,default}``
    a variable of the environment as text, ``${oc.decode:${oc.env:NAME}}`` as a number or list.

    Text that begins with ``~`` is a path below a home folder, and is replaced by that path; a `delimiter`
    is no path.

    Raises:
        ConfigError: if one cannot be resolved, the recipe would become too large, or a value is ``???``.
    """
    texts = [text for text in _texts(tree) if "${" in text or text == _MISSING]
    if not texts:
        return dict(_at_home(tree))
    _Growth(tree).check()
    try:
        config = OmegaConf.create(tree)
        return dict(_at_home(OmegaConf.to_container(config, resolve=True, throw_on_missing=True)))
    except OmegaConfBaseException as error:
        text = shorten(_unresolved(str(error).splitlines()[0], tree))
        raise ConfigError(text, path=error.full_key or "") from None


def _at_home(node: Any) -> Any:
    """Return a copy of a tree in which paths that begin with ``~`` begin with the home folder."""
    if isinstance(node, dict):
        return {key: value if key == _NO_PATH else _at_home(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_at_home(value) for value in node]
    return os.path.expanduser(node) if isinstance(node, str) and node.startswith("~") else node


def _unresolved(problem: str, tree: RecipeTree) -> str:
    unset = _UNSET.search(problem)
    if unset is not None:
        place, _, key = unset[1].rpartition(".")
        beside = [name.rpartition(".") for name in _names(tree)]
        near = hint(key, [other for there, _, other in beside if there == place])
        remedy = near or " Set it, or write the value here."
        return f"the recipe does not set {unset[1]}, and a default cannot be referred to.{remedy}"
    missing = re.search(r"Environment variable '(\w+)' not found", problem)
    if missing is None:
        return problem
    name = missing[1]
    return f"the environment variable {name} is not set; set it, or write ${{oc.env:{name},some default}}"


def _names(node: Any, path: str = "") -> Iterator[str]:
    """Yield the config paths of all values."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield join(path, key)
        yield from _names(value, join(path, key))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


Path = tuple[Any, ...]


class _Growth:
    """Computes how large a tree becomes, without creating it: three lines may describe a million values."""

    def __init__(self, tree: RecipeTree) -> None:
        self.tree = tree
        self.known: dict[Path, int] = {}
        self.under_way: list[Path] = []

    def check(self) -> None:
        """Raise a ConfigError if the tree grows too large or too deep, or refers to itself."""
        self._weigh((), self.tree)

    def _weigh(self, path: Path, value: Any) -> int:
        if path in self.known:
            return self.known[path]
        name = ".".join(map(str, path))
        if path in self.under_way:
            raise ConfigError("the interpolation leads back to itself", path=name)
        if len(self.under_way) > MAX_DEPTH:
            raise ConfigError(f"nested more than {MAX_DEPTH} levels deep, interpolations included", path=name)
        self.under_way.append(path)
        weight = 1
        if isinstance(value, dict):
            weight += sum(self._weigh((*path, key), item) for key, item in value.items())
        elif isinstance(value, list):
            weight += sum(self._weigh((*path, index), item) for index, item in enumerate(value))
        elif isinstance(value, str):
            weight += len(value) // TEXT_OF_A_NODE
            for target in self._targets(path, value):
                found = self._find(target)
                if found and found[1] is None and not _INNERMOST.fullmatch(value):
                    _log.warning("%s: %s is null, which becomes None in %s", name, join(*found[0]), value)
                weight += self._weigh(*found) if found else 0
        self.under_way.pop()
        if weight > 2 * MAX_NODES:
            raise ConfigError(f"interpolations make more than {MAX_NODES} values of it", path=name)
        self.known[path] = weight
        return weight

    def _targets(self, path: Path, text: str) -> list[Path]:
        """Return the paths that the interpolations of a text name; a missing one is reported later."""
        if "${" not in text:
            return []
        name = ".".join(map(str, path))
        targets = []
        if len(text) > _LONGEST:
            raise ConfigError(f"{len(text)} characters with interpolations, at most {_LONGEST}", path=name)
        while found := _INNERMOST.search(text):
            inner = found[1].strip()
            kind, colon, argument = inner.partition(":")
            mark = _VALUE
            if not colon and not set(inner) & {_VALUE, _ENVIRONMENT}:
                targets.append(_absolute(path, inner))
            elif kind == "oc.env" and not set(argument.partition(",")[0]) & {_VALUE, _ENVIRONMENT}:
                mark = _ENVIRONMENT
            elif not (kind == "oc.decode" and argument.strip() == _ENVIRONMENT):
                raise ConfigError(
                    "an interpolation is ${path.of.a.value}, ${oc.env:NAME}, "
                    "${oc.env:NAME,default} or ${oc.decode:${oc.env:NAME}}",
                    path=name,
                )
            text = text[: found.start()] + mark + text[found.end() :]
        return targets

    def _find(self, target: Path) -> tuple[Path, Any] | None:
        """Return the target of a path and its value; follow interpolations on the way."""
        path: Path = ()
        node: Any = self.tree
        hops = 0
        steps = list(target)
        while steps:
            if isinstance(node, str):
                inner = self._targets(path, node)
                hops += 1
                if len(inner) != 1 or hops > MAX_DEPTH:
                    return None
                path = ()
                node = self.tree
                steps = [*inner[0], *steps]
                continue
            step = steps.pop(0)
            key = _key(node, step)
            if key is None:
                return None
            path = (*path, key)
            node = node[key]
        return path, node


def _absolute(path: Path, name: str) -> Path:
    """Return the steps of ``a.b[0]``, or of ``.b`` and ``..b``, which start at the map around `path`."""
    dots = len(name) - len(name.lstrip("."))
    steps = tuple(_STEP.findall(name))
    return (*path[: max(len(path) - dots, 0)], *steps) if dots else steps


def _key(node: Any, step: Any) -> Any:
    """Return the key of a map or the index of a list for a step; None if it does not exist."""
    if isinstance(node, dict):
        return next(
            (key for key in (step, str(step)) if key in node), next((k for k in node if str(k) == step), None)
        )
    if isinstance(node, list) and str(step).isdecimal() and len(str(step)) < 6 and int(step) < len(node):
        return int(step)
    return None
