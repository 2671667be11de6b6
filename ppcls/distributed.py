"""The only place that asks which process this is."""

from __future__ import annotations

import os


def rank() -> int:
    """Return the index of this process, 0 when there is one."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """Return the number of training processes."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def is_main() -> bool:
    """Tell whether this process writes files and prints: rank 0."""
    return rank() == 0
