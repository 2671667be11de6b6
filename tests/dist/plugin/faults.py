"""A loss that adds nothing, until the step at which something has to go wrong.

The environment variable PPCLS_TEST_FAULT says what, in which process (``*``: in all) and in which step of
this process, counted from 1: ``kill:1:5``. ``term-eval:1:6`` asks the run to stop in
the sixth batch that is evaluated, which is after the trials. ``slow:1:0`` is a process that is late in every
evaluation, and a first checkpoint that takes long.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from paddle import Tensor, nn

from ppcls.distributed import rank
from ppcls.engine.checkpoint import Checkpointer
from ppcls.registry import LOSSES

LONG = 33  # seconds: more than gloo waits
KIND, WHO, STEP = os.environ.get("PPCLS_TEST_FAULT", "none:*:0").split(":")


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _signal_parent(generations: int, signum: int) -> None:
    process = os.getpid()
    for _ in range(generations):
        process = _parent(process)
    os.kill(process, signum)
    time.sleep(2)


def _save_slowly() -> None:
    """Let process 0 take long for its first checkpoint."""
    save, done = Checkpointer.save, []

    def slow(self: Checkpointer, *args: Any, **kwargs: Any) -> None:
        if not done:
            time.sleep(LONG)
        done.append(save(self, *args, **kwargs))

    Checkpointer.save = slow


if KIND == "slow":
    _save_slowly()


@LOSSES.register()
class Fault(nn.Layer):
    """0, or a fault."""

    def __init__(self) -> None:
        super().__init__()
        self.step = self.evaluated = 0

    def forward(self, logits: Tensor, label: Tensor | None = None) -> Tensor:
        """Return 0 with a gradient, or do what PPCLS_TEST_FAULT says."""
        self.step += self.training
        kind = KIND
        value = (logits * 0).sum()
        if kind == "slow" and str(rank()) == WHO and not self.training:
            time.sleep(LONG)
        self.evaluated += not self.training
        if kind == "term-eval" and self.evaluated == int(STEP) and str(rank()) == WHO:
            Path(os.environ["PPCLS_TEST_FAULT_TIME"]).write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGTERM)
        if not self.training or self.step != int(STEP) or WHO not in ("*", str(rank())):
            return value
        Path(os.environ["PPCLS_TEST_FAULT_TIME"]).write_text(str(time.time()))
        if kind == "raise":
            raise ValueError("something of the user's own went wrong")
        if kind == "exit":
            sys.exit(3)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "term-launcher":
            _signal_parent(1, signal.SIGTERM)
        if kind in ("term", "int"):
            _signal_parent(2, signal.SIGTERM if kind == "term" else signal.SIGINT)
        return value * float("nan") if kind == "nan" else value
