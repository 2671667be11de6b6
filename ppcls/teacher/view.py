"""Where the positions of one view of a store are: arrays, because a store may have millions of runs."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Piece:
    """Consecutive positions of a view, stored in a shard from `row` on.

    Attributes:
        position: the first one.
        count: how many they are.
        shard: number of the shard.
        row: row of the first one in the shard.
    """

    position: int
    count: int
    shard: int
    row: int


class View:
    """The pieces of a view in the order of their positions. They do not overlap."""

    def __init__(self) -> None:
        # position, count, shard and row of each piece
        self._columns: tuple[np.ndarray, ...] = (np.empty(0, np.int64),) * 4
        self._new: list[np.ndarray] = []

    def add(self, shard: int, runs: np.ndarray) -> None:
        """Add positions that are not stored yet; two machines may have stored the same ones.

        Args:
            shard: number of the shard that has them.
            runs: first position and count of each run, int64 [N, 2], in the order of the shard's rows.
        """
        rows = np.cumsum(runs[:, 1]) - runs[:, 1]
        self._new.append(np.column_stack([runs, np.full(len(runs), shard), rows]))

    def within(self, position: int, count: int) -> Iterator[Piece]:
        """Yield the pieces of some positions in order."""
        starts, counts, shards, rows = self._sorted()
        end = position + count
        at = max(int(np.searchsorted(starts, position, "right")) - 1, 0)
        while at < len(starts) and starts[at] < end:
            start = int(starts[at])
            first = max(start, position)
            last = min(start + int(counts[at]), end)
            if first < last:
                yield Piece(first, last - first, int(shards[at]), int(rows[at]) + first - start)
            at += 1

    def missing(self, rows: int) -> list[tuple[int, int]]:
        """Return the runs of positions below `rows` that are not stored."""
        starts, counts, _, _ = self._sorted()
        begins = np.concatenate([[0], (starts + counts).clip(max=rows)])
        ends = np.concatenate([starts.clip(max=rows), [rows]])
        gaps = np.flatnonzero(ends > begins)
        return list(zip(begins[gaps].tolist(), (ends - begins)[gaps].tolist(), strict=True))

    def _sorted(self) -> tuple[np.ndarray, ...]:
        if self._new:
            table = np.concatenate([np.column_stack(self._columns), *self._new])
            self._new.clear()
            ordered = table[np.argsort(table[:, 0], kind="stable")]
            if (ordered[1:, 0] < ordered[:-1, 0] + ordered[:-1, 1]).any():
                ordered = _without_overlaps(table)
            self._columns = tuple(np.ascontiguousarray(column) for column in ordered.T)
        return self._columns


def _without_overlaps(table: np.ndarray) -> np.ndarray:
    """Return pieces in order of position; positions of several pieces belong to the first one in `table`."""
    ends = table[:, 0] + table[:, 1]
    points = np.unique(np.concatenate([table[:, 0], ends])).tolist()
    by_start = deque(np.argsort(table[:, 0], kind="stable").tolist())
    starts = table[:, 0].tolist()
    current: list[int] = []  # a heap of the pieces that have begun
    found: list[tuple[int, int]] = []  # first position, piece
    for point in points:
        while by_start and starts[by_start[0]] <= point:
            heapq.heappush(current, by_start.popleft())
        while current and ends[current[0]] <= point:
            heapq.heappop(current)
        found.append((point, current[0] if current else -1))
    pieces = []
    for (first, piece), (last, _) in zip(found, found[1:], strict=False):
        if piece >= 0:
            start, _, shard, row = table[piece].tolist()
            pieces.append((first, last - first, shard, row + first - start))
    return np.array(pieces, np.int64).reshape(-1, 4)
