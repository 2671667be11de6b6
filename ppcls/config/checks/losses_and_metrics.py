"""Check losses and metrics against the networks that they name, and other relations between sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.config.binding import node_parameters
from ppcls.config.checks.data import check_data
from ppcls.config.checks.evaluation import check_evaluation
from ppcls.config.checks.measured_teachers import check_measured_teachers
from ppcls.config.checks.networks import Network, Networks
from ppcls.config.checks.run_settings import check_run_settings
from ppcls.config.checks.training import check_training
from ppcls.config.checks.uses import Use, default_key, looked_at, members_of, uses_of
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import DataSpec, InferSpec, Recipe
from ppcls.errors import nearest
from ppcls.job import world_size
from ppcls.registry import LOSSES, METRICS, Registry


def check_losses_and_metrics(recipe: Recipe, networks: Networks, mode: str, findings: Findings) -> None:
    """Check relations between sections of a recipe whose sections were checked before."""
    uses: dict[str, list[Use]] = {}
    for section, registry in (("Loss", LOSSES), ("Metric", METRICS)):
        for part in ("Train", "Eval"):
            place = join(section, part)
            uses[place] = [use for use in uses_of(recipe[section][part], place, registry, networks, findings)]
            for use in uses[place]:
                _check_names(use, networks, findings)
                _check_keys(use, networks, findings)
                if mode != "export":  # which uses no losses and metrics; such a network gives features
                    _check_logits(use, registry, networks, findings)
                _check_topk(
                    use.options.get("topk"), join(use.path, "topk"), looked_at(use, networks), findings
                )
    # A mistake in Arch would be reported again.
    for use in [] if findings.mistakes_below("Arch") else [*uses["Loss.Train"], *uses["Loss.Eval"]]:
        _check_class_counts(use, networks, findings)
    if recipe.Loss.Train and not any(map(findings.mistakes_below, ("Arch", "Loss.Train"))):
        check_training(recipe.Loss.Train, uses["Loss.Train"], networks, mode, findings)
    check_measured_teachers(recipe, uses["Loss.Train"], networks, mode, findings)
    _check_gather(uses["Loss.Train"], recipe.DataLoader.Train, findings)
    _check_schedules(uses["Loss.Eval"], findings)
    _check_postprocess(recipe.Infer, networks, findings)
    _check_deployed(networks, mode, findings)
    check_data(recipe.DataLoader, networks, mode, findings)
    check_run_settings(recipe.Global, mode, findings)
    check_evaluation(recipe, [use.names for use in uses["Loss.Eval"]], networks, mode, findings)


def _check_gather(losses: list[Use], data: DataSpec | None, findings: Findings) -> None:
    """Losses that gather the batch of all processes need parts of equal size."""
    dataset = None if data is None else data.dataset
    if not (isinstance(dataset, Mapping) and dataset.get("on_error") == "skip"):
        return
    report = findings.error if world_size() > 1 else findings.warn
    for use in losses:
        if use.options.get("gather") is True:
            report(
                join(use.path, "gather"),
                "true, but DataLoader.Train.dataset.on_error: skip may make the batches of several processes "
                "differ in size, so several processes are refused; `ppcls check-data` finds the images to "
                "take out",
            )


def _check_schedules(losses: list[Use], findings: Findings) -> None:
    """Losses of evaluations do not follow the epochs, and learn nothing."""
    for use in losses:
        for option in ("weight", "temperature", "alpha_temperature", "gamma"):
            if isinstance(use.options.get(option), Mapping):
                findings.warn(
                    join(use.path, option),
                    "evaluations do not follow a schedule, nor what training learns: it stays at its first "
                    "value; give a number",
                )


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
        for network in members_of(names, networks):
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
    """Report the use of logits of a network that ``stop_after`` ends before them."""
    for network in looked_at(use, networks):
        if network.cut_off is None:
            continue
        name = next(name for name, member in networks.members.items() if member is network)
        picked: list[str | None] = [key for _, key, owners in use.keys if name in owners]
        if "logits" in (picked or [default_key(use, registry)]):
            text = f"looks at the logits of {network.title}, but {network.cut_off} ends it before them"
            findings.error(use.path, f"{text}; take stop_after out, or name another output")


def _check_deployed(networks: Networks, mode: str, findings: Findings) -> None:
    main = networks.members.get(networks.main)
    if mode == "infer" and main is not None and main.cut_off is not None:
        text = f"ends {main.title} before its logits, and infer needs those"
        findings.error(main.cut_off, f"{text}; export gives the features, for `ppcls predict --features`")


def _check_topk(topk: Any, path: str, looked_at: list[Network], findings: Findings) -> None:
    ks = [k for k in (topk if isinstance(topk, list) else [topk]) if isinstance(k, int)]
    for network in looked_at:
        if network.class_num is not None and ks and max(ks) > network.class_num:
            findings.warn(path, f"{max(ks)} of {network.class_num} classes: counts as {network.class_num}")


def _check_class_counts(use: Use, networks: Networks, findings: Findings) -> None:
    """Report the comparison of logits of networks with different numbers of classes."""
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


def _check_postprocess(infer: InferSpec, networks: Networks, findings: Findings) -> None:
    node = infer.PostProcess
    if isinstance(node, dict):
        main = members_of({networks.main}, networks)
        _check_topk(node.get("topk"), "Infer.PostProcess.topk", main, findings)
