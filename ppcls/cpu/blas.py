"""Fast matrix products of Paddle on AMD processors.

Paddle's wheel contains its own library for products, ``libmklml_intel.so``, an MKL of 2019. On a processor
that is not from Intel it uses its slowest code, at a quarter of the possible speed, unless the variable
``MKL_DEBUG_CPU_TYPE`` selects faster code. It reads that variable only once, before its first product.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from ppcls.cpu.processor import read_processor
from ppcls.cpu.switches import BLAS, is_off

VARIABLE = "MKL_DEBUG_CPU_TYPE"
_LIBRARY = "libs/libmklml_intel.so"
# The instructions that each value of the variable needs; without them the process would crash. Fastest first.
_NEEDED_FLAGS = {"7": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "5": {"avx2", "fma"}}


def choose_blas(processor: Mapping[str, str]) -> str | None:
    """Return the value of ``MKL_DEBUG_CPU_TYPE`` that makes products fast; None if the default is the best.

    Args:
        processor: the processor as described by ``/proc/cpuinfo``.
    """
    if processor.get("vendor_id") != "AuthenticAMD":
        return None
    flags = set(processor.get("flags", "").split())
    return next((value for value, needed in _NEEDED_FLAGS.items() if needed <= flags), None)


def fast_blas(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Select the fast code of Paddle's products, if there is one and the user has not chosen.

    Args:
        environment: environment variables of this process.

    Returns:
        The value that was set; None if nothing had to be set.
    """
    if VARIABLE in environment or is_off(BLAS, environment):
        return None
    value = choose_blas(read_processor())
    if value is None or not _has_old_library():
        return None
    environment[VARIABLE] = value
    return value


def _has_old_library() -> bool:
    """Tell whether the installed Paddle contains the old library, without importing Paddle."""
    try:
        found = importlib.util.find_spec("paddle")
    except ValueError:  # a stand-in without a specification
        return False
    places = (found.submodule_search_locations or ()) if found is not None else ()
    return any((Path(place) / _LIBRARY).is_file() for place in places)
