"""Averages that leave values on the device until somebody wants to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import paddle

from ppcls.distributed import gather, world_size
from ppcls.errors import TrainingError


@dataclass
class Meters:
    """Sample-weighted averages of named scalars over an epoch.

    :meth:`add` only keeps references to device scalars; :meth:`flush` moves all of them to the host in one
    transfer. Sums are float64, so that long epochs do not lose digits.
    """

    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    _pending: list[dict[str, tuple[paddle.Tensor, int]]] = field(default_factory=list, repr=False)

    def add(
        self, values: Mapping[str, paddle.Tensor], samples: int, others: Mapping[str, int] | None = None
    ) -> None:
        """Remember the scalars of one batch.

        Args:
            values: scalars by name.
            samples: what each counts.
            others: what some of them count instead.
        """
        others = others or {}
        self._pending.append({k: (v.detach(), others.get(k, samples)) for k, v in values.items()})

    def __len__(self) -> int:
        """Number of batches that are not flushed yet."""
        return len(self._pending)

    def flush(self) -> list[dict[str, float]]:
        """Move pending scalars to the host, add them to the sums and return them batch by batch."""
        if not self._pending:
            return []
        flat = [v.astype("float32").reshape([1]) for row in self._pending for v, _ in row.values()]
        numbers = iter(paddle.concat(flat).numpy().astype(np.float64).tolist())
        rows = []
        for pending in self._pending:
            row = {name: next(numbers) for name in pending}
            for name, value in row.items():
                samples = pending[name][1]
                self.totals[name] = self.totals.get(name, 0.0) + value * samples
                self.counts[name] = self.counts.get(name, 0.0) + samples
            rows.append(row)
        self._pending.clear()
        return rows

    def averages(self, *, everywhere: bool = False) -> dict[str, float]:
        """Return the averages of everything flushed so far, in order of first appearance.

        Args:
            everywhere: over the samples of all processes; all of them have to ask.

        Raises:
            TrainingError: if there was no sample.
        """
        states = [self.state()]
        if everywhere and world_size() > 1:
            states = gather(states[0])
        sums: dict[str, list[float]] = {}
        for state in states:
            for name, (total, count) in state.items():
                before = sums.get(name, [0.0, 0.0])
                sums[name] = [before[0] + total, before[1] + count]
        if not any(count for _, count in sums.values()):
            raise TrainingError("no sample was processed, so there is nothing to average")
        return {name: total / count for name, (total, count) in sums.items() if count}

    def reset(self) -> None:
        """Forget everything."""
        self.totals.clear()
        self.counts.clear()
        self._pending.clear()

    def state(self) -> dict[str, list[float]]:
        """Return the flushed sums and what they count, for a checkpoint."""
        return {name: [total, self.counts[name]] for name, total in self.totals.items()}

    def restore(self, state: Mapping[str, list[float]]) -> None:
        """Continue from sums returned by :meth:`state`."""
        self.reset()
        for name, (total, count) in state.items():
            self.totals[name], self.counts[name] = total, count
