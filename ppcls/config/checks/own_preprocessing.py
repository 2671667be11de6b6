"""Check networks with their own preprocessing: their requirements for transform chains."""

from __future__ import annotations

from typing import Any

from ppcls.config.arch import ArchSpec
from ppcls.config.checks.transform_chains import transform_chains
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import Recipe


def check_own_preprocessing(recipe: Recipe, arch: ArchSpec, findings: Findings) -> None:
    """Check that there is one known normalisation for networks with their own ``mean`` and ``std``.

    NormalizeImage normalises the batch, and such a network undoes that. So training, evaluation and
    prediction must all have NormalizeImage once, with the same numbers.
    """
    owners = [
        join(network.path, "mean") for network in arch.children if network.options.get("mean") is not None
    ]
    first: tuple[str, dict[str, Any]] | None = None
    for place, ops in transform_chains(recipe).items() if owners else ():
        found = [
            (join(place, index), op["NormalizeImage"] or {})
            for index, op in enumerate(ops)
            if isinstance(op, dict) and "NormalizeImage" in op
        ]
        if len(found) != 1:
            text = f"{place} has {len(found)} NormalizeImage, expected one; these numbers take its place"
            findings.error(owners[0], text)
            continue
        where, options = found[0]
        numbers = {key: options.get(key) for key in ("mean", "std")}
        if first is None:
            first = (where, numbers)
        elif numbers != first[1]:
            text = (
                f"other numbers than {first[0]}, but {owners[0]} can take the place of one normalisation only"
            )
            findings.error(join(where, "NormalizeImage"), text)
