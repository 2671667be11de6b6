"""How many threads Paddle uses for computing on the CPU.

By default Paddle uses one thread and sets ``OMP_NUM_THREADS=1`` in the environment. The user's choice has to
be read before that: `import ppcls` reads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

VARIABLE = "OMP_NUM_THREADS"
# Set in processes that `ppcls train --nproc` starts, because Paddle's launcher sets `OMP_NUM_THREADS` there.
NOT_CHOSEN = "PPCLS_THREADS_NOT_CHOSEN"


def read_choice(environment: Mapping[str, str]) -> int | None:
    """Return the user's number of threads in ``OMP_NUM_THREADS``; None if there is no choice."""
    if NOT_CHOSEN in environment:
        return None
    # OpenMP accepts a list with one number per level.
    text = environment.get(VARIABLE, "").partition(",")[0].strip()
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 2**31 else None


def find_mistake(environment: Mapping[str, str]) -> str | None:
    """Return a message if ``OMP_NUM_THREADS`` is set but not to a number of threads, else None."""
    text = environment.get(VARIABLE, "").strip()
    if not text or NOT_CHOSEN in environment or read_choice(environment) is not None:
        return None
    return f"{VARIABLE}={text}: expected a whole number above 0; ppcls chooses the number of threads"


CHOSEN = read_choice(os.environ)
MISTAKE = find_mistake(os.environ)


def threads_in_use() -> int:
    """Return how many threads Paddle uses, or will use when it is imported."""
    return read_choice({VARIABLE: os.environ.get(VARIABLE, "")}) or 1


def threads_for_teachers(threads: int) -> int:
    """Return how many of the threads of a process frozen networks get that run beside the training.

    A third, because forward and backward pass take about three times as long as a forward pass alone.

    Args:
        threads: threads of the process, as :func:`suggest_threads` returns them.

    Returns:
        0 if there is only one.
    """
    return max(1, threads // 3) if threads > 1 else 0


def suggest_threads(cores: int, processes: int = 1, loader_threads: int = 0) -> int:
    """Return how many threads a process should compute with.

    Each process gets its share of the cores. Threads that load images get separate cores, but always less
    than half of the share, because they mostly wait.

    Args:
        cores: number of cores that all processes may use together.
        processes: number of processes of the training on this machine.
        loader_threads: number of threads with which each process loads images.
    """
    share = max(1, cores // max(1, processes))
    return min(share, max(share - loader_threads, share // 2 + 1))
