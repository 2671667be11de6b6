"""Check the section ``Arch``: names, outputs and frozen parts of each network, without weights."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ppcls.config.arch import ArchSpec, without_weights
from ppcls.config.binding import parameters_of
from ppcls.config.checks.components import ANSWER_OPTIONS, INPUT_OPTIONS
from ppcls.config.lazily import built_lazily
from ppcls.config.mistakes import REFUSALS, Findings, join
from ppcls.config.nodes import Node, Options
from ppcls.errors import ConfigError, PpclsError, nearest
from ppcls.registry import BACKBONES

# Options that name layers; each is tried separately, so that a mistake is reported at its path.
_LAYER_OPTIONS = ("return_patterns", "return_stages", "freeze_befor", "stop_after")


@dataclass
class Network:
    """One network of a recipe.

    Attributes:
        path: its config path.
        title: its registered name.
        frozen: no parameter of it trains.
        outputs: keys of its outputs; None if unknown.
        class_num: number of classes; None if unknown.
        taps: config path of each entry of ``return_patterns``.
        reads: config path of each key it reads from the networks before it in a chain.
        reads_all: it reads all their features, because its option ``keys`` is left out.
        channels: channels of its input images; None if unknown.
        cut_off: config path of a ``stop_after`` that ends it before its logits.
    """

    path: str
    title: str
    frozen: bool = False
    outputs: set[str] | None = None
    class_num: int | None = None
    taps: dict[str, str] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    reads_all: bool = False
    channels: int | None = None
    cut_off: str | None = None


@dataclass
class Networks:
    """All networks of a recipe by name; a single network has the name ``""``.

    Attributes:
        main: the network for evaluation, inference and export.
        arch: the section ``Arch``.
    """

    arch: ArchSpec
    members: dict[str, Network]
    main: str

    @property
    def title(self) -> str:
        """Registered name of ``Arch``."""
        return self.arch.name

    @property
    def several(self) -> bool:
        """Tell whether Arch is made of named sub-networks."""
        return "" not in self.members


def check_networks(arch: Node | None, findings: Findings) -> Networks | None:
    """Check the networks of ``Arch``, whose names and options were checked before.

    Networks are built without parameters, so this takes milliseconds and needs no weights.

    Returns:
        The networks, or None if the section is missing or cannot be read.
    """
    if not isinstance(arch, dict) or not isinstance(arch.get("name"), str):
        return None
    title = arch["name"]
    if not isinstance(arch.get("models"), list):
        if title in BACKBONES and "models" in parameters_of(BACKBONES[title]):
            return None  # reported as a missing or wrong option
        spec = ArchSpec.read({key: value for key, value in arch.items() if key != "models"})
        return Networks(spec, {"": _leaf(spec, findings)}, "")
    if not arch["models"]:
        findings.error("Arch.models", f"{title} needs at least one network")
    if not arch["models"] or any(_entry(entry) is None for entry in arch["models"]):
        return None  # reported already; nothing can be said about names
    try:
        spec = ArchSpec.read(arch)
    except ConfigError:
        return None  # a network inside a network, reported where it stands
    members = _members(spec, findings)
    if len(members) < len(spec.children):
        return None  # a name stands there twice
    main = _main_name(spec, findings)
    _check_class_counts(arch.get("class_num"), members, findings)
    # The networks were built one by one; the group makes further checks of its options and names.
    adapted = any(INPUT_OPTIONS.keys() & child.options.keys() for child in spec.children)
    options = any(option in arch for option in ("frozen_mode", "ensembles", "teacher_dropping"))
    unusual = adapted or options or not all(name.isidentifier() for name in members)
    if unusual and not findings.mistakes_below("Arch"):
        network_without_weights(title, arch, "Arch", findings)
    members |= _ensembles(spec, members, findings)
    return Networks(spec, members, main)


def _ensembles(spec: ArchSpec, members: Mapping[str, Network], findings: Findings) -> dict[str, Network]:
    """Return the ensembles of frozen networks by name, and compare the classes of their networks.

    Those of an Arch with mistakes are known by name alone, so that using them is no further mistake.
    """
    found = {}
    sound = not findings.mistakes_below("Arch")
    for name, titles in spec.ensembles.items():
        path = join(spec.path, "ensembles", name)
        maps = (spec.options["ensembles"][name].get("class_maps") or {}) if sound else titles
        counts = {title: members[title].class_num for title in titles if title not in maps}
        known = {count for count in counts.values() if count is not None}
        if len(known) > 1:
            shown = ", ".join(f"{title} has {count}" for title, count in counts.items())
            text = (
                f"the numbers of classes differ ({shown}); give class_maps, for each network with other "
                "classes a file with a line `student_class teacher_class` per student class"
            )
            findings.error(path, text)
        classes = known.pop() if len(known) == 1 else None
        found[name] = Network(path, f"ensemble {name}", frozen=True, outputs={"logits"}, class_num=classes)
    return found


def _main_name(spec: ArchSpec, findings: Findings) -> str:
    if spec.chosen is None or spec.chosen in spec.names:
        return spec.main.title
    text = f"no network {spec.chosen!r} in Arch.models ({', '.join(spec.names)})"
    near = nearest(spec.chosen, spec.names)
    findings.error("Arch.infer_model_name", text, value=spec.chosen, suggestions=near)
    return spec.main_by_default.title


def _entry(entry: Any) -> tuple[str, dict[str, Any]] | None:
    """Return name and node of an entry of ``models``, or None if it is not valid."""
    if not isinstance(entry, dict) or len(entry) != 1:
        return None
    ((name, node),) = entry.items()
    return (name, node) if isinstance(node, dict) and isinstance(node.get("name"), str) else None


def _members(spec: ArchSpec, findings: Findings) -> dict[str, Network]:
    for name, count in Counter(spec.names).items():
        if count > 1:
            findings.error(
                join(spec.path, "models"), f"{count} networks are named {name!r}; names must differ"
            )
    _check_length(spec, "freeze_params_list", findings)
    _check_length(spec, "pretrained_list", findings)
    for index, child in enumerate(spec.children):
        own = child.options.get("pretrained")
        if own and child.pretrained != own:
            place = join(spec.path, "pretrained_list", index)
            text = f"{own!r}, but {place} is {child.pretrained!r}; give one"
            findings.error(join(child.path, "pretrained"), text)
    return {child.title: _network(child, findings) for child in spec.children}


def _check_length(spec: ArchSpec, option: str, findings: Findings) -> None:
    entries = spec.options.get(option)
    count = len(spec.children)
    if isinstance(entries, list) and len(entries) != count:
        text = f"{len(entries)} entries for {count} networks in {join(spec.path, 'models')}"
        findings.error(join(spec.path, option), text)


def _network(spec: ArchSpec, findings: Findings) -> Network:
    if not spec.children:
        return _leaf(spec, findings)
    chain = list(_members(spec, findings).values())
    whole = Network(spec.path, spec.name, spec.frozen, set())
    for part in chain:
        if part.reads_all:
            part.reads = dict(whole.taps)
        for key, place in part.reads.items():
            if whole.outputs is not None and key not in whole.outputs:
                text = f"no network before it in the chain gives {key!r}"
                near = nearest(key, whole.outputs)
                findings.error(place, text, value=key, suggestions=near)
        unknown = whole.outputs is None or part.outputs is None
        whole.outputs = None if unknown else (whole.outputs or set()) | (part.outputs or set())
        whole.taps |= part.taps
        whole.reads |= part.reads
        whole.class_num = whole.class_num or part.class_num
    whole.channels = chain[0].channels if chain else None
    whole.cut_off = next((part.cut_off for part in chain if part.cut_off), None)
    return whole


def _leaf(spec: ArchSpec, findings: Findings) -> Network:
    title = spec.name
    path = spec.path
    node = spec.options
    network = Network(path, title, spec.frozen)
    network.taps = _places(path, "return_patterns", node)
    network.reads = _places(path, "keys", node)
    if title not in BACKBONES:
        return network
    signature = parameters_of(BACKBONES[title])
    network.reads_all = "keys" in signature and not network.reads
    if "class_num" in signature:
        fixed = BACKBONES.trait(title, "always_frozen")  # what is in a file has its own classes
        count = node.get("class_num") if fixed else spec.class_num
        network.class_num = _count(signature["class_num"].default if count is None else count)
        _check_class_num(network, "class_num" in node, findings)
    if "input_image_channel" in signature:
        channels = node.get("input_image_channel", signature["input_image_channel"].default)
        network.channels = _count(channels)
    if findings.mistakes_below(path):
        return network  # the options are wrong: building would only repeat the message
    _look_inside_once(title, node, network, findings)
    return network


def _count(value: object) -> int | None:
    """Return a number of classes or channels, None for what cannot be one; that is reported elsewhere."""
    return value if type(value) is int and value > 0 else None


def _check_class_num(network: Network, own: bool, findings: Findings) -> None:
    if network.class_num == 1:
        place = join(network.path, "class_num") if own else "Arch.class_num"
        text = (
            "1; with one class every answer is right. Give the images that are not of it a class of their own"
        )
        findings.error(place, text)


def _places(path: str, option: str, node: Options) -> dict[str, str]:
    """Return the entries of a list option, or its single text, with the config path of each."""
    value = node.get(option)
    if isinstance(value, str):
        return {value: join(path, option)}
    entries = value if isinstance(value, list) else []
    return {str(entry): join(path, option, index) for index, entry in enumerate(entries)}


# Outputs of networks without mistakes, and whether stop_after ends them early. Scripts, sweeps and the steps
# of a distillation check many recipes with the same networks, and building one takes most of a check.
_LOOKED_INSIDE: dict[tuple[Any, str], tuple[set[str] | None, bool]] = {}
# What is defined here depends on nothing but the options: no files, no code of others.
_PURE = "ppcls.arch.backbone."


def _look_inside_once(title: str, node: Options, network: Network, findings: Findings) -> None:
    """Set what is known of a network only when it was built; build equal ones of ppcls once per process."""
    factory = BACKBONES[title]
    seen = {k: v for k, v in without_weights(node).items() if k not in ANSWER_OPTIONS}
    try:
        key = (factory, json.dumps(seen))
    except TypeError:  # a Python object given by a script
        key = (factory, "")
    if key in _LOOKED_INSIDE:
        outputs, cut_off = _LOOKED_INSIDE[key]
        network.outputs = None if outputs is None else set(outputs)
        network.cut_off = join(network.path, "stop_after") if cut_off else None
        return
    before = len(findings.mistakes)
    network.outputs = _look_inside(title, node, network, findings)
    if key[1] and factory.__module__.startswith(_PURE) and len(findings.mistakes) == before:
        outputs = None if network.outputs is None else set(network.outputs)
        _LOOKED_INSIDE[key] = (outputs, network.cut_off is not None)


def _look_inside(title: str, node: Options, network: Network, findings: Findings) -> set[str] | None:
    """Build the network without parameters and try each option that names layers."""
    elsewhere = (*_LAYER_OPTIONS, *INPUT_OPTIONS)
    layer = network_without_weights(
        title, {k: v for k, v in node.items() if k not in elsewhere}, network.path, findings
    )
    if layer is None:
        return None
    if layer.always_frozen and not network.frozen and network.path != "Arch":
        findings.error(network.path, f"{title} cannot be trained; freeze_params_list must say True for it")
    if not layer.names_layers:
        return set(layer.output_keys) if layer.output_keys is not None else None
    found = ["logits"]
    before = len(findings.mistakes)
    for pattern, place in network.taps.items():
        found += _tried(place, findings, layer.update_res, [pattern])
    if node.get("return_stages") is not None:
        place = join(network.path, "return_stages")
        found += _tried(place, findings, layer.stage_patterns, node["return_stages"])
    layer.update_res([name for name in found if name != "logits"])
    if node.get("freeze_befor"):
        _tried(join(network.path, "freeze_befor"), findings, layer.freeze_befor, node["freeze_befor"])
    if node.get("stop_after"):
        place = join(network.path, "stop_after")
        _tried(place, findings, layer.stop_after, node["stop_after"])
        network.cut_off = place if layer.ends_early else None
    return set(found) if len(findings.mistakes) == before else None


def network_without_weights(title: str, node: Options, path: str, findings: Findings) -> Any:
    """Construct a network without parameters, to run its own checks; None after a mistake."""
    paddle = importlib.import_module("paddle")
    try:
        options = {k: v for k, v in without_weights(node).items() if k not in ("name", *ANSWER_OPTIONS)}
        with paddle.utils.unique_name.guard():
            return built_lazily(lambda: BACKBONES.create(title, dict(options)))
    except REFUSALS as error:
        findings.refuse(path, error)  # a group names the network it is about
        return None


def _tried(path: str, findings: Findings, action: Any, argument: Any) -> list[str]:
    try:
        result = action(argument)
    except PpclsError as error:
        findings.refuse(path, error)
        return []
    return result if isinstance(result, list) else []


def _check_class_counts(wanted: object, members: Mapping[str, Network], findings: Findings) -> None:
    """Compare ``Arch.class_num`` with the networks that train; a frozen teacher may have other classes."""
    if not isinstance(wanted, int):
        return  # not given, or reported where it stands
    for network in members.values():
        if not network.frozen and network.class_num not in (None, wanted):
            place = join(network.path, "class_num")
            findings.error(
                place, f"{network.class_num}, but Arch.class_num is {wanted}; they must be the same"
            )
