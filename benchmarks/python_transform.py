"""A transform in pure Python for loader_processes.py, in a module that processes can import like a plugin."""

from __future__ import annotations

import numpy as np

from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class SlowScratch:
    """Draws a random walk on an image, one pixel after the other: a plugin that nobody made fast."""

    def __init__(self, points: int = 1000) -> None:
        self.points = points

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a copy of the image [H, W, C] with the walk in white."""
        rows = bytearray(image.tobytes())
        height, width, channels = image.shape
        place = int(rng.integers(height * width))
        for _ in range(self.points):
            place = (place * 1_103_515_245 + 12_345) % (height * width)
            rows[place * channels] = 255
        return np.frombuffer(bytes(rows), np.uint8).reshape(image.shape)
