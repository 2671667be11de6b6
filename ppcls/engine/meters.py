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
    count: float = 0.0
    _pending: list[tuple[dict[str, paddle.Tensor], int]] = field(default_factory=list, repr=False)

    def add(self, values: Mapping[str, paddle.Tensor], samples: int) -> None:
        """Remember the scalars of one batch of `samples`."""
        self._pending.append(({k: v.detach() for k, v in values.items()}, samples))

    def __len__(self) -> int:
        """Number of batches that are not flushed yet."""
        return len(self._pending)

    def flush(self) -> list[dict[str, float]]:
        """Move pending scalars to the host, add them to the sums and return them batch by batch."""
        if not self._pending:
            return []
        flat = [v.astype("float32").reshape([1]) for values, _ in self._pending for v in values.values()]
        numbers = iter(paddle.concat(flat).numpy().astype(np.float64).tolist())
        rows = []
        for values, samples in self._pending:
            row = {name: next(numbers) for name in values}
            for name, value in row.items():
                self.totals[name] = self.totals.get(name, 0.0) + value * samples
            self.count += samples
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
        totals, count = dict(self.totals), self.count
        if everywhere and world_size() > 1:
            totals, count = {}, 0.0
            for their_totals, their_count in gather((self.totals, self.count)):
                count += their_count
                for name, total in their_totals.items():
                    totals[name] = totals.get(name, 0.0) + total
        if not count:
            raise TrainingError("no sample was processed, so there is nothing to average")
        return {name: total / count for name, total in totals.items()}

    def reset(self) -> None:
        """Forget everything."""
        self.totals.clear()
        self.count = 0.0
        self._pending.clear()

    def state(self) -> dict[str, list[float]]:
        """Return the flushed sums, for a checkpoint."""
        return {name: [total, self.count] for name, total in self.totals.items()}

    def restore(self, state: Mapping[str, list[float]]) -> None:
        """Continue from sums returned by :meth:`state`."""
        self.reset()
        for name, (total, count) in state.items():
            self.totals[name], self.count = total, count
