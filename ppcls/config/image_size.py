"""``Global.image_size``: height and width of ``Global.image_shape``, said with one number."""

from __future__ import annotations

from typing import Any

from ppcls.config.mistakes import Findings
from ppcls.config.nodes import RecipeTree

SIZE, SHAPE = "image_size", "image_shape"
_CHANNELS = 3


def sized(below: RecipeTree, above: RecipeTree) -> tuple[RecipeTree, RecipeTree]:
    """Prepare two layers of a recipe for merging, so that the upper one decides the size of images.

    A layer is a file or an override. What the upper one says with one of both settings replaces what the
    lower one said with the other.

    Args:
        below: the layer below.
        above: the layer above.

    Returns:
        both layers; they are not changed themselves.
    """
    lower, upper = below.get("Global"), above.get("Global")
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return below, above
    if upper.get(SIZE) is not None and SHAPE not in upper and SHAPE in lower:
        shape = lower[SHAPE]
        channels = shape[0] if isinstance(shape, list) and shape else _CHANNELS
        return below, {**above, "Global": {**upper, SHAPE: _square(channels, upper[SIZE])}}
    if SHAPE in upper and SIZE not in upper and SIZE in lower:
        kept = {key: value for key, value in lower.items() if key != SIZE}
        return {**below, "Global": kept}, above
    return below, above


def with_image_shape(tree: RecipeTree) -> RecipeTree:
    """Return a recipe in which ``Global.image_size`` is there as ``Global.image_shape`` too."""
    section = tree.get("Global")
    if not isinstance(section, dict) or section.get(SIZE) is None or SHAPE in section:
        return tree
    return {**tree, "Global": {**section, SHAPE: _square(_CHANNELS, section[SIZE])}}


def _square(channels: Any, side: Any) -> list[Any]:
    return [channels, side, side]


def check_image_size(size: int | None, shape: list[int], findings: Findings) -> None:
    """Refuse a size that contradicts the shape in the same layer of a recipe."""
    if size is not None and shape[1:] != [size, size]:
        text = f"{size}, but Global.{SHAPE} is {shape}; give one of them"
        findings.error(f"Global.{SIZE}", text)
