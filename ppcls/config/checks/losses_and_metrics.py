"""What must fit together: losses and metrics with the networks they name, training with evaluation.

The checks go by the names of options (``model_name_pairs``, ``s_key``, ``topk`` ...), not by the names of
losses, so a new loss is checked without a change here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppcls.config.binding import node_parameters
from ppcls.config.checks.evaluation import check_evaluation
from ppcls.config.checks.networks import Network, Networks
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import DataLoaderSpec, DataSpec, GlobalSpec, InferSpec, Recipe
from ppcls.errors import PpclsError, nearest
from ppcls.registry import LOSSES, METRICS, SAMPLERS, Registry

# Options that name sub-networks ...
_SINGLE, _LIST, _PAIR, _PAIRS = "model_key", "model_names", "model_name_pair", "model_name_pairs"
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
    options: Mapping[str, Any]
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


def check_relations(recipe: Recipe, networks: Networks, mode: str, findings: Findings) -> None:
    """Check what concerns several sections of a recipe that was checked section by section."""
    uses: dict[str, list[Use]] = {}
    for section, registry in (("Loss", LOSSES), ("Metric", METRICS)):
        for part in ("Train", "Eval"):
            place = join(section, part)
            uses[place] = [use for use in _uses(recipe[section][part], place, registry, networks, findings)]
            for use in uses[place]:
                _check_names(use, networks, findings)
                _check_keys(use, networks, findings)
                _check_logits(use, registry, networks, findings)
                _check_topk(
                    use.options.get("topk"), join(use.path, "topk"), _looked_at(use, networks), findings
                )
    # A mistake in Arch would show again in what follows.
    for use in [] if findings.mistakes_below("Arch") else [*uses["Loss.Train"], *uses["Loss.Eval"]]:
        _check_class_counts(use, networks, findings)
    if recipe.Loss.Train and not any(map(findings.mistakes_below, ("Arch", "Loss.Train"))):
        _check_training(recipe.Loss.Train, uses["Loss.Train"], networks, findings)
    _check_gather(uses["Loss.Train"], recipe.DataLoader.Train, findings)
    _check_postprocess(recipe.Infer, networks, findings)
    _check_deployed(networks, mode, findings)
    _check_data(recipe.DataLoader, findings)
    _check_global(recipe.Global, mode, findings)
    check_evaluation(recipe, [use.names for use in uses["Loss.Eval"]], networks, mode, findings)


def _check_gather(losses: list[Use], data: DataSpec | None, findings: Findings) -> None:
    """Losses that gather the batch of all processes need parts of equal size."""
    dataset = None if data is None else data.dataset
    if not (isinstance(dataset, Mapping) and dataset.get("on_error") == "skip"):
        return
    for use in losses:
        if use.options.get("gather") is True:
            findings.warn(
                join(use.path, "gather"),
                "true, but DataLoader.Train.dataset.on_error: skip may make the batches of several processes "
                "differ in size, which ends such a run; `ppcls check-data` finds the images to take out",
            )


def _uses(
    nodes: Any, place: str, registry: Registry, networks: Networks, findings: Findings
) -> Iterator[Use]:
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


def _needs_names(registry: Registry, name: str, options: Mapping[str, Any]) -> bool:
    try:
        signature = node_parameters(registry, name, options)
    except PpclsError:
        return False
    return any(option in signature for option in (_SINGLE, _LIST, _PAIR, _PAIRS))


def _collect(use: Use, findings: Findings) -> None:
    """Read the network names out of the options."""
    single, several = use.options.get(_SINGLE), use.options.get(_LIST)
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


def _check_names(use: Use, networks: Networks, findings: Findings) -> None:
    named = [*use.alone, *((join(path, i), pair[i]) for path, pair in use.pairs for i in (0, 1))]
    for path, name in named:
        if name not in networks.members:
            known = ", ".join(networks.members)
            near = nearest(name, networks.members)
            text = f"no network {name!r} in Arch.models ({known})"
            findings.error(path, text, value=name, suggestions=near)
    for path, (first, second) in use.pairs:
        if first == second:
            findings.error(path, f"a pair of {first!r} with itself")


def _check_keys(use: Use, networks: Networks, findings: Findings) -> None:
    for path, key, names in use.keys:
        for network in _members(names, networks):
            if network.outputs is not None and key not in network.outputs:
                given = ", ".join(sorted(network.outputs))
                findings.error(
                    path,
                    f"{network.title} ({network.path}) returns no {key!r}, only {given}",
                    value=key,
                    suggestions=nearest(key, network.outputs),
                    advice="More outputs come from its return_patterns",
                )
                break


def _check_logits(use: Use, registry: Registry, networks: Networks, findings: Findings) -> None:
    """Refuse to look at the logits of a network that ``stop_after`` ends before them."""
    for network in _looked_at(use, networks):
        if network.cut_off is None:
            continue
        name = next(name for name, member in networks.members.items() if member is network)
        picked: list[str | None] = [key for _, key, owners in use.keys if name in owners]
        if "logits" in (picked or [_default_key(use, registry)]):
            text = f"looks at the logits of {network.title}, but {network.cut_off} ends it before them"
            findings.error(use.path, f"{text}; take stop_after out, or name another output")


def _default_key(use: Use, registry: Registry) -> str | None:
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


def _check_deployed(networks: Networks, mode: str, findings: Findings) -> None:
    main = networks.members.get(networks.main)
    if mode in ("infer", "export") and main is not None and main.cut_off is not None:
        findings.error(main.cut_off, f"ends {main.title} before its logits, and {mode} needs those")


def _members(names: set[str], networks: Networks) -> list[Network]:
    return [networks.members[name] for name in sorted(map(str, names)) if name in networks.members]


def _looked_at(use: Use, networks: Networks) -> list[Network]:
    return _members(use.names or {networks.main}, networks)


def _check_topk(topk: Any, path: str, looked_at: list[Network], findings: Findings) -> None:
    ks = [k for k in (topk if isinstance(topk, list) else [topk]) if isinstance(k, int)]
    for network in looked_at:
        if network.class_num is not None and ks and max(ks) > network.class_num:
            findings.warn(path, f"{max(ks)} of {network.class_num} classes: counts as {network.class_num}")


def _check_class_counts(use: Use, networks: Networks, findings: Findings) -> None:
    """Refuse comparing the logits of networks with different classes."""
    if use.options.get("class_map") is not None or any(key != "logits" for _, key, _ in use.keys):
        return
    for path, pair in use.pairs:
        first, second = (networks.members.get(name) for name in pair)
        if first and second and first.class_num and second.class_num and first.class_num != second.class_num:
            text = (
                f"{pair[0]} has {first.class_num} classes and {pair[1]} {second.class_num}: {use.name} "
                "cannot compare their logits"
            )
            if "class_map" in node_parameters(LOSSES, use.name, use.options):
                text += "; give class_map, a file with a line `student_class teacher_class` per student class"
            findings.error(path, text)


def _check_training(losses: Any, uses: list[Use], networks: Networks, findings: Findings) -> None:
    weights = [
        options.get("weight", 1.0)
        for node in (losses if isinstance(losses, list) else ())
        if isinstance(node, dict)
        for options in node.values()
        if isinstance(options, dict)
    ]
    if weights and all(weight == 0 for weight in weights):
        findings.error("Loss.Train", "every weight is 0: nothing would train")
    for use in uses:
        if use.options.get("weight") == 0 and any(weights):
            findings.warn(join(use.path, "weight"), f"0: {use.name} has no effect")
    if networks.several:
        _check_frozen(uses, networks, findings)
        _check_unused(uses, networks, findings)
    else:
        _warn_unused_taps(networks.members[""], set(), findings)


def _check_frozen(uses: list[Use], networks: Networks, findings: Findings) -> None:
    for use in uses:
        named = _members(use.names, networks) if use.names else _members({networks.main}, networks)
        if named and all(network.frozen for network in named):
            titles = ", ".join(sorted(use.names or {networks.main}))
            findings.error(use.path, f"trains nothing: {titles} is frozen (Arch.freeze_params_list)")
            continue
        for path, (first, second) in use.pairs:
            members = networks.members
            if (
                first in members
                and second in members
                and members[first].frozen
                and not members[second].frozen
            ):
                text = f"{first} is frozen and {second} trains; the network that learns comes first in a pair"
                findings.warn(path, text)


def _check_unused(uses: list[Use], networks: Networks, findings: Findings) -> None:
    """Report networks and taps that no training loss looks at."""
    names = {name for use in uses for name in (use.names or {networks.main})}
    for name, network in networks.members.items():
        picked = {key for use in uses for _, key, owners in use.keys if name in owners}
        _warn_unused_taps(network, picked, findings)
        if name in names:
            continue
        if network.frozen:
            findings.warn(network.path, "runs at every step, but no loss of Loss.Train looks at it")
        else:
            text = "no loss of Loss.Train looks at it, so it would not train; add a loss or freeze it"
            findings.error(network.path, f"{text} (Arch.freeze_params_list)")


def _warn_unused_taps(network: Network, picked: set[str], findings: Findings) -> None:
    unused = [tap for tap in network.taps if tap not in picked and tap not in network.reads]
    if unused:
        place = re.sub(r"\.\d+$", "", network.taps[unused[0]])
        findings.warn(place, f"no loss of Loss.Train uses {', '.join(unused)}")


def _check_postprocess(infer: InferSpec, networks: Networks, findings: Findings) -> None:
    node = infer.PostProcess
    if isinstance(node, dict):
        main = _members({networks.main}, networks)
        _check_topk(node.get("topk"), "Infer.PostProcess.topk", main, findings)


def _check_data(data: DataLoaderSpec, findings: Findings) -> None:
    train, evaluation = data.Train, data.Eval
    for name, part in data.parts.items():
        for node in ("dataset", "sampler"):
            if part[node] is None:
                findings.error(join("DataLoader", name, node), "missing")
    if train and evaluation:
        lists = [_list_file(part) for part in (train, evaluation)]
        if lists[0] is not None and lists[0] == lists[1]:
            findings.warn(
                "DataLoader.Eval.dataset.cls_label_path",
                f"{lists[0]} is the training list too: the accuracy will be that on training images",
            )
    sampler = evaluation.sampler if evaluation else None
    if isinstance(sampler, dict) and sampler.get("drop_last") is True:
        findings.error("DataLoader.Eval.sampler.drop_last", "evaluation counts every image; set it to False")
    name = str(sampler.get("name")) if isinstance(sampler, dict) else ""
    if name in SAMPLERS and SAMPLERS.trait(name, "training_only"):
        text = f"{name} is for training; evaluation counts every image once, with DistributedBatchSampler"
        findings.error("DataLoader.Eval.sampler", text)
    elif isinstance(sampler, dict) and sampler.get("shuffle") is True:
        findings.warn("DataLoader.Eval.sampler.shuffle", "has no effect: evaluation counts every image once")


def _list_file(part: DataSpec) -> str | None:
    dataset = part.dataset
    path = dataset.get("cls_label_path") if isinstance(dataset, dict) else None
    return os.path.normpath(path) if isinstance(path, str) else None


def _check_global(settings: GlobalSpec, mode: str, findings: Findings) -> None:
    if mode != "train":
        return
    if settings.checkpoints not in (None, "", "auto") and settings.pretrained_model:
        findings.warn("Global.pretrained_model", "has no effect: Global.checkpoints is resumed")
    if settings.eval_during_train and settings.start_eval_epoch > settings.epochs:
        findings.warn(
            "Global.start_eval_epoch", f"later than the last of {settings.epochs} epochs: no evaluation"
        )
