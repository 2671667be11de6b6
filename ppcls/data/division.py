"""The batches of a run that continues with another number of processes.

A run keeps the batches that it was started with, so that every step uses the same images as before. If it now
has fewer processes, each of them takes the batches of several in turn and accumulates their gradients. If it
has more, the batches of each former process are cut into equal parts, or processes share the batches that
were accumulated for one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ppcls.data.sampler import Draws


@dataclass(frozen=True)
class Part:
    """One part of a batch that a process of the former run had.

    Attributes:
        batch: number of the batch in the epoch, from 0.
        process: the former process.
        number: which part it is, from 0.
        parts: number of parts of the batch.
    """

    batch: int
    process: int
    number: int
    parts: int

    @property
    def stream(self) -> int:
        """The number of the part among those of all processes at the same batch."""
        return self.process * self.parts + self.number

    def rows(self, size: int) -> tuple[int, int]:
        """Return first row and number of rows of the part of a batch of `size` rows.

        All parts are equally large. If a last, smaller batch cannot be divided, the last parts overlap.
        """
        length = -(-size // self.parts)
        return min(self.number * length, size - length), length

    def of(self, draws: Draws) -> Draws:
        """Return the part of a batch."""
        first, length = self.rows(len(draws.index))
        rows = slice(first, first + length)
        return Draws(draws.index[rows], draws.repeat[rows], draws.size)


@dataclass(frozen=True)
class Division:
    """The batches of a run that had other processes, divided among those of now.

    Attributes:
        former: number of processes whose batches are divided.
        processes: number of processes now.
        together: number of consecutive batches that are divided together; their gradients were accumulated
            for one step.
        batches: number of batches of a former process in an epoch.
    """

    former: int
    processes: int
    together: int
    batches: int

    @property
    def parts(self) -> int:
        """In how many parts each batch of a former process is cut."""
        return self.processes // math.gcd(self.processes, self.former * self.together)

    @property
    def turns(self) -> int:
        """How many parts each process takes, one after another, from `together` batches."""
        return self.former * self.together // math.gcd(self.processes, self.former * self.together)

    def __len__(self) -> int:
        """Return the number of parts that each process takes in an epoch."""
        return self.batches // self.together * self.turns

    def part(self, rank: int, number: int) -> Part:
        """Return the part that process `rank` takes as its batch `number` of an epoch."""
        group, turn = divmod(number, self.turns)
        place, part = divmod(rank * self.turns + turn, self.parts)
        batch, process = divmod(place, self.former)
        return Part(group * self.together + batch, process, part, self.parts)

    def former_processes(self, rank: int) -> set[int]:
        """Return the former processes whose batches process `rank` needs."""
        return {self.part(rank, number).process for number in range(self.turns)}

    def plan(self, rank: int, batches: Mapping[int, Sequence[Draws]]) -> list[Draws]:
        """Return the batches of an epoch of process `rank`.

        Args:
            rank: index of the process.
            batches: those of the :meth:`former_processes`, by process.
        """
        parts = [self.part(rank, number) for number in range(len(self))]
        return [part.of(batches[part.process][part.batch]) for part in parts]

    def numbered(self, batch: int) -> int:
        """Return how many batches of now stand for the first `batch` batches of a former process."""
        return batch // self.together * self.turns

    def former_batch(self, number: int) -> int:
        """Return the opposite of :meth:`numbered`."""
        return number // self.turns * self.together

    def accumulated(self, update_freq: int) -> int:
        """Return how many batches of now make a step that took `update_freq` batches before."""
        return update_freq // self.together * self.turns


def divide(
    former: int, processes: int, update_freq: int, sizes: Sequence[int], *, all_whole: bool = False
) -> Division | None:
    """Divide batches among processes such that every step stays the same.

    Batches are cut into as few parts as possible, because a part is what BatchNorm sees. Processes always
    work on equally large parts at the same time, because losses may exchange features of a batch.

    Args:
        former: number of processes whose batches are divided.
        processes: number of processes now.
        update_freq: number of batches for one step.
        sizes: size of each batch of a former process in an epoch.
        all_whole: the last batch must be divisible, too; otherwise its parts may overlap.

    Returns:
        None if there is no equal division.
    """
    batches = len(sizes)
    groups = [n for n in range(1, update_freq + 1) if update_freq % n == 0 and batches % n == 0]
    if len(set(sizes)) > 1:
        groups = [1]
    cut = set(sizes if all_whole or batches == 1 else sizes[:-1])
    found = [Division(former, processes, together, batches) for together in groups]
    fitting = [one for one in found if not any(size % one.parts for size in cut)]
    return min(fitting, key=lambda one: one.parts, default=None)
