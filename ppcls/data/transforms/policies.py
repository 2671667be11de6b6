"""AutoAugment and RandAugment."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.pictures import CHANGES, Canvas, check_fill, to_array, to_picture
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.registry import TRANSFORMS

# Cubuk et al., "AutoAugment" (arXiv 1805.09501), the policy found for ImageNet: 25 pairs of (change,
# probability, magnitude 0 to 9). Pairs that occur twice were found twice.
IMAGENET_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)

LARGEST = 10  # magnitude of RandAugment

# The changes from which RandAugment chooses.
RAND_CHANGES = (
    "Color",
    "Posterize",
    "Solarize",
    "Contrast",
    "Sharpness",
    "Brightness",
    "AutoContrast",
    "Equalize",
    "Invert",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
)


def change_argument(name: str, strength: float, sign: int) -> float:
    """Return the number for a change, in the ranges of table 6 of AutoAugment.

    Args:
        name: a key of CHANGES.
        strength: 0 changes nothing (except for changes without a number), 1 is the end of the range.
        sign: -1 or 1, for changes that have two directions.
    """
    if name.startswith("Shear"):
        return sign * 0.3 * strength
    if name.startswith("Translate"):
        return sign * 150 / 331 * strength  # pixels of images of 331 x 331 in the paper
    if name == "Rotate":
        return sign * 30 * strength
    if name == "Posterize":
        return 8 - round(4 * strength)
    if name == "Solarize":
        return 256 - round(256 * strength)
    return 1 + sign * 0.9 * strength


def warn_of_magnitude(where: str, magnitude: float) -> None:
    """Warn about a magnitude above the largest one, which has the effect of the largest."""
    if magnitude > LARGEST:
        LOGGER.warning("%s: %g is above %d, the largest, and has its effect", where, magnitude, LARGEST)


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.integers(2) else -1


@TRANSFORMS.register()
class AutoAugment(Transform):
    """Apply one of the 25 pairs of changes found for ImageNet (Cubuk et al., arXiv 1805.09501).

    Args:
        fillcolor: red, green and blue of pixels outside the original image.
    """

    def __init__(self, fillcolor: list[int] | tuple[int, ...] = (128, 128, 128)) -> None:
        self.canvas = Canvas(check_fill("AutoAugment", "fillcolor", fillcolor))

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return a changed image of the same shape."""
        picture = to_picture(image, "AutoAugment")
        for name, probability, magnitude in IMAGENET_POLICY[int(rng.integers(len(IMAGENET_POLICY)))]:
            if rng.random() < probability:
                argument = change_argument(name, magnitude / 9, _sign(rng))
                picture = CHANGES[name](picture, argument, self.canvas)
        return to_array(picture)


@TRANSFORMS.register()
class RandAugment(Transform):
    """Apply some changes of one strength, drawn from 14 (Cubuk et al., arXiv 1909.13719).

    The strength of every change grows with the magnitude; at 0 only those without strength (AutoContrast,
    Equalize, Invert) do something.

    Args:
        num_layers: number of changes to an image; the same change may be drawn twice.
        magnitude: 0 to 10; more counts as 10, with a warning.
        fillcolor: red, green and blue of pixels outside the original image.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(
        self,
        num_layers: int = 2,
        magnitude: float = 5,
        fillcolor: list[int] | tuple[int, ...] = (128, 128, 128),
    ) -> None:
        if num_layers < 1:
            raise ConfigError(f"expected 1 or more, got {num_layers}", path="RandAugment.num_layers")
        if not magnitude >= 0:
            raise ConfigError(
                f"expected a number from 0 to 10, got {magnitude}", path="RandAugment.magnitude"
            )
        warn_of_magnitude("RandAugment.magnitude", magnitude)
        self.num_layers = num_layers
        self.strength = min(magnitude, LARGEST) / LARGEST
        self.canvas = Canvas(check_fill("RandAugment", "fillcolor", fillcolor))

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return a changed image of the same shape."""
        picture = to_picture(image, "RandAugment")
        for place in rng.integers(len(RAND_CHANGES), size=self.num_layers):
            name = RAND_CHANGES[place]
            argument = change_argument(name, self.strength, _sign(rng))
            picture = CHANGES[name](picture, argument, self.canvas)
        return to_array(picture)
