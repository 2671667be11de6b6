"""Compare ``Infer.transforms`` with the transforms of evaluation."""

from __future__ import annotations

import importlib
import json
from itertools import zip_longest
from typing import Any

from ppcls.config.arithmetic import evaluate
from ppcls.config.binding import node_parameters
from ppcls.config.checks.image_shape import tried_images
from ppcls.config.checks.transform_chains import (
    EVALUATION,
    INFERENCE,
    transform_chains,
    transforms_of_evaluation,
)
from ppcls.config.mistakes import Findings, join
from ppcls.config.nodes import split
from ppcls.config.schema import Recipe
from ppcls.errors import ConfigError, shorten
from ppcls.registry import TRANSFORMS

# They decide how images lie in memory, or which are refused, but not what a network sees.
_UNSEEN = frozenset({"channel_first", "order", "to_np", "return_numpy", "max_pixels", "output_fp16"})
_TOLERANCE = 2e-3  # about the rounding of float16


def check_inference_transforms(recipe: Recipe, findings: Findings) -> None:
    """Warn if images for ``infer`` and ``export`` are prepared otherwise than those of evaluation.

    It can be meant (photos of another kind), so it is no mistake. But who writes the chain for each part of
    the recipe easily changes one of them alone, and the network then answers worse than evaluation says.
    """
    theirs = transforms_of_evaluation(recipe)
    ours = transform_chains(recipe).get(INFERENCE)
    if not theirs or not ours or any(map(findings.mistakes_below, (EVALUATION, INFERENCE))):
        return
    found = _first_difference(ours, theirs)
    if found is not None and not _same_images(ours, theirs):
        findings.warn(
            found[0],
            f"{found[1]} in {EVALUATION}; predictions and exports prepare images otherwise than evaluation, "
            f"whose results may not hold for them. If that is not meant, leave {INFERENCE} out",
        )


def _first_difference(ours: list[Any], theirs: list[Any]) -> tuple[str, str] | None:
    """Return the first place in `ours` that differs from `theirs`, and both values; None if there is none."""
    try:
        for mine, other in zip_longest(_seen(ours), _seen(theirs)):
            if mine is None:
                return INFERENCE, f"{other[1]} is missing, which is"
            if other is None:
                return mine[0], "there is no such transform"
            if mine[1] != other[1]:
                return mine[0], f"it is {other[1]}"
            for option in dict.fromkeys((*mine[2], *other[2])):
                values = [options.get(option) for options in (mine[2], other[2])]
                if _meant(values[0]) != _meant(values[1]):
                    first, second = (shorten(json.dumps(value, default=str)) for value in values)
                    return join(mine[0], option), f"{first}, but {second}"
    except ConfigError:
        pass  # reported where the node itself is checked
    return None


def _seen(operations: list[Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return config path, name and options of each transform of ``Infer.transforms`` that changes pixels."""
    seen = []
    for place, node in enumerate(operations):
        name, options = split(node)
        if name == "ToCHWImage":
            continue
        defaults = {key: value.default for key, value in node_parameters(TRANSFORMS, name, options).items()}
        every = {key: value for key, value in (defaults | options).items() if key not in _UNSEEN}
        seen.append((join(INFERENCE, place, name), name, every))
    return seen


def _meant(value: Any) -> Any:
    """Return a value in one of its spellings: arithmetic computed, ``[32, 32]`` as 32, numbers rounded."""
    if isinstance(value, str):
        try:
            value = evaluate(value)
        except ConfigError:
            return value
    if isinstance(value, list | tuple):
        entries = [_meant(entry) for entry in value]
        return entries[0] if entries and all(entry == entries[0] for entry in entries) else entries
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _same_images(ours: list[Any], theirs: list[Any]) -> bool:
    """Tell whether two chains give the same images, as far as they can be tried."""
    mine, others = tried_images(ours), tried_images(theirs)
    if mine is None or others is None:
        return False
    numpy = importlib.import_module("numpy")
    return all(
        one.shape == other.shape and numpy.allclose(one, other, _TOLERANCE, _TOLERANCE)
        for one, other in zip(mine.images, others.images, strict=True)
    )
