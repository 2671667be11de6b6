"""Averages that leave values on the device until they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import paddle

from ppcls.distributed import gather, world_size
from ppcls.errors import TrainingError
from ppcls.metric import WholeSet

Reduce = Callable[[np.ndarray], float]


@dataclass
class Meters:
    """Sample-weighted averages of named scalars over an epoch.

    :meth:`add` only keeps references to device scalars; :meth:`flush` moves all of them to the host in one
    transfer. Sums are float64, so that long epochs do not lose digits. For values of the whole set,
    which only evaluations have, every row is kept.
    """

    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    _pending: list[dict[str, tuple[paddle.Tensor, int]]] = field(default_factory=list, repr=False)
    _rows: dict[str, list[paddle.Tensor]] = field(default_factory=dict, repr=False)
    _reduce: dict[str, Reduce] = field(default_factory=dict, repr=False)
    _names: dict[str, None] = field(default_factory=dict, repr=False)  # in order of first appearance

    def add(
        self,
        values: Mapping[str, paddle.Tensor | WholeSet],
        samples: int,
        others: Mapping[str, int] | None = None,
    ) -> None:
        """Remember the values of one batch.

        Args:
            values: scalars, or rows of values of the whole set, by name.
            samples: number of samples, the weight of each value.
            others: different weights of some values.
        """
        others = others or {}
        scalars = {}
        for name, value in values.items():
            self._names.setdefault(name)
            if isinstance(value, WholeSet):
                self._rows.setdefault(name, []).append(value.rows.detach())
                self._reduce[name] = value.reduce
            else:
                scalars[name] = value.detach(), others.get(name, samples)
        self._pending.append(scalars)

    def __len__(self) -> int:
        """Number of batches that are not flushed yet."""
        return len(self._pending)

    def flush(self) -> list[dict[str, float]]:
        """Move pending scalars to the host, add them to the sums and return them batch by batch."""
        if not self._pending:
            return []
        flat = [v.astype("float32").reshape([1]) for row in self._pending for v, _ in row.values()]
        numbers = iter(paddle.concat(flat).numpy().astype(np.float64).tolist() if flat else ())
        rows = []
        for pending in self._pending:
            row = {name: next(numbers) for name in pending}
            for name, value in row.items():
                samples = pending[name][1]
                self.totals[name] = self.totals.get(name, 0.0) + _total(value, samples)
                self.counts[name] = self.counts.get(name, 0.0) + samples
            rows.append(row)
        self._pending.clear()
        return rows

    def averages(self, *, everywhere: bool = False) -> dict[str, float]:
        """Return the averages of everything flushed so far, in order of first appearance.

        Args:
            everywhere: average over the samples of all processes; all processes have to call this.

        Raises:
            TrainingError: if there was no sample.
        """
        mine = (list(self._names), self.state(), self._whole())
        parts = gather(mine) if everywhere and world_size() > 1 else [mine]
        sums: dict[str, list[float]] = {}
        rows: dict[str, list[np.ndarray]] = {}
        reduce: dict[str, Reduce] = {}
        for _, state, whole in parts:
            for name, (total, count) in state.items():
                before = sums.get(name, [0.0, 0.0])
                sums[name] = [before[0] + total, before[1] + count]
            for name, (own, function) in whole.items():
                rows.setdefault(name, []).append(own)
                reduce[name] = function
        found = {name: total / count for name, (total, count) in sums.items() if count}
        found |= {name: reduce[name](np.concatenate(own)) for name, own in rows.items()}
        if not found:
            raise TrainingError("no sample was processed, so there is nothing to average")
        order = dict.fromkeys([*(name for names, *_ in parts for name in names), *found])
        return {name: found[name] for name in order if name in found}

    def _whole(self) -> dict[str, tuple[np.ndarray, Reduce]]:
        """Return the rows so far of each value of the whole set, and the function that computes the value."""
        return {
            name: (paddle.concat(rows).astype("float32").numpy(), self._reduce[name])
            for name, rows in self._rows.items()
        }

    def reset(self) -> None:
        """Remove all values."""
        self.totals.clear()
        self.counts.clear()
        self._pending.clear()
        self._rows.clear()
        self._reduce.clear()
        self._names.clear()

    def state(self) -> dict[str, list[float]]:
        """Return the flushed sums and counts, for a checkpoint."""
        return {name: [total, self.counts[name]] for name, total in self.totals.items()}

    def restore(self, state: Mapping[str, list[float]]) -> None:
        """Continue from sums returned by :meth:`state`."""
        self.reset()
        for name, (total, count) in state.items():
            self.totals[name] = total
            self.counts[name] = count


def _total(mean: float, samples: int) -> float:
    """Return the sum of a value over a batch, from its mean in float32.

    The share of right answers times the number of images is a whole number again, so that equal accuracies
    are equal numbers, however the images are divided into batches.
    """
    total = mean * samples
    whole = round(total) if math.isfinite(total) else total
    return float(whole) if abs(total - whole) <= abs(total) * 2.0**-22 else total


# Values that a line without room for all of them shows first.
_FIRST = ("loss", "top1")


def short_metrics(values: Mapping[str, float]) -> list[str]:
    """Return ``name value`` texts for lines with little room, the most important ones first."""
    order = sorted(values, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return [
        f"{name} {_written(name, values[name], '.4g' if abs(values[name]) >= 10 else '.3f')}"
        for name in order
    ]


def format_metrics(values: Mapping[str, float]) -> str:
    """Return ``name: value`` pairs for log lines."""
    return ", ".join(f"{name}: {_written(name, value, '.5f')}" for name, value in values.items())


def _written(name: str, value: float, form: str) -> str:
    """Return a value as text; a threshold with all its digits, because others would give other rates."""
    return format(value, ".9g" if name.partition("_")[0] == "threshold" else form)
