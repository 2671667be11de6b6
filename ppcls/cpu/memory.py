"""Memory that the C library keeps instead of giving it back to the system after each use."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

from ppcls.cpu.switches import MALLOC, is_off

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of these numbers in malloc.h
_BYTES = (256 * 2**20, 32 * 2**20)  # older versions refuse more than 32 MB
_GIVEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let buffers of up to 256 MB stay with the process when they are freed (glibc only).

    By default glibc asks the system for large buffers and gives them back at once. The system fills each with
    zeros again, page by page, which costs as much as decoding an image into it.

    Args:
        environment: of this process. ``PPCLS_MALLOC=off`` leaves everything as it is, and so does a threshold
            that the user has set, in ``MALLOC_MMAP_THRESHOLD_`` and so on or in ``GLIBC_TUNABLES``.

    Returns:
        whether it is so now.
    """
    chosen = any(name in environment for name in _GIVEN) or "malloc" in environment.get("GLIBC_TUNABLES", "")
    if chosen or is_off(MALLOC, environment) or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl, for one, has no such thresholds
        return False
    limits = (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
    return all(any(library.mallopt(limit, size) for size in _BYTES) for limit in limits)
