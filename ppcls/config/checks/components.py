"""Check components: their registry, their signature, and the components inside them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ppcls.config.binding import Factory, bind, created, node_parameters, parameters_of
from ppcls.config.checks.paddleclas import unknown_name, without_foreign
from ppcls.config.mistakes import REFUSALS, Findings, join
from ppcls.config.nodes import Options, is_flat, split
from ppcls.errors import ConfigError
from ppcls.registry import (
    BACKBONES,
    BATCH_OPS,
    DATASETS,
    HOOKS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    POSTPROCESSES,
    SAMPLERS,
    SCHEDULES,
    TRANSFORMS,
    Registry,
)


@dataclass(frozen=True)
class Kind:
    """How components of one kind are written and checked.

    Attributes:
        registry: knows the names.
        keyed: its builder reads ``{"Name": {...}}``; otherwise ``{"name": "Name", ...}``.
        extra: options the builder reads itself, and their types.
        supplied: parameters that the builder fills in if a YAML leaves them out.
        nested: options that hold named nodes: their kind, and whether they hold a list.
        default_name: the name of a node without a name.
        listed: one node or a list is allowed.
        try_out: construct the component, which is fast and needs no data and weights, to run its own checks.
        untried: options that are left out in this construction, because they name files.
    """

    registry: Registry
    keyed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    supplied: frozenset[str] = frozenset()
    nested: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    default_name: str | None = None
    listed: bool = False
    try_out: bool = False
    untried: frozenset[str] = frozenset()


_TRANSFORM_LISTS = {"transform_ops": ("transform", True), "transforms": ("transform", True)}

# Read by a DistillationModel for each of its networks: preprocessing that one was trained with.
INPUT_OPTIONS = {
    "mean": list[float] | None,
    "std": list[float] | None,
    "input_size": int | list[int] | None,
}

# Read for every network: how it is run while it stands still.
ANSWER_OPTIONS = {
    "frozen_engine": Literal["auto", "eager", "paddle_inference", "onnxruntime"] | None,
    "frozen_precision": Literal["float32", "bfloat16"] | None,
}

# What the options mean that builders read besides those of the component.
EXTRA_DOCUMENTS = {
    "weight": "factor on the loss: a number, or a schedule over epochs such as {name: LinearWarmup, value: "
    "1.0, epochs: 20}.",
    "prob": "probability with which OpSampler chooses this transform for a batch.",
    "mean": "of a network in DistillationModel: the mean that it was trained with, see std.",
    "std": "of a network in DistillationModel: the standard deviation that it was trained with; the images "
    "of the recipe are converted for it.",
    "input_size": "of a network in DistillationModel: the image size that it was trained with, a number or "
    "[height, width].",
    "frozen_engine": "what computes the network while it is frozen; auto chooses.",
    "frozen_precision": "precision in which it is computed while it is frozen.",
}

EXTRA_DEFAULTS = {"weight": 1.0}

KINDS: dict[str, Kind] = {
    "network": Kind(BACKBONES, extra=ANSWER_OPTIONS),
    "sub_network": Kind(BACKBONES, extra={**INPUT_OPTIONS, **ANSWER_OPTIONS}),
    "loss": Kind(LOSSES, keyed=True, extra={"weight": float | dict[str, Any]}, try_out=True),
    "metric": Kind(METRICS, keyed=True, try_out=True),
    "transform": Kind(TRANSFORMS, keyed=True, nested=_TRANSFORM_LISTS, try_out=True),
    "batch_op": Kind(BATCH_OPS, keyed=True, try_out=True),
    "sampled_op": Kind(BATCH_OPS, keyed=True, extra={"prob": float}, try_out=True),
    "dataset": Kind(
        DATASETS,
        supplied=frozenset({"class_num"}),
        nested={**_TRANSFORM_LISTS, "batch_transform_ops": ("batch_op", True)},
    ),
    "sampler": Kind(SAMPLERS, try_out=True),
    "postprocess": Kind(POSTPROCESSES, try_out=True, untried=frozenset({"class_id_map_file"})),
    "optimizer": Kind(OPTIMIZERS, nested={"lr": ("schedule", False)}, listed=True, try_out=True),
    "hook": Kind(HOOKS, keyed=True, try_out=True),
    "schedule": Kind(SCHEDULES, default_name="ConstLR", try_out=True),
}


def check_nodes(kind: str, value: Any, path: str, findings: Findings) -> Any:
    """Check a list of nodes; return it with every node in the form that its builder reads."""
    if not isinstance(value, list):
        findings.error(path, value=value, expected=f"a list of {KINDS[kind].registry.many}")
        return value
    return [check_node(kind, node, join(path, index), findings) for index, node in enumerate(value)]


def check_node(kind: str, value: Any, path: str, findings: Findings) -> Any:
    """Check one component and the components inside it; return it in the form that its builder reads.

    Mistakes are added to `findings`; a node that cannot be read is returned unchanged.
    """
    rules = KINDS[kind]
    if isinstance(value, list) and value and rules.listed:
        return check_nodes(kind, value, path, findings)
    if isinstance(value, list):
        expected = f"one {rules.registry.kind}"
        findings.error(
            path, f"expected {expected}, got a list of {len(value)}", value=value, expected=expected
        )
        return value
    if rules.default_name and isinstance(value, dict) and "learning_rate" in value:
        value = {"name": rules.default_name, **value}
    try:
        name, options = split(value)
    except ConfigError as error:
        findings.refuse(path, error)
        return value
    inside = path if is_flat(value) else join(path, name)
    if rules.registry is BACKBONES and "models" in options:
        inner_kind = "sub_network" if name == "DistillationModel" else "network"
        options["models"] = _check_models(inner_kind, options["models"], join(inside, "models"), findings)
    for option, (inner, many) in rules.nested.items():
        if options.get(option) is not None:
            check = check_nodes if many else check_node
            options[option] = check(inner, options[option], join(inside, option), findings)
    chosen = rules.registry.trait(name, "nested_kind") if name in rules.registry else None
    if chosen is not None:
        options = _check_members(chosen, rules.registry[name], options, inside, findings)
    if name not in rules.registry:
        where = join(path, "name") if inside == path else path
        findings.add(unknown_name(kind, name, rules.registry, where))
    else:
        options = _bind(kind, name, options, (path, inside), findings)
    return {name: options} if rules.keyed else {"name": name, **options}


def _check_members(
    kind: str, factory: Factory, options: dict[str, Any], path: str, findings: Findings
) -> dict[str, Any]:
    """Check the options of a component that chooses among others: each further option names one of these."""
    own = parameters_of(factory)
    checked = {}
    for name, value in options.items():
        if name in own:
            checked[name] = value
        else:
            node = check_node(kind, {name: value}, path, findings)
            checked[name] = node[name] if isinstance(node, dict) and name in node else value
    return checked


def _check_models(kind: str, value: Any, path: str, findings: Findings) -> Any:
    """Check the list of named sub-networks of a DistillationModel or AttentionModel."""
    if not isinstance(value, list):
        findings.error(path, value=value, expected="a list such as [{Teacher: {name: ...}}, ...]")
        return value
    checked = []
    for index, entry in enumerate(value):
        here = join(path, index)
        try:
            name, node = split(entry)
        except ConfigError as error:
            findings.refuse(here, error)
            checked.append(entry)
            continue
        if "name" in entry:
            text = f"a sub-network needs a name of its own: write 'Student: {{name: {name}, ...}}'"
            findings.error(here, text)
            checked.append(entry)
            continue
        checked.append({name: check_node(kind, node, join(here, name), findings)})
    return checked


def _bind(
    kind: str, name: str, options: dict[str, Any], paths: tuple[str, str], findings: Findings
) -> dict[str, Any]:
    rules = KINDS[kind]
    before = len(findings.mistakes)
    broken = rules.registry.breach(name)
    if broken is not None:
        findings.error(paths[0], broken)
        return options
    if kind == "loss" and LOSSES.trait(name, "is_pair_loss"):
        findings.error(
            paths[0], f"{name} compares two tensors; use DistillationPairLoss with base_loss_name: {name}"
        )
        return options
    try:
        parameters = node_parameters(rules.registry, name, options)
    except ConfigError as error:
        findings.error(paths[0], str(error))
        return options
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        options = without_foreign(kind, name, options, {**parameters, **rules.extra}, paths[1], findings)
    bound = bind(name, parameters, options, paths, findings, extra=rules.extra, supplied=rules.supplied)
    if rules.try_out and len(findings.mistakes) == before and not findings.mistakes_below(paths[1]):
        tried = {k: v for k, v in bound.items() if k not in rules.extra and k not in rules.untried}
        _try_out(name, rules.registry, tried, paths, findings)
    if kind == "loss" and "weight" in bound:
        _check_weight(bound["weight"], join(paths[1], "weight"), findings)
    return bound


def _check_weight(weight: Any, path: str, findings: Findings) -> None:
    """Read the weight of a loss as its builder does, unless it is no number and no map."""
    if findings.mistakes_below(path):
        return
    try:
        importlib.import_module("ppcls.loss.weight_schedule").epoch_value(weight, path)
    except ConfigError as error:
        findings.refuse("", error)


def _try_out(
    name: str, registry: Registry, options: dict[str, Any], paths: tuple[str, str], findings: Findings
) -> None:
    """Construct the component, to run its own checks of values."""
    paddle = importlib.import_module("paddle")
    try:
        with paddle.utils.unique_name.guard(), paddle.LazyGuard():
            created(registry, name, options, paths)
    except ConfigError as error:
        findings.refuse("", error)
    except REFUSALS as error:
        findings.refuse(paths[0], error)


def loss_without_weights(name: str, options: Options | None) -> Any:
    """Construct a loss whose options were checked.

    Raises:
        PpclsError: if it cannot be constructed, which was reported where the loss itself was checked.
    """
    paddle = importlib.import_module("paddle")
    own = {key: value for key, value in (options or {}).items() if key != "weight"}
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        return LOSSES.create(name, own)
