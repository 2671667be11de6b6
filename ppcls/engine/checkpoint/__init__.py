"""The folder of a run: its checkpoints and their content, resuming, and the lock."""

from ppcls.engine.checkpoint.files import (
    SUFFIXES,
    Checkpoint,
    Checkpointer,
    explained,
    name_for_earlier_run,
)
from ppcls.run_states import Progress, StudentBest

__all__ = [
    "SUFFIXES",
    "Checkpoint",
    "Checkpointer",
    "Progress",
    "StudentBest",
    "explained",
    "name_for_earlier_run",
]
