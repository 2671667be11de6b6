"""Normalisation and the order of axes."""

from __future__ import annotations

import threading
from typing import Any, Literal

import cv2
import numpy as np

from ppcls.config.arithmetic import evaluate
from ppcls.data.transforms.arrays import with_channels
from ppcls.data.transforms.base import Transform
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS

_MOST_CHANNELS = 64
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@TRANSFORMS.register()
class NormalizeImage(Transform):
    """Return ``(image * scale - mean) / std`` for each channel, as float32.

    An 8-bit image has 256 values per channel. The result for each is computed once, in float64, and then
    looked up: it is the float32 nearest to the exact result, in one pass over the pixels.

    Args:
        scale: a number, or arithmetic such as 1.0/255.0, with or without quotes; null means 1/255.
        mean: one value per channel, or a single one for all; null means that of ImageNet in RGB.
        std: standard deviation, in the same form as `mean`.
        order: layout of the image: ``chw`` for [C, H, W]; ``hwc`` or ``''`` for [H, W, C].
        output_fp16: return float16.
        channel_num: number of channels of the result; channels that the image does not have are zero.

    Raises:
        ConfigError: if the numbers of means and standard deviations differ, a standard deviation is not
            positive, or results do not fit float32.
    """

    def __init__(
        self,
        scale: float | str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        order: Literal["chw", "hwc", ""] | None = "chw",
        output_fp16: bool = False,
        channel_num: int | None = None,
    ) -> None:
        factor = evaluate(scale) if isinstance(scale, str) else 1 / 255 if scale is None else scale
        means = np.asarray(IMAGENET_MEAN if mean is None else mean, np.float64).reshape(-1)
        deviations = np.asarray(IMAGENET_STD if std is None else std, np.float64).reshape(-1)
        if len(means) != len(deviations) or not len(means):
            raise ConfigError(
                f"NormalizeImage: mean has {len(means)} values and std has {len(deviations)}; "
                "expected one per channel in both"
            )
        if not (deviations > 0).all():
            raise ConfigError(f"NormalizeImage: std must be positive, got {std}")
        if order not in ("chw", "hwc", "", None):
            raise ConfigError(f"NormalizeImage: order must be chw, hwc or '', got {order!r}")
        if channel_num is not None and not len(means) <= channel_num <= _MOST_CHANNELS:
            raise ConfigError(
                f"NormalizeImage: channel_num {channel_num}, expected {len(means)} (as there are means) to "
                f"{_MOST_CHANNELS}"
            )
        self.channel_first = order == "chw"
        self.channels = len(means)
        self.channel_num = channel_num
        self.dtype = np.float16 if output_fp16 else np.float32
        with np.errstate(all="ignore"):
            self._slope = (factor / deviations).astype(np.float32)
            self._offset = (-means / deviations).astype(np.float32)
            levels = np.arange(256, dtype=np.float64)[:, None] * factor
            self._table = ((levels - means) / deviations).astype(np.float32)  # [256, C]
        if not (np.isfinite(self._table).all() and np.isfinite(self._slope).all()):
            raise ConfigError("NormalizeImage: scale, mean and std must give numbers that fit float32")
        self._planes = [np.ascontiguousarray(column).reshape(1, 256) for column in self._table.T]

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the normalised image with the same order of axes."""
        return self.apply(image, self.channel_first)

    def apply(self, image: Any, channel_first: bool, out: np.ndarray | None = None) -> np.ndarray:
        """Normalise; if `channel_first`, convert an image [H, W, C] to [C, H, W].

        Args:
            image: image with the layout of `order`.
            channel_first: return [C, H, W]; an image that is [C, H, W] already stays so in any case.
            out: an array that may be used for the result, if shape and type fit.

        Raises:
            DataError: if the number of channels differs from the number of means.
        """
        image = self.check(image)
        if image.dtype == np.uint8:
            result = self._look_up(image, channel_first, out)
        else:
            shape = (-1, 1, 1) if self.channel_first else (1, 1, -1)
            result = image.astype(np.float32) * self._slope.reshape(shape) + self._offset.reshape(shape)
            if channel_first and not self.channel_first:
                result = np.ascontiguousarray(result.transpose(2, 0, 1))
        return self._finish(result, 0 if channel_first else 2)

    def check(self, image: Any) -> np.ndarray:
        """Return `image` if it can be normalised.

        Raises:
            DataError: if the number of channels differs from the number of means.
        """
        axis = 0 if self.channel_first else 2
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            raise DataError(f"NormalizeImage: expected an image with 3 axes, got {np.shape(image)}")
        count = image.shape[axis]
        other = image.shape[2 - axis]
        expected = (1, 3) if self.channels == 1 else (self.channels,)
        alike = self.channels == 1 and not self.channel_first  # then the order does not matter
        if count not in expected and other in expected and not alike:
            order, comes, other_order = (
                ("chw", "[H, W, C]", "''") if self.channel_first else ("hwc", "[C, H, W]", "chw")
            )
            raise DataError(
                f"NormalizeImage: order is {order}, but the image comes as {comes}, with the shape "
                f"{list(image.shape)}; set order: {other_order}"
            )
        if self.channels not in (1, count):
            raise DataError(
                f"NormalizeImage: {self.channels} means for an image with {count} channels "
                f"(shape {image.shape}, order {'chw' if self.channel_first else 'hwc'})"
            )
        return image

    def count(self, channels: int) -> int:
        """Return the number of channels of the result, for images with `channels`."""
        return max(channels, self.channel_num or 0)

    def table(self, channels: int) -> np.ndarray:
        """Return the results of all levels, [K, 256], for 8-bit images with `channels`."""
        found = np.zeros((self.count(channels), 256), self.dtype)
        for place in range(channels):
            found[place] = self._planes[place % self.channels]
        return found

    def apply_to_batch(self, levels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Normalise 8-bit images that :meth:`check` has accepted.

        Args:
            levels: uint8 [N, C, H, W].
            out: a contiguous array for the result.

        Returns:
            [N, K, H, W], with K channels, float32 or float16.
        """
        count, channels, height, width = levels.shape
        shape = count, self.count(channels), height, width
        result = np.empty(shape, self.dtype) if out is None else out
        result[:, channels:] = 0
        direct = result.dtype == np.float32
        for image, target in zip(levels, result, strict=True):
            for place in range(channels):  # OpenCV has no faster way than plane by plane
                table = self._planes[place % self.channels]
                if direct:
                    cv2.LUT(image[place], table, dst=target[place])
                else:
                    target[place] = cv2.LUT(image[place], table)
        return result

    def _look_up(self, image: np.ndarray, channel_first: bool, out: np.ndarray | None) -> np.ndarray:
        if not channel_first:
            table = self._table if self.channels == image.shape[2] else self._table.repeat(image.shape[2], 1)
            return with_channels(cv2.LUT(image, table[None]))
        planes = image if self.channel_first else split(image, _scratch(image))
        shape = planes.shape
        fits = out is not None and out.shape == shape and out.dtype == np.float32 and out.flags.c_contiguous
        result = out if out is not None and fits else np.empty(shape, np.float32)
        for place, plane in enumerate(planes):
            cv2.LUT(plane, self._planes[place % self.channels], dst=result[place])
        return result

    def _finish(self, result: np.ndarray, axis: int) -> np.ndarray:
        if self.channel_num is not None and self.channel_num > result.shape[axis]:
            extra = [(0, 0)] * 3
            extra[axis] = (0, self.channel_num - result.shape[axis])
            result = np.pad(result, extra)
        return result.astype(self.dtype, copy=False)


def split(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return an 8-bit image [H, W, C] as [C, H, W].

    Args:
        image: uint8 [H, W, C].
        out: an array for the result; it is used if its shape and type fit.
    """
    height, width, channels = image.shape
    shape = (channels, height, width)
    if out is None or out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        out = np.empty(shape, np.uint8)
    cv2.split(image, list(out))
    return out


_SCRATCH = threading.local()


def _scratch(image: np.ndarray) -> np.ndarray:
    """Return memory for the planes of an image that the next call in this thread uses again.

    New memory for each image would take longer than the splitting.
    """
    shape = (image.shape[2], *image.shape[:2])
    planes: np.ndarray | None = getattr(_SCRATCH, "planes", None)
    if planes is None or planes.shape != shape:
        planes = _SCRATCH.planes = np.empty(shape, np.uint8)
    return planes


@TRANSFORMS.register()
class ToCHWImage(Transform):
    """Convert [H, W, C] to [C, H, W], the layout for networks."""

    channel_first = True

    def __call__(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return a view of the image as [C, H, W]."""
        if not isinstance(image, np.ndarray) or image.ndim != 3:
            raise DataError(f"ToCHWImage: expected an image with 3 axes, got {np.shape(image)}")
        return image.transpose(2, 0, 1)
