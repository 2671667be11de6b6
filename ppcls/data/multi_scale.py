"""Training on images of several sizes: one size for each batch, more images in a batch of small ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ppcls.config.nodes import single
from ppcls.data.dataset import ImageNetDataset, OnError
from ppcls.data.rng import order_rng, size_rng
from ppcls.data.sampler import Draws, EpochSampler, Share
from ppcls.data.transforms import Compose, build_transforms
from ppcls.errors import ConfigError
from ppcls.registry import DATASETS, SAMPLERS

Size = tuple[int, int]  # width and height in pixels

# Transforms whose size becomes that of the batch.
SIZED = ("RandCropImage", "ResizeImage", "CropImage")


@SAMPLERS.register()
class MultiScaleSampler(EpochSampler):
    """Every sample once per epoch, in a new order; each batch gets images of one size, drawn from `scales`.

    Every batch holds about the same number of pixels: ``first_bs * W0 * H0 // (W * H)`` images, at least
    one, where W0 and H0 are the first of `scales`. The sizes of an epoch are drawn once from the seed, so
    all epochs have equally many batches; the order of the sizes is drawn anew for each epoch. All processes
    have the same size at the same step. Needs MultiScaleDataset.

    Args:
        scales: sizes in pixels, each a number for a square or [width, height].
        first_bs: images of one process in a batch of the first size.
        divided_factor: width and height are rounded down to multiples of this number.
        is_training: must be true; evaluation uses DistributedBatchSampler.
        seed: seed of sizes and order; null (or ``None``) means the seed of the run.
        drop_last: leave out a last batch that is not full.

    Raises:
        ConfigError: for sizes below `divided_factor` and numbers below 1.
    """

    training_only = True
    multi_scale = True

    def __init__(
        self,
        scales: list[int | list[int]],
        first_bs: int,
        divided_factor: int = 32,
        is_training: bool = True,
        seed: int | Literal["None"] | None = None,
        drop_last: bool = False,
    ) -> None:
        if first_bs < 1:
            raise ConfigError(f"expected 1 or more, got {first_bs}", path="MultiScaleSampler.first_bs")
        super().__init__(first_bs, drop_last)
        if divided_factor < 1:
            raise ConfigError(
                f"expected 1 or more, got {divided_factor}", path="MultiScaleSampler.divided_factor"
            )
        if not is_training:
            raise ConfigError(
                "only True; evaluation uses DistributedBatchSampler", path="MultiScaleSampler.is_training"
            )
        if not scales:
            raise ConfigError("expected at least one size", path="MultiScaleSampler.scales")
        sides = [_width_height(scale) for scale in scales]
        budget = first_bs * sides[0][0] * sides[0][1]
        self.choices: list[tuple[Size, int]] = []
        for width, height in sides:
            size = width // divided_factor * divided_factor, height // divided_factor * divided_factor
            if not all(size):
                text = f"{width} x {height} is less than divided_factor, {divided_factor}"
                raise ConfigError(f"{text}", path="MultiScaleSampler.scales")
            self.choices.append((size, max(budget // (size[0] * size[1]), 1)))
        self.seed = seed if isinstance(seed, int) else None

    def order(self, share: Share, epoch: int) -> np.ndarray:
        """Return all samples in a random order, int64 [share.length]."""
        return order_rng(self._seed(share), epoch).permutation(share.length)

    def count(self, share: Share) -> int:
        """Return the number of batches per epoch."""
        return len(self._plan(share))

    def batches(self, share: Share, epoch: int) -> list[Draws]:
        """Return the samples of each batch of this process, with the size of its images."""
        plan = self._plan(share)
        order = self.order(share, epoch)
        draws = Draws(order, np.zeros_like(order))
        # The last batch gets the remaining samples, so it stays last: in another order it could be empty.
        places = [*size_rng(self._seed(share), epoch).permutation(max(len(plan) - 1, 0)), len(plan) - 1]
        found = []
        start = 0
        for place in places if plan else ():
            size, images = self.choices[plan[place]]
            together = images * share.world_size
            part = self._part(draws.part(start, start + together), draws, share)
            found.append(replace(part, size=size))
            start += together
        return found

    def _plan(self, share: Share) -> list[int]:
        """Draw the sizes of an epoch's batches, as indices into `choices`; the last batch may not be full."""
        rng = size_rng(self._seed(share), 0)
        plan = []
        drawn = 0
        while drawn < share.length:
            plan.append(int(rng.integers(len(self.choices))))
            drawn += self.choices[plan[-1]][1] * share.world_size
        return plan[:-1] if self.drop_last and drawn > share.length else plan

    def _seed(self, share: Share) -> int:
        return share.seed if self.seed is None else self.seed


def _width_height(scale: int | list[int]) -> Size:
    sides = [scale, scale] if isinstance(scale, int) else list(scale)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(
            f"expected numbers or [width, height] of 1 or more, got {scale!r}",
            path="MultiScaleSampler.scales",
        )
    return sides[0], sides[1]


@DATASETS.register()
class MultiScaleDataset(ImageNetDataset):
    """An ImageNetDataset whose images get the size that a MultiScaleSampler chooses.

    The size replaces that of RandCropImage, ResizeImage and CropImage in `transform_ops`; their other options
    stay. With another sampler the chain is unchanged.

    Args:
        image_root: folder that the paths in the list start from.
        cls_label_path: the list file, UTF-8.
        transform_ops: transforms of an image, including one of the three above.
        batch_transform_ops: transforms of a batch.
        delimiter: between path and label; null is the last blank or tab of a line.
        relabel: as for ImageNetDataset.
        on_error: ``raise``, or ``skip``: images that cannot be read are left out, counted and named.
        class_num: labels must lie in 0..class_num-1; by default that of the network.
        class_names: as for ImageNetDataset.
        labelled: as for ImageNetDataset.

    Raises:
        ConfigError: if no transform has a size to set.
        DataError: with the first mistakes in the list, each with its line.
    """

    multi_scale = True

    def __init__(
        self,
        image_root: str,
        cls_label_path: str,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        delimiter: str | None = None,
        relabel: str | bool = False,
        on_error: OnError = "raise",
        class_num: int | None = None,
        class_names: list[str] | str | None = None,
        labelled: bool = True,
    ) -> None:
        super().__init__(
            image_root,
            cls_label_path,
            transform_ops,
            batch_transform_ops,
            delimiter,
            relabel,
            on_error,
            class_num,
            class_names,
            labelled,
        )
        self._nodes = [single(node, "transform_ops") for node in transform_ops or []]
        if not any(name in SIZED for name, _ in self._nodes):
            raise ConfigError(
                f"needs one of {', '.join(SIZED)} to set its size", path="MultiScaleDataset.transform_ops"
            )
        self._chains: dict[Size, Compose] = {}

    def chain(self, size: Size | None) -> Compose:
        """Return the transforms that give images of `size`; None: as in the recipe."""
        if size is None:
            return self.transforms
        if size not in self._chains:  # two threads may build the same one; both are equal
            self._chains[size] = build_transforms(
                [_sized(name, options, size) for name, options in self._nodes]
            )
        return self._chains[size]


def _sized(name: str, options: dict[str, Any], size: Size) -> dict[str, Any]:
    if name not in SIZED:
        return {name: options}
    return {name: {**{k: v for k, v in options.items() if k != "resize_short"}, "size": list(size)}}
