"""Check that each transform accepts the images before it: decoding, and ``NormalizeImage.order``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppcls.config.checks.transform_chains import transform_chains
from ppcls.config.mistakes import Findings, join
from ppcls.config.nodes import Options, split
from ppcls.config.schema import Recipe
from ppcls.contracts import is_ours
from ppcls.errors import ConfigError
from ppcls.registry import TRANSFORMS

_AXES = {"chw": "[C, H, W]", "hwc": "[H, W, C]"}


def check_axis_order(recipe: Recipe, findings: Findings) -> None:
    """Report the first transform of each chain that does not accept its input images."""
    for place, nodes in transform_chains(recipe).items():
        if not findings.mistakes_below(place):
            found = layout_problem(nodes)
            if found is not None:
                findings.error(join(place, found[0]), found[1])


def layout_problem(nodes: Sequence[Any]) -> tuple[str, str] | None:
    """Return the first transform of a chain that does not accept its input images, and the reason.

    That is a NormalizeImage with the wrong order, or a DecodeImage that is not the first.

    The input of a chain without DecodeImage is unknown, and so is the output of a plug-in's transform unless
    it has ``channel_first = True``; then nothing is reported.

    Args:
        nodes: ``[{"DecodeImage": {...}}, ...]``.
    """
    layout = None
    cause = ""
    for place, node in enumerate(nodes):
        try:
            name, options = split(node)
        except ConfigError:
            return None  # reported where the node itself is checked
        if name not in TRANSFORMS:
            return None
        if name == "DecodeImage":
            if place and all(is_ours(TRANSFORMS[split(node)[0]]) for node in nodes[:place]):
                return f"{place}.DecodeImage", f"comes first in a chain, but here it is number {place + 1}"
            first = bool(options.get("channel_first"))
            layout = "chw" if first else "hwc"
            cause = f"DecodeImage has channel_first: {str(first).lower()}"
        elif name == "NormalizeImage":
            order = options.get("order", "chw")
            wanted = "chw" if order == "chw" else "hwc"
            if layout not in (None, wanted) and not (wanted == "hwc" and _one_for_all(options)):
                given = f"{order!r}" if "order" in options else "chw (the default)"
                remedy = "chw" if layout == "chw" else "''"
                return f"{place}.NormalizeImage.order", (
                    f"{given}, which is for images {_AXES[wanted]}, but they come as {_AXES[str(layout)]}: "
                    f"{cause}; set order: {remedy}"
                )
        elif TRANSFORMS.trait(name, "channel_first") is True:
            layout = "chw"
            cause = f"{name} comes before"
        elif not is_ours(TRANSFORMS[name]):  # input and output of others are unknown
            layout = None
    return None


def _one_for_all(options: Options) -> bool:
    """Tell whether each channel is normalised alike, so that their order does not matter."""
    return all(isinstance(options.get(key), list) and len(options[key]) == 1 for key in ("mean", "std"))
