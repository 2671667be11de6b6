"""The folder of a run: its checkpoints and what they hold, resuming from one, and the lock on it."""

from ppcls.engine.checkpoint.files import SUFFIXES, Checkpoint, Checkpointer, name_for_earlier_run
from ppcls.engine.checkpoint.states import Progress, StudentBest

__all__ = ["SUFFIXES", "Checkpoint", "Checkpointer", "Progress", "StudentBest", "name_for_earlier_run"]
