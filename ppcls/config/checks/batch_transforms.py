"""Batch transforms: with the classes of the networks, and with losses that need one class for an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ppcls.config.checks.components import loss_without_weights
from ppcls.config.checks.networks import Networks
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import Recipe
from ppcls.errors import PpclsError


def check_batch_transforms(recipe: Recipe, networks: Networks, findings: Findings) -> None:
    """Check ``batch_transform_ops``: where they stand, their ``class_num``, and what the losses make of them.

    A loss says by its attribute ``hard_labels_only`` why it cannot work with label probabilities.
    """
    for part, data in recipe.DataLoader.parts.items():
        ops = data.dataset.get("batch_transform_ops") if isinstance(data.dataset, dict) else None
        path = f"DataLoader.{part}.dataset.batch_transform_ops"
        if not ops or findings.mistakes_below(path):
            continue
        if part == "Eval":
            findings.error(path, "evaluation looks at the images as they are; leave it out")
            continue
        _check_class_num(ops, path, networks, findings)
        if part == "Train":  # losses that need labels do not see images without
            _check_losses(recipe.Loss.Train, path, findings)


def _check_class_num(ops: list[Any], path: str, networks: Networks, findings: Findings) -> None:
    main = networks.members.get(networks.main)
    for place, given in _class_nums(ops, path):
        if main is not None and main.class_num is not None and given != main.class_num:
            text = f"{given}, but {main.title} ({main.path}) has {main.class_num} classes; leave it out"
            findings.error(place, text)


def _class_nums(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield config path and value of every ``class_num`` in the nodes."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, inner in entries:
        if name == "class_num" and isinstance(inner, int):
            yield join(path, name), inner
        else:
            yield from _class_nums(inner, join(path, name))


def _check_losses(losses: Any, path: str, findings: Findings) -> None:
    if not isinstance(losses, list) or findings.mistakes_below("Loss.Train"):
        return
    for index, node in enumerate(losses):
        ((name, options),) = node.items()
        try:
            reason = loss_without_weights(name, options).hard_labels_only
        except PpclsError:
            continue  # reported where the loss itself was checked
        if reason:
            text = f"needs class indices, but {path} makes probabilities of them: {reason}"
            findings.error(join("Loss.Train", index, name), text)
