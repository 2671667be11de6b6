"""Let the C library keep freed memory instead of returning it to the system after each use."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

from ppcls.cpu.switches import MALLOC, is_off

# The names of these numbers in malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_BYTES = (256 * 2**20, 32 * 2**20)  # the second for older versions, which refuse more than 32 MB
_USER_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let buffers of up to 256 MB stay with the process when they are freed (glibc only).

    By default glibc gets large buffers from the system and returns them at once. The system fills each new
    buffer with zeros, page by page, which costs as much as decoding an image into it.

    Args:
        environment: environment variables of this process. Nothing is changed with ``PPCLS_MALLOC=off``, or
            if the user has set a threshold, in ``MALLOC_MMAP_THRESHOLD_`` and so on or in ``GLIBC_TUNABLES``.

    Returns:
        Whether freed memory is kept now.
    """
    chosen = any(name in environment for name in _USER_VARIABLES)
    chosen = chosen or "malloc" in environment.get("GLIBC_TUNABLES", "")
    if chosen or is_off(MALLOC, environment) or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    # Other C libraries, such as musl, have no such thresholds.
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    limits = (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
    return all(any(library.mallopt(limit, size) for size in _BYTES) for limit in limits)
