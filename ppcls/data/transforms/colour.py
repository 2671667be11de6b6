"""Simple random changes of colours and angles."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from PIL import Image

from ppcls.data.transforms.arrays import check_share
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.pictures import CHANGES, RESAMPLE, Canvas, check_fill, to_array, to_picture
from ppcls.errors import ConfigError
from ppcls.registry import TRANSFORMS

_FACTORS = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}


@TRANSFORMS.register()
class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue by random amounts, in random order.

    Args:
        brightness: with b, a factor is drawn from max(0, 1 - b) to 1 + b; [low, high] gives the bounds
            directly.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: with h, a shift is drawn from -h to h, in turns of the colour circle, at most 0.5; or [low,
            high].
        prob: probability that an image is changed.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(
        self,
        brightness: float | list[float] = 0.0,
        contrast: float | list[float] = 0.0,
        saturation: float | list[float] = 0.0,
        hue: float | list[float] = 0.0,
        prob: float = 1.0,
    ) -> None:
        self.prob = check_share("ColorJitter.prob", prob)
        given = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        self.bounds = {name: _bounds(name, value, 1.0, 0.0, math.inf) for name, value in given.items()}
        self.bounds["hue"] = _bounds("hue", hue, 0.0, -0.5, 0.5)

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or one with other colours."""
        picture = to_picture(image, "ColorJitter")
        if rng.random() >= self.prob:
            return image
        names = list(self.bounds)
        for place in rng.permutation(len(names)):
            name = names[place]
            low, high = self.bounds[name]
            amount = rng.uniform(low, high)
            if name != "hue":
                picture = CHANGES[_FACTORS[name]](picture, amount, Canvas())
            elif picture.mode == "RGB" and (low, high) != (0.0, 0.0):
                picture = _turn_hue(picture, amount)
        return to_array(picture)


def _bounds(
    name: str, value: float | list[float], middle: float, least: float, most: float
) -> tuple[float, float]:
    """Return the bounds of an amount; `middle` is the amount that changes nothing."""
    if isinstance(value, list | tuple):
        pair = [float(end) for end in value]
    else:
        pair = [max(middle - value, least), middle + value]
    if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
        limit = "from 0 to 0.5" if name == "hue" else "of 0 or more"
        raise ConfigError(
            f"expected a number {limit}, or [low, high], got {value}", path=f"ColorJitter.{name}"
        )
    return pair[0], pair[1]


def _turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + round(turn * 256)) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


@TRANSFORMS.register()
class RandomGrayscale(Transform):
    """Turn some images gray; they keep three channels.

    Args:
        prob: probability that an image is changed.
    """

    def __init__(self, prob: float = 0.1) -> None:
        self.prob = check_share("RandomGrayscale.prob", prob)

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or a gray version of it."""
        picture = to_picture(image, "RandomGrayscale")
        if rng.random() >= self.prob:
            return image
        return np.repeat(np.asarray(picture.convert("L"))[:, :, None], image.shape[2], axis=2)


@TRANSFORMS.register()
class RandomRotation(Transform):
    """Rotate the image about its centre by a random angle; it keeps its size.

    Args:
        prob: probability that an image is rotated.
        degrees: with d, an angle is drawn from -d to d; [low, high] gives the bounds directly.
        interpolation: nearest, bilinear or bicubic.
        fill: value of pixels outside the original image, or one value each for red, green and blue.

    Raises:
        ConfigError: for numbers out of range.
    """

    def __init__(
        self,
        prob: float = 0.5,
        degrees: float | list[float] = 90,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear",
        fill: int | list[int] = 0,
    ) -> None:
        self.prob = check_share("RandomRotation.prob", prob)
        pair = degrees if isinstance(degrees, list | tuple) else [-degrees, degrees]
        if len(pair) != 2 or pair[0] > pair[1]:
            raise ConfigError(
                f"expected a number >= 0 or [low, high], got {degrees}", path="RandomRotation.degrees"
            )
        self.degrees = pair[0], pair[1]
        if interpolation not in RESAMPLE:
            raise ConfigError(
                f"expected one of {', '.join(RESAMPLE)}, got {interpolation!r}",
                path="RandomRotation.interpolation",
            )
        colour = check_fill("RandomRotation", "fill", [fill] * 3 if isinstance(fill, int) else fill)
        self.canvas = Canvas(colour, RESAMPLE[interpolation])

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or a rotated one of the same shape."""
        picture = to_picture(image, "RandomRotation")
        if rng.random() >= self.prob:
            return image
        return to_array(CHANGES["Rotate"](picture, rng.uniform(*self.degrees), self.canvas))
