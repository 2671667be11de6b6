"""A loss that adds nothing, until the step at which something has to go wrong.

The environment variable PPCLS_TEST_FAULT says what, in which process (``*``: in all) and in which step of
this process, counted from 1: ``kill:1:5``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from paddle import Tensor, nn

from ppcls.distributed import rank
from ppcls.registry import LOSSES


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _signal_parent(generations: int, signum: int) -> None:
    process = os.getpid()
    for _ in range(generations):
        process = _parent(process)
    os.kill(process, signum)
    time.sleep(2)


@LOSSES.register()
class Fault(nn.Layer):
    """0, or a fault."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def forward(self, logits: Tensor, label: Tensor | None = None) -> Tensor:
        """Return 0 with a gradient, or do what PPCLS_TEST_FAULT says."""
        self.step += self.training
        kind, who, step = os.environ.get("PPCLS_TEST_FAULT", "none:*:0").split(":")
        value = (logits * 0).sum()
        if not self.training or self.step != int(step) or who not in ("*", str(rank())):
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
