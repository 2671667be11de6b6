"""RandAugment with timm's configuration strings, which the recipes of most transformers use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ppcls.data.transforms.arrays import check_share
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.normalize import IMAGENET_MEAN
from ppcls.data.transforms.pictures import CHANGES, RESAMPLE, Canvas, check_fill, to_array, to_picture
from ppcls.data.transforms.policies import LARGEST, warn_of_magnitude
from ppcls.errors import ConfigError
from ppcls.registry import TRANSFORMS

TIMM_CHANGES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
_EACH = 0.5  # probability that a drawn change is made
_FORMAT = "rand-m<magnitude 0 to 10>[-n<changes>][-mstd<deviation of the magnitude>][-inc<0 or 1>]"


@dataclass(frozen=True)
class Settings:
    """The content of a configuration string.

    Attributes:
        magnitude: 0 or more; magnitudes drawn around it are limited to 10.
        number: number of changes drawn for an image.
        deviation: standard deviation of the magnitude.
        increasing: the changes of colours, too, grow with the magnitude.
    """

    magnitude: float = 10
    number: int = 2
    deviation: float = 0.0
    increasing: bool = False


def parse(text: str) -> Settings:
    """Read a string such as ``rand-m9-mstd0.5-inc1``.

    Raises:
        ConfigError: for other policies or parts, and numbers out of range.
    """
    where = "TimmAutoAugment.config_str"
    policy, *parts = str(text).split("-")
    if policy != "rand":
        raise ConfigError(f"got {text!r}, expected {_FORMAT}; other policies are not built", path=where)
    found: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)", part)
        if match is None or match[1] in found:
            raise ConfigError(
                f"part {part!r} of {text!r} is unknown or stands twice; form: {_FORMAT}", path=where
            )
        found[match[1]] = float(match[2])
    magnitude = found.get("m", 10.0)
    number = found.get("n", 2.0)
    if number < 1 or number % 1 or found.get("inc", 0) not in (0, 1):
        raise ConfigError(f"a number of {text!r} is out of range; form: {_FORMAT}", path=where)
    warn_of_magnitude(f"{where} {text}", magnitude)
    return Settings(magnitude, int(number), found.get("mstd", 0.0), bool(found.get("inc", 0)))


def timm_argument(name: str, strength: float, sign: int, increasing: bool) -> float:
    """Return the number for a change, in timm's ranges.

    Args:
        name: a key of CHANGES.
        strength: 0 to 1.
        sign: -1 or 1, for changes that have two directions.
        increasing: posterize, solarize and the factors move away from no change as the strength grows;
            otherwise posterize keeps 0 to 4 bits, solarize inverts from level 0 to 256 on, and factors go
            from 0.1 to 1.9.
    """
    if name.startswith("Shear"):
        return sign * 0.3 * strength
    if name.startswith("Translate"):
        return sign * 0.45 * strength
    if name == "Rotate":
        return sign * 30 * strength
    if name == "Posterize":
        return 4 - int(4 * strength) if increasing else int(4 * strength)
    if name == "Solarize":
        return 256 - int(256 * strength) if increasing else int(256 * strength)
    if name == "SolarizeAdd":
        return int(110 * strength)
    return max(0.1, 1 + sign * 0.9 * strength) if increasing else 0.1 + 1.8 * strength


@TRANSFORMS.register()
class TimmAutoAugment(Transform):
    """RandAugment as timm configures it: some changes out of 15, each made with probability 1/2.

    Args:
        prob: probability that an image is changed.
        config_str: ``rand-m9-mstd0.5-inc1``: magnitude 9 of 10 (``m``), normally distributed around it with
            deviation 0.5 (``mstd``) and limited to 0..10, strength growing with the magnitude (``inc1``);
            ``n2`` means two changes per image. A magnitude above 10 gives a warning.
        interpolation: of rotations, shears and shifts; ``random`` draws bilinear or bicubic.
        img_size: accepted for old recipes; shifts are relative to the image.
        mean: red, green and blue, 0 to 1, of pixels outside the original image; null means the mean of
            ImageNet.

    Raises:
        ConfigError: for another form of `config_str`, and numbers out of range.
    """

    def __init__(
        self,
        prob: float = 1.0,
        config_str: str = "rand-m9-mstd0.5-inc1",
        interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic",
        img_size: int | list[int] = 224,
        mean: list[float] | None = None,
    ) -> None:
        self.prob = check_share("TimmAutoAugment.prob", prob)
        self.settings = parse(config_str)
        if interpolation not in (*RESAMPLE, "random"):
            raise ConfigError(
                f"expected one of {', '.join(RESAMPLE)}, random, got {interpolation!r}",
                path="TimmAutoAugment.interpolation",
            )
        fill = check_fill("TimmAutoAugment", "mean", [255 * share for share in mean or IMAGENET_MEAN])
        names = ("bilinear", "bicubic") if interpolation == "random" else (interpolation,)
        self.canvases = [Canvas(fill, RESAMPLE[name]) for name in names]

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the image, or a changed one of the same shape."""
        picture = to_picture(image, "TimmAutoAugment")
        if rng.random() >= self.prob:
            return image
        for place in rng.integers(len(TIMM_CHANGES), size=self.settings.number):
            if rng.random() < _EACH:
                name = TIMM_CHANGES[place]
                sign = 1 if rng.integers(2) else -1
                argument = timm_argument(name, self.strength(rng), sign, self.settings.increasing)
                canvas = self.canvases[int(rng.integers(len(self.canvases)))]
                picture = CHANGES[name](picture, argument, canvas)
        return to_array(picture)

    def strength(self, rng: np.random.Generator) -> float:
        """Draw a strength, 0 to 1."""
        deviation = self.settings.deviation
        magnitude = self.settings.magnitude + (deviation * rng.standard_normal() if deviation else 0.0)
        return min(max(magnitude, 0.0), float(LARGEST)) / LARGEST
