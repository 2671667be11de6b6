"""Transforms of single images: callables ``op(image, rng)``, named and set in a YAML list.

All threads of a loader share one object: a transform keeps no state between calls, and takes all random
numbers from `rng`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ppcls.config import plain
from ppcls.config.binding import construct
from ppcls.config.checks.axis_order import layout_problem
from ppcls.contracts import PluginErrors, adopt, is_ours
from ppcls.data.rng import SampleNumbers
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
from ppcls.data.transforms.base import BatchTransform, SizedTransform, Step, Transform
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.geometry import Cut
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


@dataclass(slots=True)
class Begun:
    """An image whose transforms have begun, see :meth:`Compose.begin`.

    Attributes:
        first: gives the image to continue with.
        size: width and height for which choices were made; None: there are none.
        steps: what was chosen.
        rest: the transforms after these.
        rng: source of their random numbers.
        all: all transforms after `first`, in case that the image has another size.
        numbers: random numbers for them.
    """

    first: Callable[[], Any]
    size: tuple[int, int] | None
    steps: list[Step]
    rest: Sequence[Apply]
    rng: np.random.Generator
    all: Sequence[Apply]
    numbers: SampleNumbers

    def head(self) -> Any:
        """Return the image after all transforms but those that :class:`Compose` does at the end."""
        image = self.first()
        rest = self.rest
        if self.size is not None and self.size != image.shape[1::-1]:  # it was turned when it was decoded
            self.rng = self.numbers.generator()
            rest = self.all
        else:
            for step in self.steps:
                image = step(image)
        for op in rest:
            image = op(image, self.rng)
        return image


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
        first = ops[0] if ops else None
        decodes = isinstance(first, DecodeImage) and is_ours(first) and not first.channel_first
        self._decoder: DecodeImage | None = first if decodes else None  # type: ignore[assignment]
        # Those after the first that can choose before an image is decoded, and the rest.
        self._sized: list[SizedTransform] = []
        for op in head[1:]:
            if not (isinstance(op, SizedTransform) and is_ours(op)):
                break
            self._sized.append(op)
        self._unsized = self._head[1 + len(self._sized) :]
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

    def begin(self, image: Any, numbers: SampleNumbers) -> Begun:
        """Do what can be done before an image is decoded: its header is read and random choices are made.

        Python's code takes several times as long when it runs after the decoding of an image, which fills
        the processor's cache. So this method is called for several images before one of them is decoded.

        Args:
            image: input of the first transform.
            numbers: all random numbers.

        Raises:
            ImageError: if the header of the image says that it is too large.
            DataError: if `image` is no input of the first transform.
        """
        if self._decoder is None:
            return Begun(lambda: image, None, [], self._head, numbers.generator(), self._head, numbers)
        file = self._decoder.begin(image)
        decode, size = file.decode, file.size
        later = self._head[1:]
        if size is not None:
            width, height = size
            rng = numbers.generator() if self._unsized else numbers.borrow()
            steps = []
            try:
                for op in self._sized:
                    step, width, height = op.choose(width, height, rng)
                    if step is not None:
                        steps.append(step)
            except DataError:  # it is raised again if the image really has this size
                pass
            else:
                if steps and isinstance(steps[0], Cut):
                    decode, size = self._decoder.upper_part(file, steps[0].bottom)
                return Begun(decode, size, steps, self._unsized, rng, later, numbers)
        return Begun(decode, None, [], later, numbers.generator(), later, numbers)

    def pixels(self, begun: Begun, out: np.ndarray | None = None) -> np.ndarray:
        """Finish what :meth:`begin` began, except for a normalisation of 8-bit pixels at the end.

        Args:
            begun: the image.
            out: an array that may be used for the result; the function returns it or another one.

        Returns:
            uint8 [C, H, W], checked by :attr:`normalize`; or, if the chain does not end in this way, what
            :meth:`chw` returns.
        """
        if self.normalize is None:
            return self.finish(begun, out)
        image = begun.head()
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            return split(self.normalize.check(image), out)
        return _as_float(self.normalize.apply(image, True))

    def finish(self, begun: Begun, out: np.ndarray | None = None) -> np.ndarray:
        """Finish what :meth:`begin` began, and return what :meth:`chw` returns."""
        return _as_float(self._tail(begun.head(), begun.rng, True, out))

    def _run(
        self,
        image: Any,
        rng: np.random.Generator | None,
        channel_first: bool,
        out: np.ndarray | None = None,
    ) -> Any:
        rng = self._own_rng if rng is None else rng
        for op in self._head:
            image = op(image, rng)
        return self._tail(image, rng, channel_first, out)

    def _tail(self, image: Any, rng: np.random.Generator, channel_first: bool, out: np.ndarray | None) -> Any:
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
