"""Check evaluations: measures, measured networks, and the value that chooses the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ppcls.config.checks.networks import Networks
from ppcls.config.mistakes import Findings
from ppcls.config.schema import EarlyStoppingSpec, GlobalSpec, Recipe
from ppcls.registry import METRICS


def check_evaluation(
    recipe: Recipe,
    loss_names: Iterable[set[str]],
    networks: Networks,
    mode: str,
    findings: Findings,
) -> None:
    """Check that the same network is evaluated, chosen and deployed, and that evaluations can be compared.

    Args:
        recipe: the recipe, checked section by section.
        loss_names: for each loss of ``Loss.Eval`` the networks that it names.
        networks: the networks of the recipe.
        mode: the command.
        findings: receives the mistakes.
    """
    evaluates = mode == "eval" or (mode == "train" and recipe.Global.eval_during_train)
    # A mistake in Arch or in the losses would be reported again.
    if evaluates and networks.several and not any(map(findings.mistakes_below, ("Arch", "Loss.Eval"))):
        _check_losses(list(loss_names), networks, findings)
    if mode != "train":
        return
    if evaluates:
        _check_deployed(networks, findings)
        _check_plateau(recipe, findings)
        if recipe.EMA:
            _check_averaged(networks, findings)
    else:
        _check_without_evaluations(recipe, findings)
    if recipe.EarlyStopping:
        _check_early_stopping(recipe.EarlyStopping, recipe.Global, findings)


def _check_losses(named: list[set[str]], networks: Networks, findings: Findings) -> None:
    """Report accuracy and loss of different networks."""
    names = set().union(*named)
    if not named or networks.main in names or not all(named) or not names <= set(networks.members):
        return
    findings.error(
        "Loss.Eval",
        f"looks at {', '.join(sorted(names))}, but the network to deploy is {networks.main} "
        "(Arch.infer_model_name), whose metrics would stand beside the loss of another network; use CELoss, "
        f"which follows the network to deploy, or name {networks.main}",
    )


def _check_deployed(networks: Networks, findings: Findings) -> None:
    main = networks.members.get(networks.main)
    training = [name for name, network in networks.members.items() if not network.frozen]
    if main is not None and main.frozen and training and networks.several:
        # Only a warning, because scripts may check a recipe to export the teacher.
        findings.warn(
            "Arch.infer_model_name",
            f"{networks.main} is frozen (Arch.freeze_params_list), so best_model would follow a network that "
            f"does not change, which train refuses; name one that trains: {', '.join(training)}",
        )


def _check_averaged(networks: Networks, findings: Findings) -> None:
    for name, network in networks.members.items():
        if name == "ema" or name.endswith("_ema"):
            findings.error(
                network.path,
                f"{name!r} cannot name a network of a run with EMA: values that end in _ema are those of "
                "averaged weights",
            )


def _check_without_evaluations(recipe: Recipe, findings: Findings) -> None:
    """Report what depends on evaluations that do not take place."""
    for place in _plateau_modes(recipe):
        findings.error(
            place.removesuffix(".mode"),
            "ReduceOnPlateau follows evaluations, but Global.eval_during_train is false, so the rate would "
            "never change",
        )
    if recipe.EMA:
        findings.warn(
            "EMA",
            "without evaluations (Global.eval_during_train is false) no best averaged weights are chosen: "
            "eval, infer and export take the weights themselves; the averages are in latest.pdema",
        )


def _plateau_modes(recipe: Recipe) -> dict[str, str]:
    """Return the mode of each schedule that follows evaluations, by its config path."""
    node = recipe.Optimizer
    modes = {}
    for index, entry in enumerate(node if isinstance(node, list) else [node]):
        lr = entry.get("lr") if isinstance(entry, Mapping) else None
        if isinstance(lr, Mapping) and lr.get("name") == "ReduceOnPlateau":
            place = f"Optimizer.{index}.lr.mode" if isinstance(node, list) else "Optimizer.lr.mode"
            modes[place] = str(lr.get("mode") or "max")
    return modes


def _check_plateau(recipe: Recipe, findings: Findings) -> None:
    """Check that there is a value for schedules that depend on evaluations."""
    modes = _plateau_modes(recipe)
    if len(set(modes.values())) > 1:
        findings.error(
            list(modes)[-1], "the schedules of one run watch the same value; give all of them the same mode"
        )
    for place, mode in modes.items():
        if mode == "min" and not recipe.Loss.Eval and not _falling(recipe.Metric.Eval):
            findings.error(place, "min watches the loss of evaluations, but Loss.Eval is empty")


def _falling(metrics: Any) -> bool:
    """Tell whether smaller values of the first metric are better."""
    first = metrics[0] if isinstance(metrics, list) and metrics else None
    name = next(iter(first), None) if isinstance(first, Mapping) else None
    return name in METRICS and METRICS.trait(str(name), "higher_is_better") is False


def _check_early_stopping(stopping: EarlyStoppingSpec, settings: GlobalSpec, findings: Findings) -> None:
    if not settings.eval_during_train:
        findings.error("EarlyStopping", "judges evaluations, but Global.eval_during_train is false")
        return
    epochs = settings.epochs
    interval = settings.eval_interval
    first = max(1, settings.start_eval_epoch)
    due = sum(1 for epoch in range(first, epochs + 1) if epoch % interval == 0 or epoch == epochs)
    if due <= stopping.patience:
        text = f"has no effect: {epochs} epochs have {due} evaluations, of which the first is an improvement"
        findings.warn("EarlyStopping.patience", text)
