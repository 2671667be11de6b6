"""Sections of a recipe, which can be read by attribute, with types, and by key, as scripts do.

A section *is* its dict: an attribute is another name of a key, so both always have the same value.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml

from ppcls.config.arch import ArchSpec
from ppcls.config.nodes import Node, Options, plain, single
from ppcls.errors import ConfigError, hint, show

if TYPE_CHECKING:
    from typing_extensions import Self


class Tree(dict[str, Any]):
    """A map of a recipe whose keys may be read and written as attributes too.

    Raises:
        AttributeError: for a key that does not exist.
    """

    if not TYPE_CHECKING:  # so that mypy knows the attributes of sections only

        def __getattr__(self, name: str) -> Any:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(f"{type(self).__name__} has no key {name!r}") from None

        def __setattr__(self, name: str, value: Any) -> None:
            self[name] = _tree(value)

        def __delattr__(self, name: str) -> None:
            self.__getattr__(name)
            del self[name]


class Section(Tree):
    """A section of a recipe; each kind is a dataclass whose fields are its keys.

    Keys that are left out have their defaults. Inner sections may be given as maps. Values are not checked
    here, but when a recipe is used.

    Raises:
        ConfigError: for a key that the section does not have.
    """

    def __setitem__(self, key: str, value: Any) -> None:
        field = _fields_by_name(type(self)).get(key)
        if field is None:
            raise ConfigError(f"{self.title()} has no key {key!r}.{hint(str(key), self)}")
        inner = field.metadata.get("section")
        if inner is not None and not isinstance(value, inner):
            value = None if value is None and field.metadata["optional"] else inner.from_dict(value)
        super().__setitem__(key, _tree(value) if inner is None else value)

    # dict has these past __setitem__.
    update = MutableMapping.update
    setdefault = MutableMapping.setdefault

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any] | None) -> Self:
        """Return the section for a map; null means empty.

        Raises:
            ConfigError: if it is not a map, or has a key that the section does not have.
        """
        given = plain({} if tree is None else tree)
        if not isinstance(given, dict):
            raise ConfigError(f"{cls.title()}: expected a section, got {show(tree)}")
        section = cls()
        section.update(given)
        return section

    @classmethod
    def title(cls) -> str:
        """Return the name of such a section in messages."""
        return cls.__name__.removesuffix("Spec")

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as plain dicts and lists."""
        found: dict[str, Any] = plain(self)
        return found


def _tree(value: Any) -> Any:
    """Return a value whose maps can be read by attribute."""
    if isinstance(value, (Tree, str, int, float, NoneType)):
        return value
    if isinstance(value, ArchSpec):
        value = value.node()
    if isinstance(value, Mapping):
        return Tree({key: _tree(item) for key, item in plain(value).items()})
    if isinstance(value, list | tuple):
        return [_tree(item) for item in value]
    return copy.copy(value) if isinstance(value, set) else value


@dataclasses.dataclass(frozen=True)
class ComponentSpec:
    """A component in a recipe.

    Attributes:
        name: its registered name.
        options: its options by name.
        path: config path of its node.
    """

    name: str
    options: Options
    path: str

    @classmethod
    def read(cls, node: Node, path: str) -> ComponentSpec:
        """Read a node in either form: ``{"CELoss": {...}}`` or ``{"name": "SGD", ...}``.

        Raises:
            ConfigError: if it does not name a component.
        """
        name, options = single(node, path)
        return cls(name, options, path)

    @classmethod
    def read_all(cls, nodes: Sequence[Node] | None, path: str) -> list[ComponentSpec]:
        """Read a list of nodes; null means an empty list.

        Raises:
            ConfigError: if one of them does not name a component.
        """
        return [cls.read(node, f"{path}.{index}") for index, node in enumerate(nodes or [])]

    def node(self) -> Node:
        """Return the node in the spelling ``{"name": "SGD", ...}``."""
        return {"name": self.name, **self.options}


# So that a script's `yaml.dump(config)` writes maps instead of our classes.
for _dumper in (
    yaml.SafeDumper,
    yaml.Dumper,
    *([yaml.CSafeDumper, yaml.CDumper] if yaml.__with_libyaml__ else []),
):
    yaml.add_multi_representer(Tree, yaml.representer.SafeRepresenter.represent_dict, Dumper=_dumper)


@cache
def _fields_by_name(section: type) -> Mapping[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(section)}


@cache
def fields_of(section: type) -> Mapping[str, tuple[dataclasses.Field[Any], Any]]:
    """Return each key of a section with its field and its resolved type."""
    hints = get_type_hints(section)
    return MappingProxyType({field.name: (field, hints[field.name]) for field in dataclasses.fields(section)})


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a key."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
