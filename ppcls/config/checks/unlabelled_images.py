"""Check that ``DataLoader.UnLabelTrain`` has an effect."""

from __future__ import annotations

from ppcls.config.checks.components import loss_without_weights
from ppcls.config.mistakes import Findings
from ppcls.config.nodes import Options
from ppcls.config.schema import Recipe
from ppcls.errors import PpclsError

_PATH = "DataLoader.UnLabelTrain"


def check_unlabelled(recipe: Recipe, findings: Findings) -> None:
    """Check that a training loss works without labels, and that every option has an effect."""
    part = recipe.DataLoader.UnLabelTrain
    losses = recipe.Loss.Train
    if part is None:
        return
    sampler = part.sampler
    if isinstance(sampler, dict) and sampler.get("drop_last") is True:
        text = "has no effect: the list is gone through again and again, every batch is full"
        findings.warn(f"{_PATH}.sampler.drop_last", text)
    if not isinstance(losses, list) or findings.mistakes_below("Loss.Train"):
        return
    if not any(_label_free(*next(iter(node.items()))) for node in losses):
        names = ", ".join(name for node in losses for name in node)
        findings.error(_PATH, f"has no effect: all losses of Loss.Train need labels ({names})")


def _label_free(name: str, options: Options | None) -> bool:
    try:
        return bool(loss_without_weights(name, options).label_free)
    except PpclsError:
        return True  # reported where the loss itself was checked
