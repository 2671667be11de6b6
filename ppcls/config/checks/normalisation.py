"""Compare the normalisation of all chains with ``Global.mean`` and ``Global.std``."""

from __future__ import annotations

from typing import Any

from ppcls.config.checks.transform_chains import transform_chains
from ppcls.config.mistakes import Findings
from ppcls.config.schema import Recipe

_NAME = "NormalizeImage"


def check_normalisation(recipe: Recipe, findings: Findings) -> None:
    """Warn of chains that normalise images otherwise than ``Global.mean`` and ``Global.std`` say.

    They have numbers of their own, which the settings do not change. Before there were these settings, all
    chains had, so it is no mistake.
    """
    wanted = {"mean": recipe.Global.mean, "std": recipe.Global.std}
    mean, std = wanted.values()
    if mean is None and std is None:
        return
    if mean is None or std is None:
        findings.error(f"Global.{'std' if std is None else 'mean'}", "missing; give mean and std, or neither")
        return
    if len(mean) != len(std):
        findings.error("Global.std", f"{std}, but Global.mean is {mean}; one number for each channel")
        return
    for place, operations in transform_chains(recipe).items():
        for options in filter(None, map(_options, operations)):
            found = {key: options.get(key) for key in wanted}
            if found != wanted:
                findings.warn(
                    "Global.mean",
                    f"{mean}, and std {std}; but {place} normalise with {found['mean']} and {found['std']} "
                    "of their own. Write mean: ${Global.mean}, std: ${Global.std} there",
                )


def _options(node: Any) -> dict[str, Any] | None:
    """Return the options of a node that normalises; None if it is another transform."""
    if not isinstance(node, dict):
        return None
    if node.get("name") == _NAME:
        return node
    options = (node[_NAME] or {"mean": None}) if _NAME in node else None
    return options if isinstance(options, dict) else None  # what else it may be is reported where it stands
