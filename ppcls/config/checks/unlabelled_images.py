"""Check that nothing asks for the labels of images that have none."""

from __future__ import annotations

from typing import Any

from ppcls.config.checks.components import loss_without_weights
from ppcls.config.mistakes import Findings
from ppcls.config.nodes import Node, Options
from ppcls.config.schema import Recipe
from ppcls.errors import PpclsError

_PATH = "DataLoader.UnLabelTrain"


def check_unlabelled(recipe: Recipe, findings: Findings) -> None:
    """Check that losses and metrics find the labels that they need, and that every option has an effect."""
    _check_without_labels(recipe, findings)
    part = recipe.DataLoader.UnLabelTrain
    losses = _nodes(recipe.Loss.Train, "Loss.Train", findings)
    if part is None:
        return
    sampler = part.sampler
    if isinstance(sampler, dict) and sampler.get("drop_last") is True:
        text = "has no effect: the list is gone through again and again, every batch is full"
        findings.warn(f"{_PATH}.sampler.drop_last", text)
    if losses and not any(_label_free(*next(iter(node.items()))) for node in losses):
        names = ", ".join(name for node in losses for name in node)
        findings.error(_PATH, f"has no effect: all losses of Loss.Train need labels ({names})")


def _check_without_labels(recipe: Recipe, findings: Findings) -> None:
    """Check the datasets of ``Train`` and ``Eval`` with ``labelled: False``."""
    train, evaluation = recipe.DataLoader.Train, recipe.DataLoader.Eval
    if evaluation is not None and not evaluation.labelled:
        findings.error(
            "DataLoader.Eval.dataset.labelled", "False, but an evaluation compares with labels; leave it out"
        )
    if train is None or train.labelled:
        return
    for place, node in enumerate(_nodes(recipe.Loss.Train, "Loss.Train", findings)):
        ((name, options),) = node.items()
        if not _label_free(name, options):
            findings.error(
                f"Loss.Train.{place}",
                f"{name} needs labels, but DataLoader.Train.dataset.labelled is False; leave it out, or give "
                "the images without labels as DataLoader.UnLabelTrain beside others",
            )
    metrics = _nodes(recipe.Metric.Train, "Metric.Train", findings)
    if metrics:
        names = ", ".join(name for node in metrics for name in node)
        findings.error(
            "Metric.Train",
            f"{names} needs labels, but DataLoader.Train.dataset.labelled is False; write "
            "Metric: {Train: []}",
        )


def _nodes(found: Any, path: str, findings: Findings) -> list[Node]:
    """Return the entries of a list; none if there are mistakes in it, which are reported already."""
    return found if isinstance(found, list) and not findings.mistakes_below(path) else []


def _label_free(name: str, options: Options | None) -> bool:
    try:
        return bool(loss_without_weights(name, options).label_free)
    except PpclsError:
        return True  # reported where the loss itself was checked
