"""Arrays of batches that nobody holds any more are filled again.

A new array of many megabytes may cost a page fault for every 4 KB, an eighth of the time of its images.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import numpy as np


class Recycler:
    """Hands out arrays, and hands one out again when nothing refers to it any more, no view of it either."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an array with any content."""
        with self._lock:
            places = range(len(self._arrays))
            free = [place for place in places if _holders(self._arrays, place) == _NOBODY]
            for place in free:
                array = self._arrays[place]
                if array.shape == shape and array.dtype == dtype:
                    return array
            for place in reversed(free):  # of other shapes
                del self._arrays[place]
            new = np.empty(shape, dtype)
            self._arrays.append(new)
            return new

    def clear(self) -> None:
        """Forget all arrays; each is freed when its last holder lets it go."""
        with self._lock:
            self._arrays = []


def _holders(arrays: Sequence[np.ndarray], place: int) -> int:
    """Return the references to an array; a view holds one of the array that owns its memory."""
    return sys.getrefcount(arrays[place])


# What `_holders` counts of an array that only the list holds; it depends on the version of Python.
_NOBODY = _holders([np.empty(0)], 0)
