"""Batches of images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ppcls.data.transforms.normalize import NormalizeImage

if TYPE_CHECKING:
    import paddle


class Pixels:
    """The images of a batch before their normalisation: a quarter of its bytes.

    Args:
        levels: uint8 [N, C, H, W].
        normalize: the last transform of the images.
    """

    def __init__(self, levels: np.ndarray, normalize: NormalizeImage) -> None:
        self.levels = levels
        self.normalize = normalize

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, K, H, W] of the normalised images."""
        count, channels, height, width = self.levels.shape
        return count, self.normalize.count(channels), height, width

    @property
    def dtype(self) -> np.dtype:
        """float32 or float16, of the normalised images."""
        return np.dtype(self.normalize.dtype)

    def fits(self, other: Pixels) -> bool:
        """Return whether these images and others can be normalised together."""
        shape = self.levels.shape[1:]
        return (
            other.levels.shape[1:] == shape
            and self.dtype == other.dtype
            and np.array_equal(self.normalize.table(shape[0]), other.normalize.table(shape[0]))
        )

    def rows(self, rows: Sequence[int]) -> Pixels:
        """Return some of the images."""
        return Pixels(self.levels[rows], self.normalize)

    def normalised(self, out: np.ndarray | None = None) -> np.ndarray:
        """Return the normalised images, [N, K, H, W].

        Args:
            out: an array of this shape and type for the result.
        """
        return self.normalize.apply_to_batch(self.levels, out)


class Batch:
    """One batch.

    Args:
        image: the images, normalised, float [N, C, H, W]; or before that.
        label: int64 [N, 1], unless a batch transform made soft labels of it.
        index: places of the samples in the dataset, int64 [N].
        labelled: the rows that have labels, int64; `label` then holds only these. None: all rows have labels.

    Attributes:
        label: as given.
        index: as given.
        labelled: as given.
        tensor: the images on the device once :func:`ppcls.data.transfer.image_tensor` has put them there.
    """

    def __init__(
        self,
        image: np.ndarray | Pixels,
        label: np.ndarray,
        index: np.ndarray,
        labelled: np.ndarray | None = None,
    ) -> None:
        self._image = image
        self.label = label
        self.index = index
        self.labelled = labelled
        self.tensor: paddle.Tensor | None = None

    @property
    def image(self) -> np.ndarray:
        """The normalised images, float32 (float16 if a transform gives that) [N, C, H, W].

        They may be changed in place: from the first access on they are what networks get.
        """
        if isinstance(self._image, Pixels):
            self._image = self._image.normalised()
        self.tensor = None
        return self._image

    @image.setter
    def image(self, image: np.ndarray) -> None:
        self._image = image
        self.tensor = None

    @property
    def pixels(self) -> Pixels | None:
        """The images before their normalisation, as long as nobody has asked for them afterwards."""
        return self._image if isinstance(self._image, Pixels) else None
