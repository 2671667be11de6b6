"""The fast way of Paddle's matrix products on AMD processors.

Paddle's wheel brings its own library for products, ``libmklml_intel.so``, an MKL of 2019. On a processor that
is not Intel's it takes its slowest way, a quarter of what the processor can do, unless ``MKL_DEBUG_CPU_TYPE``
names a better one. It reads that variable before its first product, and never again.
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
# What each way needs of the processor: without it the process would crash. The best one first.
_WAYS = {"7": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "5": {"avx2", "fma"}}


def choose_blas(processor: Mapping[str, str]) -> str | None:
    """Return the value of ``MKL_DEBUG_CPU_TYPE`` that makes products fast; None if the default is the best.

    Args:
        processor: what ``/proc/cpuinfo`` says of it.
    """
    if processor.get("vendor_id") != "AuthenticAMD":
        return None
    flags = set(processor.get("flags", "").split())
    return next((way for way, needed in _WAYS.items() if needed <= flags), None)


def fast_blas(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Let Paddle's products take the fast way, if there is one and the user has not chosen.

    Args:
        environment: of this process.

    Returns:
        the value that was set; None if nothing had to be set.
    """
    if VARIABLE in environment or is_off(BLAS, environment):
        return None
    way = choose_blas(read_processor())
    if way is None or not _library_is_there():
        return None
    environment[VARIABLE] = way
    return way


def _library_is_there() -> bool:
    """Tell whether the Paddle that would be imported brings the old library; Paddle is not imported."""
    try:
        found = importlib.util.find_spec("paddle")
    except ValueError:  # a stand-in without a specification
        return False
    places = (found.submodule_search_locations or ()) if found is not None else ()
    return any((Path(place) / _LIBRARY).is_file() for place in places)
