"""Read outputs of frozen networks from a store for the batches of a run, and write new outputs to it.

If the store has all rows of a batch, they are read; otherwise the networks compute them, and the outputs are
stored. In both cases the run gets the outputs in the precision of the store, so the results are the same.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data.division import Division
from ppcls.errors import ConfigError, DataError
from ppcls.files import require_possible, require_writable
from ppcls.logger import LOGGER
from ppcls.teacher.columns import Columns, Keeping
from ppcls.teacher.store import INDEX, MANIFEST, Runs, Store, join_runs

SHARD_BYTES = 64 << 20
SHARD_SECONDS = 300.0  # a killed process loses the work of this time at most
_OVERHEAD = 1.05  # descriptions, file systems
Around = Callable[[Callable[[], int]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Places:
    """Where the rows of the batches of this process are in a view.

    Position p is row p of an epoch of all processes together: batch by batch, within a batch process by
    process.

    Attributes:
        sizes: number of rows of each batch of this process in an epoch.
        rank: rank of this process.
        world_size: number of processes.
        division: how batches of `world_size` other processes are divided among those of now.
    """

    sizes: tuple[int, ...]
    rank: int = 0
    world_size: int = 1
    division: Division | None = None

    @property
    def rows(self) -> int:
        """Rows of a view."""
        return self.world_size * sum(self.sizes)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(self.world_size * np.cumsum(self.sizes, dtype=np.int64)).tolist()]

    def of_batch(self, number: int) -> tuple[int, int]:
        """Return first position and number of rows of a batch of this process, counted from 0."""
        if self.division is None:
            size = self.sizes[number]
            return self._starts[number] + self.rank * size, size
        part = self.division.part(self.rank, number)
        whole = self.sizes[part.batch]
        first, size = part.rows(whole)
        return self._starts[part.batch] + part.process * whole + first, size


@dataclass(frozen=True)
class Plan:
    """What a run needs from a store.

    Attributes:
        views: number of epochs that are stored; later epochs use them again.
        keeping: which part of the outputs is stored.
        fill: whether missing outputs are stored.
        networks: names of the networks.
        made_of: what outputs depend on; see `ppcls.teacher.manifest`.
    """

    views: int
    keeping: Keeping
    fill: bool
    networks: tuple[str, ...]
    made_of: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Coming:
    """Outputs that are about to be stored.

    Attributes:
        folder: folder of the store.
        views: number of its views.
        images: number of images of a view.
        size: bytes for each image and view.
        rows: number of rows to come, one for each image and view.
    """

    folder: Path
    views: int
    images: int
    size: int
    rows: int

    def check_room(self) -> None:
        """Refuse to begin if the folder cannot be written or the disk has too little space; log the size.

        Raises:
            ConfigError: if there is too little space; the message has both numbers.
        """
        require_writable(self.folder, "TeacherStore.path")
        needed = int(self.rows * self.size * _OVERHEAD)
        folder = self.folder.absolute()
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        if needed > free:
            raise ConfigError(
                f"the store needs {shown(needed)} more, but {there} has {shown(free)} free; use fewer views, "
                "a lower precision, or another disk",
                path="TeacherStore",
            )
        LOGGER.info(
            "%s: %d views of %d images, %s each; %s to come",
            self.folder,
            self.views,
            self.images,
            shown(self.size),
            shown(needed),
        )


class StoredOutputs:
    """The store of one run, read and written batch by batch.

    Args:
        store: an open store; verified, unless it is new.
        plan: what the run needs.
        places: positions of its batches.

    Attributes:
        complete: whether all views are stored, so that no network has to be run.
        writing: whether new outputs are stored; false before :meth:`begin`.
    """

    def __init__(self, store: Store, plan: Plan, places: Places) -> None:
        self.store = store
        self.plan = plan
        self.places = places
        manifest = store.manifest
        self.columns = None if manifest is None else Columns.from_json(manifest["networks"])
        self.complete = self.columns is not None and not any(self.missing().values())
        self.writing = False
        self._around: Around = lambda size: nullcontext()
        self._place: _Place | None = None
        self._buffer: list[np.ndarray] = []
        self._runs: Runs = []
        self._view = 0
        self._flushed = time.monotonic()

    def view(self, epoch: int) -> int:
        """Return the view that an epoch uses, both counted from 1."""
        return (epoch - 1) % self.plan.views + 1

    def missing(self) -> dict[int, Runs]:
        """Return the positions of each view that are not stored, for all processes."""
        rows = self.places.rows
        return {view: self.store.missing(view, rows) for view in range(1, self.plan.views + 1)}

    def has_batch(self, view: int, number: int) -> bool:
        """Tell whether all rows of a batch of this process are stored."""
        return self.store.has(view, *self.places.of_batch(number))

    # ------------------------------------------------------------------ a batch

    @contextmanager
    def batch(self, epoch: int, number: int, index: np.ndarray) -> Iterator[None]:
        """Use the stored outputs of one training batch in the block.

        Args:
            epoch: number of the epoch, from 1.
            number: number of the batch in the epoch, from 0.
            index: places of its samples in the data, int64 [N].

        Raises:
            DataError: if the store has other samples at these positions, or has none and must not be filled.
        """
        view = self.view(epoch)
        position, size = self.places.of_batch(number)
        if size != len(index):
            raise DataError(f"batch {number} has {len(index)} images, expected {size} for the store")
        records = None
        if self.store.has(view, position, size):
            records = self.store.read(view, position, size)
            self._check_samples(records, index, view, position)
        elif not self.plan.fill:
            raise DataError(f"{self.store.folder} lacks batch {number} of view {view}, and `fill` is never")
        self._place = _Place(view, position, index, records)
        try:
            yield
            if records is None:
                self._keep(self._place)
        finally:
            self._place = None

    def answer(self, name: str, x: Any, live: Callable[[Any], Any]) -> Any:
        """Return the output of a network.

        Args:
            name: name of the network.
            x: images [N, C, H, W].
            live: the network itself, which is also run outside of training batches.
        """
        place = self._place
        if place is None:
            return live(x)
        if place.records is not None and self.columns is not None:
            return self.columns.decode(place.records, name)
        place.outputs[name] = output = live(x)
        columns = self.columns or Columns.of_outputs({name: output}, self.plan.keeping)
        values = columns.encode(
            name, output, len(place.index), self.generator(name, place.view, place.position)
        )
        place.values.update(values)
        return columns.decode(values, name)

    def generator(self, name: str, view: int, position: int) -> np.random.Generator:
        """Return the generator that draws classes for a batch; it always draws the same ones.

        Args:
            name: name of the network.
            view: number of the view, from 1.
            position: position of the first row.
        """
        seed = int(self.plan.made_of.get("seed") or 0)
        return np.random.default_rng([seed, self.plan.networks.index(name), view, position])

    # ------------------------------------------------------------------ filling

    def check_room(self, rows: int | None = None) -> None:
        """Refuse to begin if the folder cannot be written, or the disk has too little space for the outputs.

        Args:
            rows: number of rows to store; None for all that are missing.

        Raises:
            ConfigError: if there is too little space; the message has both numbers.
        """
        if self.complete or not self.plan.fill:
            return
        self.coming(rows).check_room()

    def coming(self, rows: int | None = None) -> Coming:
        """Return what is about to be stored.

        Args:
            rows: number of rows to store; None for all that are missing.
        """
        if rows is None:
            rows = sum(count for runs in self.missing().values() for _, count in runs)
        size = 0 if self.columns is None else self.columns.dtype.itemsize
        return Coming(self.store.folder, self.plan.views, self.places.rows, size, rows)

    def begin(self, around: Around = lambda size: nullcontext()) -> None:
        """Begin to store outputs; nothing is written before this call.

        Args:
            around: returns the block in which so many bytes are written; it may explain an error.
        """
        self._around = around
        self.writing = self.plan.fill and not self.complete
        if self.writing:
            self._write_manifest()
            self.store.remove_leftovers()

    def flush(self) -> None:
        """Write the collected outputs as a shard."""
        if self._buffer:
            records = np.concatenate(self._buffer)
            with self._around(lambda: records.nbytes):
                self.store.append(self._view, join_runs(self._runs), records)
            self._buffer.clear()
            self._runs.clear()
        self._flushed = time.monotonic()

    # ------------------------------------------------------------------ inside

    def _keep(self, place: _Place) -> None:
        """Collect a batch for the next shard; the first batch determines the columns."""
        if set(place.outputs) != set(self.plan.networks):
            raise RuntimeError(f"{sorted(place.outputs)} answered, expected {self.plan.networks}")
        if self.columns is None:
            self.columns = Columns.of_outputs(place.outputs, self.plan.keeping)
        if not self.writing:
            return
        self._write_manifest()
        if self._view != place.view:
            self.flush()
            self._view = place.view
        self._buffer.append(self.columns.records(place.values, place.index))
        self._runs.append((place.position, len(place.index)))
        full = sum(records.nbytes for records in self._buffer) >= SHARD_BYTES
        if full or time.monotonic() - self._flushed >= SHARD_SECONDS:
            self.flush()

    def _write_manifest(self) -> None:
        """Write the manifest of a new store, in one process."""
        if self.store.manifest is not None or self.columns is None:
            return
        manifest = {
            "views": self.plan.views,
            "rows": self.places.rows,
            "made_of": self.plan.made_of,
            "networks": self.columns.as_json(),
        }
        if self.places.rank == 0:
            with self._around(lambda: len(str(manifest))):
                self.store.write_manifest(manifest)
        else:
            self.store.manifest = manifest

    def _check_samples(self, records: np.ndarray, index: np.ndarray, view: int, position: int) -> None:
        found = records[INDEX].astype(np.int64)
        if not np.array_equal(found, index):
            row = int(np.flatnonzero(found != index)[0])
            raise DataError(
                f"{self.store.folder}: position {position + row} of view {view} is sample {found[row]}, but "
                f"the batch has sample {index[row]} there: the store was filled in another order"
            )


@dataclass
class _Place:
    """The current batch."""

    view: int
    position: int
    index: np.ndarray
    records: np.ndarray | None
    outputs: dict[str, Any] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)


class StoredAnswer:
    """Replaces one frozen network in training, see `ppcls.arch.distillation.NetworkGroup.answer_with`.

    Args:
        outputs: the store of the run.
        name: dotted name of the network.
        live: the network itself, or the engine that runs it.
    """

    def __init__(self, outputs: StoredOutputs, name: str, live: Callable[[Any], Any]) -> None:
        self.outputs = outputs
        self.name = name
        self.live = live

    def __call__(self, x: Any) -> Any:
        """Return the output for images [N, C, H, W]."""
        return self.outputs.answer(self.name, x, self.live)


@dataclass(frozen=True)
class Verified:
    """What is in a folder of a store.

    Attributes:
        problems: what is wrong with its shards.
        shards: number of shards.
        views: number of views that the store is for.
        complete: number of views of which all rows are stored.
    """

    problems: list[str]
    shards: int
    views: int
    complete: int


def verify(folder: Path) -> Verified:
    """Read all files of a store.

    Raises:
        ConfigError: if there is no store in `folder`.
        DataError: if the manifest or the description of a shard is damaged.
    """
    require_possible(folder, "STORE")
    store = Store(folder)
    manifest = store.manifest
    if manifest is None:
        raise ConfigError(f"there is no store in {folder}: it has no {MANIFEST}")
    columns = Columns.from_json(manifest.get("networks"))
    views, rows = manifest.get("views"), manifest.get("rows")
    if not isinstance(views, int) or not isinstance(rows, int):
        raise DataError(f"the manifest of {folder} is damaged: views {views!r}, rows {rows!r}")
    complete = sum(not store.missing(view, rows) for view in range(1, views + 1))
    return Verified(store.verify(columns.dtype), len(store.shards), views, complete)


def shown(size: float) -> str:
    """Return a number of bytes as text."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} TB"


def listed(runs: Sequence[tuple[int, int]], most: int = 3) -> str:
    """Return positions as text."""
    texts = [f"{first} to {first + count - 1}" for first, count in runs[:most]]
    return ", ".join(texts) + (f" and {len(runs) - most} more ranges" if len(runs) > most else "")
