"""Changes of an image that depend on one number, made with Pillow; augmentation policies combine them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ppcls.data.transforms.arrays import check_image, with_channels
from ppcls.errors import ConfigError, DataError

RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Canvas:
    """Settings of geometric changes.

    Attributes:
        fill: colour (red, green, blue) of pixels outside the original image.
        resample: resampling filter of Pillow.
    """

    fill: tuple[int, ...] = (128, 128, 128)
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def colour(self, picture: Image.Image) -> int | tuple[int, ...]:
        """Return `fill` in the mode of the picture; gray pictures get its mean."""
        return self.fill if picture.mode == "RGB" else round(sum(self.fill) / len(self.fill))


def _affine(picture: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    """Return the picture whose pixel (x, y) is the one at ``(a x + b y + c, d x + e y + f)`` of `picture`."""
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix,
        resample=canvas.resample,
        fillcolor=canvas.colour(picture),
    )


def _shear_x(picture: Image.Image, slope: float, canvas: Canvas) -> Image.Image:
    return _affine(picture, (1, slope, 0, 0, 1, 0), canvas)


def _shear_y(picture: Image.Image, slope: float, canvas: Canvas) -> Image.Image:
    return _affine(picture, (1, 0, 0, slope, 1, 0), canvas)


def _translate_x(picture: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(picture, (1, 0, share * picture.width, 0, 1, 0), canvas)


def _translate_y(picture: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(picture, (1, 0, 0, 0, 1, share * picture.height), canvas)


def _rotate(picture: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    return picture.rotate(degrees, resample=canvas.resample, fillcolor=canvas.colour(picture))


def _posterize(picture: Image.Image, bits: float, canvas: Canvas) -> Image.Image:
    # With no bits the picture would be black, and Pillow does not allow that.
    return picture if bits >= 8 else ImageOps.posterize(picture, max(int(bits), 1))


def _solarize(picture: Image.Image, threshold: float, canvas: Canvas) -> Image.Image:
    return ImageOps.solarize(picture, int(threshold))


def _solarize_add(picture: Image.Image, levels: float, canvas: Canvas) -> Image.Image:
    table = [min(level + int(levels), 255) if level < 128 else level for level in range(256)]
    return picture.point(table * len(picture.getbands()))


def _enhance(kind: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float, Canvas], Image.Image]:
    return lambda picture, factor, canvas: kind(picture).enhance(factor)


# Each function takes a picture, a number and a canvas. The number is a slope, a share of the side, degrees,
# the number of bits to keep, the level from which pixels are inverted, levels added to dark pixels, or a
# factor (1 changes nothing). The last three ignore the number.
CHANGES: dict[str, Callable[[Image.Image, float, Canvas], Image.Image]] = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "AutoContrast": lambda picture, _, canvas: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, _, canvas: ImageOps.equalize(picture),
    "Invert": lambda picture, _, canvas: ImageOps.invert(picture),
}


def to_picture(image: Any, op: str) -> Image.Image:
    """Return an 8-bit image [H, W, C] with 1 or 3 channels as a picture of Pillow.

    Raises:
        DataError: naming the transform `op` that cannot work on it.
    """
    image = check_image(image, op)
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        raise DataError(
            f"{op}: expected 8-bit pixels with 1 or 3 channels, got {image.dtype} with {image.shape[2]}; "
            "it belongs before NormalizeImage"
        )
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))


def to_array(picture: Image.Image) -> np.ndarray:
    """Return a picture as uint8 [H, W, C]."""
    return with_channels(np.asarray(picture))


def check_fill(op: str, option: str, fill: Sequence[float]) -> tuple[int, ...]:
    """Return a colour as three levels.

    Raises:
        ConfigError: for another number of them, or levels outside 0..255.
    """
    if len(fill) != 3 or not all(0 <= level <= 255 for level in fill):
        raise ConfigError(f"expected levels of red, green and blue, got {list(fill)}", path=f"{op}.{option}")
    return tuple(round(level) for level in fill)
