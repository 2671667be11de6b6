"""The same augmented view for networks that were trained with different preprocessing.

A network of a DistillationModel may give the `mean`, `std` and `input_size` of its training. The images of
the batch, which are normalised for the whole run, are then converted to the form of its own preprocessing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.config.nodes import Node
from ppcls.errors import ConfigError

OPTIONS = ("mean", "std", "input_size")


class InputAdapter:
    """A forward pre-hook: normalise again, then resize.

    It is attached to the network itself, so it runs whenever the network runs (training, a metric, export),
    and the parameters keep their names.

    Args:
        mean: the network's own mean per channel (or one for all), in the units of the recipe's NormalizeImage
            after its `scale`: for pixels of 0 to 1 if that is 1/255.
        std: the network's own standard deviation, in the same form; only together with `mean`.
        input_size: side length, or [height, width]. Bilinear with half-pixel centres, antialiased if the
            image becomes smaller, like Pillow's BILINEAR.

    Raises:
        ConfigError: for values that do not fit.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int | Sequence[int] | None = None,
    ) -> None:
        if (mean is None) != (std is None):
            given, missing = ("std", "mean") if mean is None else ("mean", "std")
            raise ConfigError(f"{given} is given without {missing}; a network's own normalisation needs both")
        self.mean = _numbers("mean", mean)
        self.std = _numbers("std", std)
        if mean is not None and len(self.mean) != len(self.std):
            raise ConfigError(f"mean has {len(self.mean)} values and std has {len(self.std)}")
        if not (self.std > 0).all():
            raise ConfigError(f"std must be positive, got {std}")
        self.size = _size(input_size)
        self.normalises = mean is not None
        self._affine: tuple[np.ndarray, np.ndarray] | None = None

    def connect(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set how the images of the batch are normalised: ``(pixel * scale - mean) / std``."""
        given = _numbers("mean", mean)
        spread = _numbers("std", std)
        slope = spread / self.std
        offset = (given - self.mean) / self.std
        slope, offset = np.broadcast_arrays(slope, offset)
        self._affine = (_column(slope), _column(offset))

    def __call__(self, layer: nn.Layer, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """Adapt the input of the network, as a forward pre-hook."""
        return (self.adapt(inputs[0]),)

    def adapt(self, x: Tensor) -> Tensor:
        """Convert images [N, C, H, W] to the form of the network's own preprocessing.

        Raises:
            ConfigError: if it normalises but :meth:`connect` was not called.
        """
        if self.normalises:
            if self._affine is None:
                raise ConfigError(
                    "a network has its own mean and std, but how its images are normalised is not known; "
                    "build_model(config, normalize={'mean': [...], 'std': [...]})"
                )
            slope, offset = (paddle.to_tensor(values) for values in self._affine)
            x = x.astype("float32") * slope + offset
        return x if self.size is None else _resize(x, self.size)


def take_adapter(node: Node, where: str) -> InputAdapter | None:
    """Remove the input options from the node of a network and return an adapter for them.

    Raises:
        ConfigError: for values that do not fit; the message begins with `where`.
    """
    given = {key: node.pop(key) for key in OPTIONS if key in node}
    if all(value is None for value in given.values()):
        return None
    try:
        return InputAdapter(**given)
    except ConfigError as error:
        raise error.below(where) from None


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    # Two matrix products: F.interpolate can antialias too, but not in its legacy export.
    height, width = x.shape[2:]
    if height != size[0]:
        x = paddle.to_tensor(triangle_filter(height, size[0])) @ x
    if width != size[1]:
        x = x @ paddle.to_tensor(np.ascontiguousarray(triangle_filter(width, size[1]).T))
    return x


@functools.lru_cache
def triangle_filter(source: int, target: int) -> np.ndarray:
    """Return the matrix [target, source] that resizes an axis bilinearly, with antialiasing."""
    scale = source / target
    centers = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source) + 0.5 - centers[:, None]) / max(scale, 1.0)
    weights = np.maximum(1.0 - distance, 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _numbers(option: str, values: Sequence[float] | None) -> np.ndarray:
    numbers = np.asarray([1.0] if values is None else values, np.float64).reshape(-1)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ConfigError(f"{option}: expected one number per channel, got {values}")
    return numbers


def _column(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).reshape(1, -1, 1, 1)


def _size(value: int | Sequence[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = [value, value] if isinstance(value, int) else list(value)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    if len(sides) != 2 or not whole or isinstance(value, bool):
        raise ConfigError(f"input_size: expected a side length or [height, width], got {value!r}")
    return sides[0], sides[1]
