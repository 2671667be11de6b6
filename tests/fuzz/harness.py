"""Try many inputs on one reader, and count what is neither an answer nor an error of ours."""

from __future__ import annotations

import random
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ppcls.errors import PpclsError

# Seconds of processor time for one input, so that a busy machine makes no hangs.
LIMIT = 5.0


class Target(Protocol):
    """What is tried.

    Attributes:
        name: as the command line and the table call it.
    """

    name: str

    def make(self, dice: random.Random) -> bytes:
        """Return one input, a function of the random numbers alone."""

    def read(self, content: bytes) -> None:
        """Let the product read an input: it may accept it, or raise a PpclsError."""


class HangError(BaseException):
    """An input took too long; no handler of ordinary exceptions may catch it."""


@dataclass
class Figures:
    """What came of the inputs.

    Attributes:
        failures: description of each input that ended in a traceback, a hang or a wrong answer.
        slowest: processor time of the slowest input, in seconds.
        peak: largest memory of the process, in MB.
        growth: how much of it came while inputs were read.
    """

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    tracebacks: int = 0
    hangs: int = 0
    slowest: float = 0.0
    peak: int = 0
    growth: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.inputs} | {self.accepted} | {self.refused} | {self.tracebacks} | "
            f"{self.hangs} | {self.slowest:.2f} s | {self.peak} MB (+{self.growth}) |"
        )


HEADER = (
    "| target | inputs | read | refused | tracebacks | hangs | slowest | peak memory |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a HangError in the block when it has used that much processor time."""

    def stop(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak_memory() -> int:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def fuzz(target: Target, inputs: int, seed: int, keep: Path | None = None, first: int = 0) -> Figures:
    """Try inputs number `first` to `first + inputs - 1` of a seed.

    Args:
        target: what reads them.
        inputs: how many.
        seed: each input is a function of it and of the input's number alone.
        keep: folder for the inputs that fail.
        first: number of the first one.
    """
    figures = Figures(target.name)
    for number in range(first, first + inputs):
        content = target.make(random.Random(f"{target.name} {seed} {number}"))
        if not number - first:
            before = peak_memory()
        figures.inputs += 1
        start, problem = time.process_time(), ""
        try:
            with time_limit(LIMIT):
                target.read(content)
            figures.accepted += 1
        except PpclsError:
            figures.refused += 1
        except HangError:
            figures.hangs += 1
            problem = f"hang\n{traceback.format_exc()}"
        except Exception:  # noqa: BLE001 - whatever comes is what is looked for
            figures.tracebacks += 1
            problem = traceback.format_exc()
        figures.slowest = max(figures.slowest, time.process_time() - start)
        if peak_memory() - before > figures.growth + 200:
            problem = f"{problem}\n{peak_memory() - before - figures.growth} MB more"
        figures.growth = max(figures.growth, peak_memory() - before)
        if problem:
            figures.failures.append(f"{target.name}, seed {seed}, input {number}: {problem}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{target.name}-{seed}-{number}").write_bytes(content)
                (keep / f"{target.name}-{seed}-{number}.txt").write_text(problem, encoding="utf-8")
    figures.peak = peak_memory()
    return figures
