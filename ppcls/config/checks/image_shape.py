"""Compare the images of transform chains with ``Global.image_shape`` and with the networks."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ppcls.config.binding import construct
from ppcls.config.checks.networks import Networks
from ppcls.config.checks.transform_chains import EVALUATION, INFERENCE, TRAINING, transform_chains
from ppcls.config.mistakes import Findings, join
from ppcls.config.nodes import single
from ppcls.config.schema import GlobalSpec, Recipe
from ppcls.config.section import default_of, fields_of
from ppcls.errors import PpclsError
from ppcls.registry import TRANSFORMS

_PLACE = "Global.image_shape"
# Two images of different height, width and shape: equal results do not depend on the image.
_TRIED = ((350, 450), (480, 360))
_LARGEST = 2048  # larger sizes would take time and memory

Shape = tuple[int | None, int | None, int | None]


def check_image_shape(recipe: Recipe, networks: Networks, mode: str, findings: Findings) -> None:
    """Compare the images of all chains with the networks, some of them with ``Global.image_shape`` too.

    Only an export uses ``Global.image_shape``, so a contradiction is an error there. Elsewhere it is one if
    the shape was set (not left at its default, as many recipes do) and agrees with neither chain; else a
    warning. Sizes that depend on the image are not compared. Training on other sizes than those of evaluation
    is usual, but hardly with width and height exchanged.
    """
    shapes = {
        place: shape
        for place, operations in transform_chains(recipe).items()
        if not findings.mistakes_below(place) and (shape := chain_shape(operations)) is not None
    }
    for place, shape in shapes.items():
        for network in networks.members.values():
            if None not in (network.channels, shape[0]) and network.channels != shape[0]:
                text = f"{network.channels}, but {place} give images with {shape[0]} (DecodeImage.channels)"
                findings.error(join(network.path, "input_image_channel"), text)
    if mode == "train":
        _warn_of_exchanged_sides(shapes, findings)
    if mode == "export":
        problem = check_exported_shape(recipe)
        if problem is not None:
            findings.error(*problem)
    elif not findings.mistakes_below(_PLACE):
        _compare(recipe.Global.image_shape, shapes, findings)


def _warn_of_exchanged_sides(shapes: Mapping[str, Shape], findings: Findings) -> None:
    """Warn if the width of the training images is the height in evaluation, and the other way round."""
    if TRAINING not in shapes or EVALUATION not in shapes:
        return
    (_, height, width), (_, *evaluated) = shapes[TRAINING], shapes[EVALUATION]
    if None not in (height, width) and height != width and evaluated == [width, height]:
        text = f"images of {width} x {height} (width x height), but {EVALUATION} give {height} x {width}"
        findings.warn(TRAINING, f"{text}; a size is [width, height]")


def check_exported_shape(recipe: Recipe) -> tuple[str, str] | None:
    """Return config path and text of a mistake in the description of an export's images, or None."""
    place = exported_chain(recipe)
    if place is None:
        return INFERENCE, f"missing; export needs it, or {EVALUATION}: it tells how images are prepared"
    wanted = recipe.Global.image_shape
    found = chain_shape(transform_chains(recipe)[place])
    if found is None or _agree(wanted, found):
        return None
    return _PLACE, f"{_contradiction(wanted, place, found)}; make them the same"


def check_inference_chain(recipe: Recipe, findings: Findings) -> None:
    """Refuse a recipe for inference with neither transforms of its own nor those of evaluation."""
    if exported_chain(recipe) is None and not findings.mistakes_below(INFERENCE):
        findings.error(
            INFERENCE, f"missing; infer needs it, or {EVALUATION}: it tells how images are prepared"
        )


def _compare(wanted: list[int], shapes: Mapping[str, Shape], findings: Findings) -> None:
    """Compare the shape in a mode that does not use it."""
    known = {place: shapes[place] for place in (EVALUATION, INFERENCE) if place in shapes}
    wrong = {place: shape for place, shape in known.items() if not _agree(wanted, shape)}
    default = default_of(fields_of(GlobalSpec)["image_shape"][0])
    for place, shape in wrong.items():
        text = _contradiction(wanted, place, shape)
        if len(wrong) == len(known) and wanted != default:
            findings.error(_PLACE, f"{text}; make them the same")
        else:
            findings.warn(_PLACE, f"{text}; an export of such a recipe is refused or of another size")


def exported_chain(recipe: Recipe) -> str | None:
    """Return the path of the chain that an export describes: that of ``Infer``, else that of evaluation."""
    chains = transform_chains(recipe)
    return next((place for place in (INFERENCE, EVALUATION) if chains.get(place)), None)


def _contradiction(wanted: list[int], place: str, found: Shape) -> str:
    """Return a text about a chain whose images have another shape than ``Global.image_shape``."""
    sides = ", ".join("any" if side is None else str(side) for side in found)
    return f"{wanted}, but {place} give images [{sides}] (channels, height, width)"


def _agree(wanted: list[int], found: Shape) -> bool:
    return all(known in (None, side) for side, known in zip(wanted, found, strict=False))


def chain_shape(operations: list[Any]) -> Shape | None:
    """Return [C, H, W] of the images of a chain; None for a side that depends on the image.

    The chain is tried on two images, but only with transforms of the package. The result is None if it cannot
    be determined: a transform refuses the images, or its numbers are very large.
    """
    return _shape_of(json.dumps(operations, default=str))


@lru_cache(maxsize=256)
def _shape_of(written: str) -> Shape | None:
    """Like :func:`chain_shape`, for a chain as JSON; cached, because chains of a recipe are often equal."""
    found = tried_images(json.loads(written))
    if found is None:
        return None
    shapes = (image.shape for image in found.images)
    channels, height, width = (one if one == other else None for one, other in zip(*shapes, strict=True))
    return channels if found.decoded else None, height, width


@dataclass(frozen=True)
class TriedImages:
    """What a chain makes of two images of noise.

    Attributes:
        images: the results, [C, H, W].
        decoded: whether the chain decodes files; else the number of channels is only assumed.
    """

    images: list[Any]
    decoded: bool


def tried_images(operations: list[Any]) -> TriedImages | None:
    """Apply a chain to two images; None if a transform is not of the package, or it cannot be applied."""
    try:
        nodes = [single(node, "") for node in operations]
        ours = all(TRANSFORMS[name].__module__.startswith("ppcls.") for name, _ in nodes)
        if not ours or any(number > _LARGEST for _, options in nodes for number in _numbers(options)):
            return None
        chain = [construct(TRANSFORMS, node, "") for node in operations]
    except (PpclsError, TypeError, ValueError):
        return None  # a mistake that another check reports
    decodes = bool(nodes) and nodes[0][0] == "DecodeImage"
    images = [_try(chain, size, decodes) for size in _TRIED]
    return None if any(image is None for image in images) else TriedImages(images, decodes)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int | float):
        yield abs(value)


def _try(chain: list[Any], size: tuple[int, int], decodes: bool) -> Any:
    """Return what a chain makes of an image of this height and width as [C, H, W]; None if it refuses it."""
    numpy = importlib.import_module("numpy")
    cv2 = importlib.import_module("cv2")
    height, width = size
    rng = numpy.random.default_rng(0)
    image: Any = rng.integers(0, 256, (height, width, 3), numpy.uint8)
    if decodes:
        image = b"P6 %d %d 255\n" % (width, height) + image.tobytes()
    try:
        for operation in chain:
            image = operation(image, rng)
    except (PpclsError, cv2.error, ArithmeticError, IndexError, TypeError, ValueError):
        return None
    if numpy.ndim(image) != 3:
        return None
    first = any(operation.channel_first for operation in chain)
    return image if first else image.transpose(2, 0, 1)
