"""Finding near-duplicates with a perceptual hash, which re-encoding, resizing or brightening hardly changes.

The hash says which low frequencies of the discrete cosine transform are above their median (pHash, Zauner
2010). It has 16 x 16 of them instead of the usual 8 x 8: with 64 bits, different small images collide.
"""

from __future__ import annotations

import cv2
import numpy as np

from ppcls.data.transforms.decode import DecodeImage

_SIDE = 64
_FREQUENCIES = 16
BITS = _FREQUENCIES**2 - 1
_decode = DecodeImage(channels=1)
_unused = np.random.default_rng(0)


def perceptual_hash(image: bytes | np.ndarray) -> np.ndarray:
    """Return the hash, int8 [BITS] of -1 and 1.

    Args:
        image: content of a file, or uint8 [H, W, C] with 3 channels or 1.

    Raises:
        ImageError: if the content cannot be decoded.
    """
    pixels = image if isinstance(image, np.ndarray) and image.ndim == 3 else _decode(image, _unused)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.shape[2] == 3 else pixels[:, :, 0]
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low: np.ndarray = cv2.dct(small)[:_FREQUENCIES, :_FREQUENCIES].ravel()[1:]  # without the mean brightness
    return np.where(low > np.median(low), 1, -1).astype(np.int8)


class HashIndex:
    """A set of hashes in which to find the nearest to other hashes.

    Args:
        hashes: int8 [M, BITS].
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes.astype(np.float32)

    def nearest(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distance of each of `hashes` [N, BITS] to the nearest, and its index, both int64 [N]."""
        # A product of signs is 1 where they agree: one matrix product instead of counting bits.
        agreement = hashes.astype(np.float32) @ self._hashes.T
        which = agreement.argmax(axis=1)
        best = agreement[np.arange(len(which)), which]
        return ((BITS - best) / 2).astype(np.int64), which
