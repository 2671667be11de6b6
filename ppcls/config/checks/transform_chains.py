"""Where a recipe has chains of transforms."""

from __future__ import annotations

from typing import Any

from ppcls.config.schema import Recipe


def transform_chains(recipe: Recipe) -> dict[str, list[Any]]:
    """Return the transform chains of a recipe that there are, by config path."""
    chains = {}
    for part in ("Train", "UnLabelTrain", "Eval"):
        data = recipe.DataLoader.parts.get(part)
        if data is not None and isinstance(data.dataset, dict):
            chains[f"DataLoader.{part}.dataset.transform_ops"] = data.dataset.get("transform_ops") or []
    if recipe.Infer.transforms:
        chains["Infer.transforms"] = recipe.Infer.transforms
    return {place: ops for place, ops in chains.items() if isinstance(ops, list)}
