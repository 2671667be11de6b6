"""What every transform of images or of batches has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ppcls.contracts import Component
from ppcls.data.transforms.arrays import check_image

Step = Callable[[np.ndarray], np.ndarray]


class Transform(Component):
    """Base class of transforms of single images.

    One object serves all threads of a loader at once: a transform keeps nothing between calls, and takes
    every random choice from `rng`.

    Attributes:
        channel_first: whether it gives images [C, H, W]; all others take and give [H, W, C].
    """

    channel_first: bool = False

    @abstractmethod
    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        """Return the transformed image.

        Args:
            image: mostly uint8 [H, W, C]; the first transform of a chain gets what the dataset reads: the
                bytes of a file.
            rng: source of all random choices.
        """


class SizedTransform(Transform):
    """A transform whose random choices depend on nothing of an image but its size.

    So they can be made before the image is decoded, see :class:`ppcls.data.transforms.Compose`.
    """

    @abstractmethod
    def choose(self, width: int, height: int, rng: np.random.Generator) -> tuple[Step | None, int, int]:
        """Make the random choices for an image.

        Args:
            width: of the image.
            height: of the image.
            rng: source of all random choices.

        Returns:
            the function that does to an image [H, W, C] what was chosen, None if that is nothing; width and
            height of its result.

        Raises:
            DataError: if the image is too small.
        """

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the transformed image [H, W, C].

        Raises:
            DataError: if it is no image [H, W, C], or too small.
        """
        image = check_image(image, type(self).__name__)
        step, _, _ = self.choose(image.shape[1], image.shape[0], rng)
        return image if step is None else step(image)


class BatchTransform(Component):
    """Base class of transforms of whole batches, such as mixup."""

    @abstractmethod
    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the transformed images and labels.

        Args:
            image: [N, C, H, W].
            label: class indices, int64 [N, 1], or probabilities, float32 [N, K].
            rng: source of all random choices.
        """
