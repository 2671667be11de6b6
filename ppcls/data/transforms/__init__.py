"""Transforms of single images: callables ``op(image, rng)``, named and set in a YAML list.

All threads of a loader share one object: a transform keeps no state between calls, and takes all random
numbers from `rng`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ppcls.config import plain
from ppcls.config.binding import construct
from ppcls.config.checks.axis_order import layout_problem
from ppcls.contracts import PluginErrors, adopt, is_ours
from ppcls.data.transforms import (
    colour,
    decode,
    erasing,
    geometry,
    normalize,
    padding,
    policies,
    timm_augment,
)
from ppcls.data.transforms.base import BatchTransform, Transform
from ppcls.data.transforms.normalize import NormalizeImage, ToCHWImage, split
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS

# Importing these modules fills the registry.
__all__ = [
    "BatchTransform",
    "Compose",
    "Transform",
    "build_transforms",
    "colour",
    "decode",
    "erasing",
    "geometry",
    "normalize",
    "padding",
    "policies",
    "timm_augment",
]


Apply = Callable[[Any, np.random.Generator], Any]


class Compose:
    """A chain of transforms.

    A transform that gives [C, H, W] has the attribute ``channel_first = True``.
    Normalising images [H, W, C] at the end of a chain and converting them to [C, H, W] is done in one pass.

    Attributes:
        ops: the transforms in order.
        channel_first: whether the chain itself ends in [C, H, W].
        normalize: the normalisation of [H, W, C] at the end of the chain, if there is one.
    """

    def __init__(self, ops: Sequence[Apply]) -> None:
        self.ops: list[Transform] = [adopt(op, Transform) for op in ops]
        self.channel_first = any(op.channel_first for op in self.ops)
        head, self.normalize = _split_off_normalize(self.ops)
        # Errors of our own transforms need no name, and pass through here for every image.
        self._head: list[Apply] = [op if is_ours(op) else partial(_named_in_errors, op) for op in head]
        self._own_rng = np.random.default_rng(0)

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        """Apply the chain to `image`.

        Args:
            image: input of the first transform: the bytes of a file for DecodeImage.
            rng: source of all random numbers. Without it the chain uses its own, which starts at seed 0
                when the chain is built; that works in one thread only.
        """
        return self._run(image, rng, self.channel_first)

    def chw(
        self, image: Any, rng: np.random.Generator | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Apply the chain and return the input of a network, [C, H, W]: float32, or float16 if chosen.

        Args:
            image: input of the first transform.
            rng: source of all random numbers, see :meth:`__call__`.
            out: an array that may be used for the result; the function returns it or another one.
        """
        return _as_float(self._run(image, rng, True, out))

    def pixels(
        self, image: Any, rng: np.random.Generator | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Apply the chain except for the normalisation of 8-bit pixels at its end.

        Args:
            image: input of the first transform.
            rng: source of all random numbers, see :meth:`__call__`.
            out: an array that may be used for the result; the function returns it or another one.

        Returns:
            uint8 [C, H, W], checked by :attr:`normalize`; or, if the chain does not end in this way, what
            :meth:`chw` returns.
        """
        if self.normalize is None:
            return self.chw(image, rng, out)
        image = self._run_head(image, self._own_rng if rng is None else rng)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            return split(self.normalize.check(image), out)
        return _as_float(self.normalize.apply(image, True))

    def _run_head(self, image: Any, rng: np.random.Generator) -> Any:
        for op in self._head:
            image = op(image, rng)
        return image

    def _run(
        self,
        image: Any,
        rng: np.random.Generator | None,
        channel_first: bool,
        out: np.ndarray | None = None,
    ) -> Any:
        rng = self._own_rng if rng is None else rng
        image = self._run_head(image, rng)
        if self.normalize is not None:
            return self.normalize.apply(image, channel_first, out)
        if channel_first and not self.channel_first:
            return ToCHWImage()(image, rng)
        return image


def _as_float(image: Any) -> np.ndarray:
    return image if image.dtype == np.float16 else image.astype(np.float32, copy=False)


def _named_in_errors(op: Transform, image: Any, rng: np.random.Generator) -> Any:
    """Apply a transform of a plug-in."""
    with PluginErrors(op, type(op).__name__, DataError):
        return op(image, rng)


def _split_off_normalize(ops: list[Transform]) -> tuple[list[Transform], NormalizeImage | None]:
    """Split off the normalisation of [H, W, C] at the end of a chain, if there is one."""
    end = len(ops) - 1 if ops and isinstance(ops[-1], ToCHWImage) else len(ops)
    last = ops[end - 1] if end else None
    if isinstance(last, NormalizeImage) and not any(op.channel_first for op in ops[:end]):
        return ops[: end - 1], last
    return ops, None


def build_transforms(config: Any, where: str = "transforms") -> Compose:
    """Build a chain from ``[{"DecodeImage": {...}}, {"ToCHWImage": None}, ...]``.

    Args:
        config: the list, plain or OmegaConf; null or empty gives the identity.
        where: its config path, for messages.

    Raises:
        ConfigError: for unknown names or options, or a chain whose transforms do not fit together.
    """
    nodes = plain(config) or []
    if not isinstance(nodes, list):
        raise ConfigError(f"expected a list of transforms, got {nodes!r}", path=where)
    ops = [construct(TRANSFORMS, node, f"{where}.{place}") for place, node in enumerate(nodes)]
    wrong = layout_problem(nodes)
    if wrong is not None:
        raise ConfigError(f"{wrong[1]}", path=f"{where}.{wrong[0]}")
    return Compose(ops)
