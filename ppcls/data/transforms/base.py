"""What every transform of images or of batches has."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ppcls.contracts import Component


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
