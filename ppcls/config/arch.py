"""The networks of the section ``Arch``: which one is deployed, which are frozen, where weights come from.

All other code asks an :class:`ArchSpec` and never reads the section itself.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppcls.config.nodes import Node, Options, plain, single
from ppcls.errors import ConfigError, hint, show
from ppcls.registry import BACKBONES

# Options of a network, or of a network of networks, that name files of weights.
WEIGHT_FILES = ("pretrained", "pretrained_list")
# All that say where weights come from; the others choose among official ones.
WEIGHT_OPTIONS = (*WEIGHT_FILES, "use_ssld", "use_ssld_stage1_pretrained")
# Options of a network of networks that have one entry per network.
_ONE_EACH = ("models", "pretrained_list", "freeze_params_list")
# The number of classes if the recipe does not give one.
_CLASSES = 1000


@dataclass(frozen=True)
class ArchSpec:
    """A network as a recipe describes it, with the networks inside it.

    Attributes:
        name: its registered name, such as ``ResNet50`` or ``DistillationModel``.
        options: the node of the recipe, including name and weights; do not change it.
        title: its name in the recipe; ``""`` for ``Arch`` itself.
        path: its config path.
        prefix: prefix of the names of its parameters; ``""`` for ``Arch`` itself.
        frozen: none of its parameters trains: it is frozen, or a group around it, or each network inside it.
        pretrained: its weights: True for official ones, a path, or an address; None if the recipe does not
            give any.
        class_num: number of classes from its own options or those of a group around it; None without them,
            0 or less for what cannot be one.
        children: the networks inside it, in order.
        chosen: the network to deploy, if the recipe names it.
    """

    name: str
    options: Options = field(default_factory=dict)
    title: str = ""
    path: str = "Arch"
    prefix: str = ""
    frozen: bool = False
    pretrained: bool | str | None = None
    class_num: int | None = None
    children: tuple[ArchSpec, ...] = ()
    chosen: str | None = None

    @classmethod
    def read(cls, node: ArchSpec | Mapping[str, Any] | Any, chosen: str | None = None) -> ArchSpec:
        """Read the section ``Arch`` of a recipe.

        Args:
            node: the section, plain or OmegaConf, or an ``ArchSpec``.
            chosen: ``Global.infer_model_name``, which has priority over ``Arch.infer_model_name``.

        Raises:
            ConfigError: if it, or a network inside it, is not a map with a name.
        """
        if isinstance(node, ArchSpec):
            return node
        return _read(plain(node), "Arch", chosen=chosen)

    def node(self) -> Node:
        """Return a copy of the node of the recipe, which may be changed."""
        return copy.deepcopy(dict(self.options))

    # ------------------------------------------------------------------ which network

    @property
    def names(self) -> list[str]:
        """Names of the networks inside it, in order."""
        return [child.title for child in self.children]

    @property
    def head(self) -> ArchSpec:
        """The network with images as input and the classifier: the first one of a chain, else itself."""
        return self.children[0].head if self.children else self

    @property
    def is_chain(self) -> bool:
        """Whether it is a chain: each network except the first gets the outputs of those before it."""
        return self.name == "AttentionModel"

    def walk(self) -> Iterator[ArchSpec]:
        """Yield this network and all networks inside it, outer ones first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, name: str | None) -> ArchSpec:
        """Return the network of this name inside it; without a name, itself.

        Raises:
            ConfigError: if there is none.
        """
        if not name:
            return self
        for child in self.children:
            if child.title == name:
                return child
        text = f"there is no network {name!r}.{hint(name, self.names)}"
        raise ConfigError(text, path=f"{self.path}.models")

    @property
    def main(self) -> ArchSpec:
        """The network for evaluation, inference and export: one of several networks, else itself.

        It is the one that the recipe names, else the one named ``Student``, else the last one that trains.

        Raises:
            ConfigError: if the recipe names a network that does not exist.
        """
        return self.find(self.chosen) if self.chosen is not None and self.children else self.main_by_default

    @property
    def main_by_default(self) -> ArchSpec:
        """The network that :attr:`main` is if the recipe names none."""
        if not self.children:
            return self
        learning = [child for child in self.children if not child.frozen]
        student = [child for child in self.children if child.title == "Student"]
        return (student or learning or list(self.children))[-1]

    @property
    def main_name(self) -> str | None:
        """Name of the network to deploy; None if there is one network only."""
        return self.main.title or None

    @property
    def trained(self) -> list[str]:
        """Names of the networks inside it whose classifier trains, in order."""
        return [child.title for child in self.children if not child.head.frozen]

    @property
    def ensembles(self) -> dict[str, list[str]]:
        """The networks of each ensemble, by its name; a wrong option is refused where options are checked."""
        nodes = self.options.get("ensembles")
        found = {}
        for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
            members = node.get("networks") if isinstance(node, Mapping) else None
            found[str(name)] = [str(member) for member in members] if isinstance(members, list) else []
        return found

    def members(self, names: Iterable[str]) -> set[str]:
        """Return the networks of these names, and for the name of an ensemble its networks."""
        return {member for name in names for member in self.ensembles.get(name, [name])}

    # ------------------------------------------------------------------ what is said about it

    @property
    def class_count(self) -> int:
        """Number of classes of its logits."""
        return self.head.class_num or _CLASSES

    @property
    def has_own_weights(self) -> bool:
        """Whether the recipe itself says where its weights come from."""
        if self.children:
            return bool(self.pretrained) or self.children[0].has_own_weights
        return bool(self.pretrained) or bool(BACKBONES.trait(self.name, "always_frozen"))

    # ------------------------------------------------------------------ parts of it

    def only(self, names: Collection[str]) -> ArchSpec:
        """Return it with only some of its networks, for use after training.

        The networks after the first one of a chain are left out too, because only training needs them. Of an
        ensemble, all its networks are kept; an ensemble that lacks one of its networks is left out.

        Raises:
            ConfigError: if there is no network of one of these names.
        """
        if not self.children:
            return self
        names = self.members(names)
        for name in names:
            self.find(name)
        kept = [index for index, name in enumerate(self.names) if name in names]
        node = _with_entries(self.options, kept, len(self.children))
        picked = [child for child in self.children if child.title in names]
        node["models"] = [{child.title: child._first_of_chain()} for child in picked]
        if node.get("infer_model_name") not in names:
            node.pop("infer_model_name", None)
        node.pop("teacher_dropping", None)
        ensembles = {
            k: inner for k, inner in (node.pop("ensembles", None) or {}).items() if names >= self.members([k])
        }
        if ensembles:
            node["ensembles"] = ensembles
        if isinstance(node.get("frozen_mode"), Mapping):
            node["frozen_mode"] = {k: mode for k, mode in node["frozen_mode"].items() if k in names}
        return _read(node, self.path, chosen=self.chosen if self.chosen in names else None)

    def _first_of_chain(self) -> Options:
        return _with_entries(self.options, [0], len(self.children)) if self.children else self.options

    def without_weights(self, keep: Collection[str] = ()) -> ArchSpec:
        """Return it without the options about weights.

        Args:
            keep: names of networks inside it whose options stay.
        """
        if not self.children or not keep:
            return _read(without_weights(self.options), self.path, chosen=self.chosen)
        node = dict(self.options)
        listed = node.pop("pretrained_list", None)
        node = without_weights({key: value for key, value in node.items() if key != "models"})
        node["models"] = [
            {child.title: child.options if child.title in keep else without_weights(child.options)}
            for child in self.children
        ]
        if isinstance(listed, list):
            entries = zip(self.names, listed, strict=False)
            node["pretrained_list"] = [value if name in keep else None for name, value in entries]
        return _read(node, self.path, chosen=self.chosen)


def without_weights(node: Any) -> Any:
    """Return a node, and the nodes inside it, without the options about weights."""
    if isinstance(node, list):
        return [without_weights(entry) for entry in node]
    if not isinstance(node, Mapping):
        return node
    return {key: without_weights(value) for key, value in node.items() if key not in WEIGHT_OPTIONS}


def _read(
    node: Any,
    path: str,
    *,
    title: str = "",
    prefix: str = "",
    frozen: bool = False,
    listed: bool | str | None = None,
    class_num: int | None = None,
    chosen: str | None = None,
) -> ArchSpec:
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        raise ConfigError(f"expected a network with its name, got {show(node)}", path=path)
    own = node.get("class_num")
    if own is not None:
        class_num = own if isinstance(own, int) else 0  # what is no number is reported where it stands
    children = _read_children(node, path, prefix, frozen, class_num) if "models" in node else ()
    named = node.get("infer_model_name")
    return ArchSpec(
        name=node["name"],
        options=node,
        title=title,
        path=path,
        prefix=prefix,
        frozen=frozen or (bool(children) and all(child.frozen for child in children)),
        pretrained=listed or node.get("pretrained") or None,
        class_num=class_num,
        children=children,
        chosen=chosen or (named if isinstance(named, str) else None),
    )


def _read_children(
    node: Options, path: str, prefix: str, frozen: bool, class_num: int | None
) -> tuple[ArchSpec, ...]:
    entries = node["models"]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"expected a list of networks, got {show(entries)}", path=f"{path}.models")
    freeze = _one_each(node, "freeze_params_list")
    weights = _one_each(node, "pretrained_list")
    children = []
    for index, entry in enumerate(entries):
        title, inner = single(entry, f"{path}.models.{index}")
        child = _read(
            inner,
            f"{path}.models.{index}.{title}",
            title=title,
            prefix=f"{prefix}{title}.",
            frozen=frozen or bool(freeze[index]),
            listed=weights[index],
            class_num=class_num,
        )
        children.append(child)
    return tuple(children)


def _one_each(node: Options, option: str) -> list[Any]:
    """Return the entries of an option; a wrong number of them is refused where options are checked."""
    count = len(node["models"])
    given = node.get(option)
    return [*(given if isinstance(given, list) else []), *[None] * count][:count]


def _with_entries(node: Options, kept: list[int], count: int) -> dict[str, Any]:
    """Return the node of a network of networks with some of the `count` networks alone."""
    picked = dict(node)
    for option in _ONE_EACH:
        values = node.get(option)
        if isinstance(values, list) and len(values) == count:
            picked[option] = [values[index] for index in kept]
    return picked
