"""How many threads Paddle computes with on the CPU.

By itself Paddle takes one, and writes ``OMP_NUM_THREADS=1`` into its environment. What the user chose has to
be read before that: `import ppcls` does it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

VARIABLE = "OMP_NUM_THREADS"
# Set for processes that `ppcls train --nproc` starts: `OMP_NUM_THREADS` there comes from Paddle's launcher.
NOT_CHOSEN = "PPCLS_THREADS_NOT_CHOSEN"


def read_choice(environment: Mapping[str, str]) -> int | None:
    """Return the number of threads that the user chose by ``OMP_NUM_THREADS``; None if there is no choice."""
    if NOT_CHOSEN in environment:
        return None
    text = (
        environment.get(VARIABLE, "").partition(",")[0].strip()
    )  # OpenMP takes a list, one number per level
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 2**31 else None


CHOSEN = read_choice(os.environ)


def threads_in_use() -> int:
    """Return how many threads Paddle uses, or will use when it is imported."""
    return read_choice({VARIABLE: os.environ.get(VARIABLE, "")}) or 1


def suggest_threads(cores: int, processes: int = 1, loader_threads: int = 0) -> int:
    """Return how many threads a process should compute with.

    Each process gets its share of the cores. Threads that load images get cores of their own, but never as
    many as half of the share: they mostly wait.

    Args:
        cores: that all processes together may use.
        processes: of the training on this machine.
        loader_threads: that each process loads images with.
    """
    share = max(1, cores // max(1, processes))
    return min(share, max(share - loader_threads, share // 2 + 1))
