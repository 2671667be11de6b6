"""What runs a program, and such a thing in a process of its own.

Paddle Inference holds Python's interpreter lock while it computes, so a program that is to run beside the
training needs a process. As in :mod:`ppcls.data.processes`, the process runs only this module, not the main
program.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import numpy as np

from ppcls.errors import PpclsError, TrainingError

_START = "from ppcls.runner import serve; serve()"
_GRACE = 30.0  # seconds until the exit code of a process whose pipe is closed is there, also under load


class Runner(Protocol):
    """Runs a program.

    Attributes:
        outputs: names of its outputs, in order.
    """

    outputs: list[str]

    def run(self, batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """Run a batch [N, C, H, W], float32; return the named outputs."""


class RunnerProcess:
    """Runs a program in a process of its own. One thread at a time may use it.

    Attributes:
        outputs: names of its outputs, in order.

    Args:
        open_runner: opens the program; it is sent to the process with pickle.
        title: whose program it is, for messages.
        threads: CPU threads of the process.

    Raises:
        PpclsError: if the program cannot be opened there.
        TrainingError: if the process ends before.
        OSError: if it cannot be started.
    """

    def __init__(self, open_runner: Callable[[], Runner], title: str, threads: int) -> None:
        self._title = title
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            env=with_these_modules(os.environ) | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only the training, which ends this process
        )
        with ExitStack() as undo:
            undo.callback(self.close)
            self.outputs: list[str] = self._ask(open_runner)
            undo.pop_all()

    def run(self, batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """Run a batch [N, C, H, W], float32; return the named outputs.

        Raises:
            PpclsError: if the program cannot run the batch.
            TrainingError: if the process has ended.
        """
        found: list[np.ndarray] = self._ask((batch, list(outputs)))
        return found

    def _ask(self, question: Any) -> Any:
        process = self._process
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("both are pipes")
        try:
            pickle.dump(question, stdin, protocol=pickle.HIGHEST_PROTOCOL)
            stdin.flush()
            answer = pickle.load(stdout)  # noqa: S301 - from a process of ours
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # closed, or cut off
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            raise TrainingError(
                f"the process that computes the outputs of {self._title} ended (exit code "
                f"{process.returncode}). -9 mostly means that memory ran out; 1 that the error above ended "
                "it. Global.teacher_ahead: False computes them without this process"
            ) from None
        if isinstance(answer, PpclsError):
            raise answer
        return answer

    def close(self) -> None:
        """Kill the process; no work can be lost."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # data that was not sent yet
                    stream.close()


def with_these_modules(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a process of Python that finds the modules of this one, and no others."""
    # Not those of the folder that it is started in.
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}


def serve() -> None:
    """Run a program for the process that started this one, until that closes the pipe or ends."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # the process that started this one reacts, and ends it
        signal.signal(signum, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print
    questions = sys.stdin.buffer
    runner: Runner | None = None
    while True:
        try:
            question = pickle.load(questions)  # noqa: S301 - from the process that started this one
        except EOFError:
            return
        answer: Any
        try:
            if runner is None:
                runner = question()
                answer = runner.outputs
            else:
                answer = runner.run(*question)
        except PpclsError as error:
            answer = error
        try:
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:  # the training ended meanwhile
            return
