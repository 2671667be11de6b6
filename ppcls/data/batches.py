"""Operators and batches as scripts written for PaddleClas use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ppcls.config import plain
from ppcls.config.binding import construct
from ppcls.data.loader import Loader
from ppcls.data.transfer import ahead, image_tensor
from ppcls.data.transforms import Compose
from ppcls.registry import TRANSFORMS


class Batches:
    """A loader as an iterable of ``[images, labels]``, Paddle tensors; every pass is an epoch.

    Attributes:
        loader: makes the batches.
        dataset: the source of the images.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.dataset = loader.dataset
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[Any]]:
        import paddle

        epoch = self._epoch
        self._epoch = self._epoch + 1
        for batch in ahead(self.loader.epoch(epoch)):
            yield [image_tensor(batch), paddle.to_tensor(batch.label)]

    def __call__(self) -> Iterator[list[Any]]:
        """Return an iterator over an epoch."""
        return iter(self)


def create_operators(params: Any, class_num: int | None = None) -> list[Compose]:
    """Build the transforms of a list one by one; each is called with the image alone.

    Args:
        params: such as ``Infer.transforms``.
        class_num: accepted for old scripts.

    Raises:
        ConfigError: for unknown names or options.
    """
    nodes = plain(params) or []
    return [Compose([construct(TRANSFORMS, n, f"transforms.{place}")]) for place, n in enumerate(nodes)]
