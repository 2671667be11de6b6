"""``inference.yml``: the settings of a deployed network, in the layout that PaddleX and FastDeploy read.

    Global: {model_name: ..., image_shape: [3, 224, 224], class_num: 1000, softmax: true, params_sha256: ...}
    PreProcess:
      transform_ops:             # from a decoded RGB image to the network's input
      - ResizeImage: {resize_short: 256}
      - CropImage: {size: 224}
      - NormalizeImage: {scale: 0.00392156862745098, mean: [...], std: [...], order: ''}
      - ToCHWImage: null
    PostProcess:
      Topk: {topk: 5, label_list: [...]}
    ppcls:                       # read only by ppcls: how to decode images, so that predictions are the same
      DecodeImage: {to_rgb: true, backend: cv2}
      Topk: {threshold: 0.5}     # options of the post-process that those tools do not know

Those tools decode images themselves, do not accept numbers as text, and fail on transforms that they do not
know. Earlier versions of ppcls wrote the recipe's transforms unchanged, including DecodeImage, and named a
file of class names in the same folder; such files can still be read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppcls.config import single
from ppcls.config.arithmetic import evaluate
from ppcls.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from ppcls.errors import ConfigError, Place, PpclsError

_OURS = "ppcls"
_OPERATIONS = "PreProcess.transform_ops"
_DECODE = "DecodeImage"
# Transforms that these tools know; only for these the order of axes is written in their way.
_KNOWN = (_DECODE, "ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage")


def describe_transforms(operations: Sequence[Any], channels: int) -> dict[str, Any]:
    """Return the sections ``PreProcess`` and ``ppcls`` for a chain of transforms.

    Args:
        operations: the chain, as in recipes.
        channels: channels of the network's input, for a mean that is one number for all.
    """
    nodes = [single(node, f"{_OPERATIONS}.{place}") for place, node in enumerate(operations)]
    familiar = all(name in _KNOWN for name, _ in nodes)
    decode: dict[str, Any] | None = None
    written: list[dict[str, Any]] = []
    for name, options in nodes:
        if name == _DECODE:
            decode = {key: value for key, value in options.items() if key != "channel_first" or not familiar}
        elif name == "NormalizeImage":
            written.append({name: _normalization(options, channels, familiar)})
        elif name == "ResizeImage":
            written.append({name: _resizing(options)})
        elif name != "ToCHWImage" or not familiar:
            written.append({name: options or None})
    if familiar:
        written.append({"ToCHWImage": None})  # the last step, although recipes may have it earlier
    ours = {} if decode is None else {_OURS: {_DECODE: decode}}
    return {"PreProcess": {"transform_ops": written}, **ours}


def describe_postprocess(postprocess: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section ``PostProcess``, and what belongs into ``ppcls``.

    Args:
        postprocess: as in recipes.
    """
    name, options = single(postprocess, "PostProcess")
    ours = {key: options[key] for key in _OUR_OPTIONS.get(name, ()) if options.get(key) is not None}
    kept = {key: value for key, value in options.items() if key not in _OUR_OPTIONS.get(name, ())}
    return {name: kept}, {name: ours} if ours else {}


_OUR_OPTIONS = {"Topk": ("threshold", "unknown_name")}


@contextlib.contextmanager
def described_in(file: Path) -> Iterator[None]:
    """Add to errors in the block that the mistake is in the description `file`."""
    try:
        yield
    except ConfigError as error:
        mistakes = [replace(mistake, place=Place(str(file))) for mistake in error.mistakes]
        raise ConfigError(f"{file}: {error}", mistakes=mistakes) from error
    except PpclsError as error:
        raise type(error)(f"{file}: {error}") from error


def _normalization(options: Mapping[str, Any], channels: int, familiar: bool) -> dict[str, Any]:
    """Return all options of NormalizeImage, as numbers."""
    scale = options.get("scale")
    factor = evaluate(scale) if isinstance(scale, str) else 1 / 255 if scale is None else scale
    mean, std = (
        [float(number) for number in (default if options.get(key) is None else options[key])]
        for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    repeated = channels if len(mean) == len(std) == 1 else 1
    numbers = {"scale": float(factor), "mean": mean * repeated, "std": std * repeated}
    rest = {key: value for key, value in options.items() if key not in (*numbers, "order") and value}
    return {**numbers, "order": "" if familiar else options.get("order", "chw"), **rest}


def _resizing(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ResizeImage without those that are null."""
    given = {key: value for key, value in options.items() if value is not None and key != "return_numpy"}
    if given.get("backend") == "pil":
        return {"interpolation": "bicubic", **given}  # the default of those tools is different
    return {key: value for key, value in given.items() if (key, value) not in _RESIZING_DEFAULTS}


_RESIZING_DEFAULTS = (("backend", "cv2"), ("interpolation", "bilinear"))


def described_transforms(content: Mapping[str, Any], file: Path) -> list[dict[str, Any]]:
    """Return the chain of transforms as in recipes, starting with the bytes of an image file.

    Args:
        content: content of ``inference.yml``.
        file: its path, for messages.

    Raises:
        ConfigError: if the description has none.
    """
    section = content.get("PreProcess")
    operations = section.get("transform_ops") if isinstance(section, Mapping) else None
    if not isinstance(operations, list) or not operations:
        raise ConfigError(f"{file}: {_OPERATIONS}: expected a list of transforms")
    if any(
        isinstance(node, Mapping) and (_DECODE in node or node.get("name") == _DECODE) for node in operations
    ):
        return operations
    ours = content.get(_OURS) or {}
    if not isinstance(ours, Mapping) or not isinstance(ours.get(_DECODE) or {}, Mapping):
        raise ConfigError(f"{file}: {_OURS}: expected a map with the options of {_DECODE}")
    return [{_DECODE: ours.get(_DECODE) or {}}, *operations]


def described_postprocess(
    content: Mapping[str, Any], file: Path, find: Callable[[str], Path | None]
) -> dict[str, Any]:
    """Return the post-processing as in recipes.

    Args:
        content: content of ``inference.yml``.
        file: its path, for messages.
        find: returns the path of a file of the export; class names are searched there first.

    Raises:
        ConfigError: if it cannot be read.
    """
    section = content.get("PostProcess") or {"Topk": {"topk": 5}}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{file}: PostProcess: expected a map such as Topk: {{topk: 5}}")
    listed = [key for key in section if key != "main_indicator"]
    name = section.get("main_indicator") or next(iter(listed), None)
    if not isinstance(name, str) or name not in section:
        raise ConfigError(f"{file}: PostProcess has no {name}")
    options = section[name] or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{file}: PostProcess.{name}: expected a map of options")
    ours = content.get(_OURS)
    more = ours.get(name) if isinstance(ours, Mapping) else None
    if more is not None and not isinstance(more, Mapping):
        raise ConfigError(f"{file}: {_OURS}.{name}: expected a map of options")
    options = {**options, **(more or {})}
    if "name" in options:
        raise ConfigError(f"{file}: PostProcess.{name}.name: {name} has no such option")
    labels = options.get("class_id_map_file")
    beside = find(labels) if isinstance(labels, str) else None
    return {"name": name, **options, **({} if beside is None else {"class_id_map_file": str(beside)})}
