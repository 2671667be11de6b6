"""Where a recipe has chains of transforms."""

from __future__ import annotations

import copy
from typing import Any

from ppcls.config.schema import Recipe

TRAINING = "DataLoader.Train.dataset.transform_ops"
EVALUATION = "DataLoader.Eval.dataset.transform_ops"
INFERENCE = "Infer.transforms"


def transform_chains(recipe: Recipe) -> dict[str, list[Any]]:
    """Return the transform chains of a recipe that there are, by config path."""
    chains = {}
    for part in ("Train", "UnLabelTrain", "Eval"):
        data = recipe.DataLoader.parts.get(part)
        if data is not None and isinstance(data.dataset, dict):
            chains[f"DataLoader.{part}.dataset.transform_ops"] = data.dataset.get("transform_ops") or []
    if recipe.Infer.transforms:
        chains[INFERENCE] = recipe.Infer.transforms
    return {place: ops for place, ops in chains.items() if isinstance(ops, list)}


def transforms_of_evaluation(recipe: Recipe) -> list[Any] | None:
    """Return what prepares a single image as evaluation does; None if there is no such chain.

    Evaluation on arrays in RGB, such as those of CIFAR, decodes nothing; an image file has to be decoded.
    """
    operations = transform_chains(recipe).get(EVALUATION)
    if not operations:
        return None
    operations = copy.deepcopy(operations)
    if any(isinstance(node, dict) and "DecodeImage" in (*node, node.get("name")) for node in operations):
        return operations
    return [{"DecodeImage": {"to_rgb": True}}, *operations]
