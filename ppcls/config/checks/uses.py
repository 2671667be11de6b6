"""Which networks and outputs the losses and metrics of a recipe name.

The names of options tell (``model_name_pairs``, ``s_key`` ...), not the names of losses, so a new loss is
checked without a change here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ppcls.config.binding import node_parameters
from ppcls.config.checks.networks import Network, Networks
from ppcls.config.mistakes import Findings, join
from ppcls.config.nodes import Options
from ppcls.errors import PpclsError
from ppcls.registry import Registry

# Options that name sub-networks ...
_SINGLE = "model_key"
_LIST = "model_names"
_PAIR = "model_name_pair"
_PAIRS = "model_name_pairs"
# ... and options that pick an output of the first, the second or all of them.
_FIRST_KEYS = ("s_key", "student_keys", "student_keepkeys")
_SECOND_KEYS = ("t_key", "teacher_keys", "teacher_keepkeys")
_ALL_KEYS = ("key", "feature_key")


@dataclass
class Use:
    """The networks one loss or metric names.

    Attributes:
        name: the registered name of the loss or metric.
        place: config path of its node.
        path: config path of its options.
        options: the options.
        alone: config path and name of each network named by itself.
        pairs: config path and two names of each pair.
    """

    name: str
    place: str
    path: str
    options: Options
    alone: list[tuple[str, str]] = field(default_factory=list)
    pairs: list[tuple[str, tuple[str, str]]] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """All names."""
        return {name for _, name in self.alone} | {name for _, pair in self.pairs for name in pair}

    @property
    def keys(self) -> list[tuple[str, str, set[str]]]:
        """Config path and name of each output it picks, and the networks it picks it from."""
        first, second = ({pair[i] for _, pair in self.pairs} for i in (0, 1))
        found = []
        for options, networks in ((_FIRST_KEYS, first), (_SECOND_KEYS, second), (_ALL_KEYS, self.names)):
            for option in options:
                value = self.options.get(option)
                values = value if isinstance(value, list) else [value]
                path = join(self.path, option)
                for index, key in enumerate(values):
                    if isinstance(key, str):
                        found.append((join(path, index) if isinstance(value, list) else path, key, networks))
        return found


def uses_of(
    nodes: Any, place: str, registry: Registry, networks: Networks, findings: Findings
) -> Iterator[Use]:
    """Yield what each loss or metric of a list names.

    Args:
        nodes: the list, checked by itself before.
        place: its config path.
        registry: knows the names.
        networks: the networks of the recipe.
        findings: receives names where there is one network only.
    """
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        if not isinstance(node, dict) or len(node) != 1:
            continue
        ((name, options),) = node.items()
        if name not in registry or not isinstance(options, dict):
            continue
        use = Use(name, join(place, index), join(place, index, name), options)
        _collect(use, findings)
        if not networks.several and _needs_names(registry, name, options):
            findings.error(
                join(place, index),
                f"{name} looks at sub-networks by name, but Arch is one network ({networks.title}); "
                "it needs Arch.name: DistillationModel",
            )
            continue
        yield use


def _needs_names(registry: Registry, name: str, options: Options) -> bool:
    try:
        signature = node_parameters(registry, name, options)
    except PpclsError:
        return False
    return any(option in signature for option in (_SINGLE, _LIST, _PAIR, _PAIRS))


def _collect(use: Use, findings: Findings) -> None:
    """Read the network names out of the options."""
    single = use.options.get(_SINGLE)
    several = use.options.get(_LIST)
    if isinstance(single, str):
        use.alone.append((join(use.path, _SINGLE), single))
    for index, name in enumerate(several if isinstance(several, list) else ()):
        if isinstance(name, str):
            use.alone.append((join(use.path, _LIST, index), name))
    pairs = use.options.get(_PAIRS)
    found = [
        (join(use.path, _PAIRS, i), pair) for i, pair in enumerate(pairs if isinstance(pairs, list) else ())
    ]
    if _PAIR in use.options:
        found.append((join(use.path, _PAIR), use.options[_PAIR]))
    for path, pair in found:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            if not findings.mistakes_below(use.place):  # many losses check it themselves
                findings.error(path, value=pair, expected='two names such as ["Student", "Teacher"]')
        else:
            use.pairs.append((path, (pair[0], pair[1])))


def default_key(use: Use, registry: Registry) -> str | None:
    """Return which output a loss or metric picks if the recipe does not say so; None if that is not known."""
    try:
        signature = node_parameters(registry, use.name, use.options)
    except PpclsError:
        return None  # a wrong option, which was reported
    options = [option for option in (*_FIRST_KEYS, *_SECOND_KEYS, *_ALL_KEYS) if option in signature]
    if any(option.endswith("keys") for option in options):
        return None  # they list features
    default = signature[options[0]].default if options else None
    return default if isinstance(default, str) else "logits"


def members_of(names: set[str], networks: Networks) -> list[Network]:
    """Return the networks of these names, as far as there are some."""
    return [networks.members[name] for name in sorted(map(str, names)) if name in networks.members]


def looked_at(use: Use, networks: Networks) -> list[Network]:
    """Return the networks that a loss or metric looks at: those it names, else the one to deploy."""
    return members_of(use.names or {networks.main}, networks)
