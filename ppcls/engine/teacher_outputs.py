"""``ppcls teacher store`` and ``check``: fill a store of teacher outputs, and compute some of them again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls.config import Recipe
from ppcls.config.schema import TeacherStoreSpec
from ppcls.data import Batch, JoinedLoader, Loader, ahead, build_train_loader, image_tensor
from ppcls.engine import build
from ppcls.engine.amp import mixed_precision
from ppcls.engine.engine import Engine
from ppcls.engine.start.teacher_store import open_store
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.teacher import StoredOutputs, answer_frozen, frozen_outputs, store_frozen
from ppcls.teacher.outputs import flatten
from ppcls.teacher.store import Store
from ppcls.teacher.stored import Coming, shown

CHECKED = 8  # batches that are recomputed
# Largest difference of a value that rounding explains, relative to the largest value of its output.
TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
DRAWN = 0.02  # share of drawn classes that rounding may change
_PROGRESS = 10.0  # seconds between two lines


@dataclass(frozen=True)
class Difference:
    """How far stored values are from those that the networks give now.

    Attributes:
        name: of the column, such as ``Teacher:logits``.
        precision: in which they are stored.
        largest: difference of any value, relative to the largest value; of drawn classes the share of others.
        values: number of values compared.
        drawn: whether they are classes drawn by chance.
    """

    name: str
    precision: str
    largest: float
    values: int
    drawn: bool = False

    @property
    def is_rounding(self) -> bool:
        """Whether rounding explains it."""
        return self.largest <= max(TOLERANCE[self.precision], DRAWN if self.drawn else 0)


class Pace:
    """How fast the images of a store go through its networks.

    Args:
        rows: number of images to come.

    Attributes:
        rows: number of images to come; it may be changed if fewer will come.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._begin = self._logged = time.perf_counter()
        self._ended = False

    def log(self, done: int) -> None:
        """Log a line of progress if the last one is some time ago, or all is done."""
        now = time.perf_counter()
        ended = done >= self.rows
        if self._ended or (now - self._logged < _PROGRESS and not ended):
            return
        self._ended = ended
        self._logged = now
        rate = done / (now - self._begin)
        left = int((self.rows - done) / rate) if done else 0
        LOGGER.info(
            "%d of %d images, %.0f images/s, eta %d:%02d:%02d",
            done,
            self.rows,
            rate,
            left // 3600,
            left // 60 % 60,
            left % 60,
        )


class Watcher:
    """Learns how the filling of a store proceeds; this one logs it."""

    def begin(self, coming: Coming) -> None:
        """Learn what is about to be stored, before anything is written.

        Raises:
            ConfigError: if the disk has too little room.
        """
        coming.check_room()
        self._pace = Pace(coming.rows)

    def find_nothing(self, folder: Path, part: int, parts: int) -> None:
        """Learn that all of a part is stored already."""
        which = "" if parts == 1 else f" in part {part} of {parts}"
        LOGGER.info("%s: nothing is missing%s", folder, which)

    def advance(self, done: int) -> None:
        """Learn how many rows have been computed so far."""
        self._pace.log(done)


class Source:
    """The frozen networks of a recipe, the images of its training, and the store of both.

    Args:
        config: a recipe for training, with the section ``TeacherStore``.

    Raises:
        ConfigError: if the recipe has no store, or the store is of something else.
        DataError: if the store is damaged.
    """

    def __init__(self, config: Recipe) -> None:
        engine = Engine(config, "train")
        config = engine.config
        require_section(config)
        self.casting = mixed_precision(config.AMP)[1]
        if self.casting["enable"] and self.casting["level"] == "O2":
            raise ConfigError(
                "O2 casts networks together with their optimizer; fill such a store while training",
                path="AMP.level",
            )
        self.loader: Loader | JoinedLoader = build_train_loader(
            config.DataLoader, seed=config.Global.seed or 0, class_num=config.arch.main.class_count
        )
        store = open_store(config, self.loader, filling=True)
        if store is None:
            raise AssertionError("the section is there")
        self.outputs: StoredOutputs = store.outputs
        self._engine = engine
        self._model: Any = None

    def model(self, images: int) -> Any:
        """Return the networks, whose frozen ones answer through their engines.

        Args:
            images: for how many.
        """
        if self._model is None:
            self._model = self._engine.model
            self._model.eval()
            build.warn_of_random_answers(self._model, training=True)
            shape = build.first_sample_shape(self.loader)
            store_frozen(self._model, self.outputs, answer_frozen(self._model, shape, images))
        return self._model

    def ask(self, batch: Batch) -> dict[str, Any]:
        """Return the outputs of the frozen networks for a batch, by dotted name."""
        with paddle.no_grad(), paddle.amp.auto_cast(**self.casting):
            return frozen_outputs(self._model, image_tensor(batch))

    def batches(self, places: list[tuple[int, int]]) -> Iterator[tuple[int, int, Batch]]:
        """Yield view, number and content of some batches, given in order."""
        for view, numbers in groupby(places, key=lambda place: place[0]):
            wanted = [number for _, number in numbers]
            for start, stop in _ranges(wanted):
                for number, batch in enumerate(ahead(self.loader.epoch(view, start_batch=start)), start):
                    yield view, number, batch
                    if number + 1 == stop:
                        break

    def close(self) -> None:
        """End the threads of the loader."""
        self.loader.close()


def require_section(config: Recipe) -> TeacherStoreSpec:
    """Return the section ``TeacherStore``.

    Raises:
        ConfigError: if the recipe has none.
    """
    if config.TeacherStore is None:
        raise ConfigError(
            "the recipe has no such section, which says where the store is", path="TeacherStore"
        )
    return config.TeacherStore


def fill(config: Recipe, part: int = 1, parts: int = 1, watcher: Watcher | None = None) -> StoredOutputs:
    """Fill a store with what is missing, or with one of several parts of it.

    Args:
        config: a recipe for training.
        part: counted from 1; parts do not overlap, so processes and machines fill them side by side.
        parts: number of parts.
        watcher: learns how it proceeds; by default, this is logged.

    Returns:
        the store.

    Raises:
        ConfigError: if the disk has too little room, or the recipe does not fit the store.
    """
    watcher = watcher or Watcher()
    source = Source(config)
    outputs = source.outputs
    with contextlib.closing(source):
        count = len(outputs.places.sizes)
        every = [(view, number) for view in range(1, outputs.plan.views + 1) for number in range(count)]
        mine = every[len(every) * (part - 1) // parts : len(every) * part // parts]
        places = [place for place in mine if not outputs.has_batch(*place)]
        if not places:
            watcher.find_nothing(outputs.store.folder, part, parts)
            return outputs
        rows = sum(outputs.places.sizes[number] for _, number in places)
        source.model(rows)
        _try_first(source, places[0])
        watcher.begin(outputs.coming(rows))
        outputs.begin()
        try:
            _fill(source, places, watcher)
        finally:
            outputs.flush()  # also after Ctrl-C: what is complete stays
    return outputs


def _try_first(source: Source, place: tuple[int, int]) -> None:
    """Learn from a batch what the networks return, before anything is written."""
    for view, number, batch in source.batches([place]):
        with source.outputs.batch(view, number, batch.index):
            source.ask(batch)


def _fill(source: Source, places: list[tuple[int, int]], watcher: Watcher) -> None:
    done = 0
    for view, number, batch in source.batches(places):
        with source.outputs.batch(view, number, batch.index):
            source.ask(batch)
        done += len(batch.index)
        watcher.advance(done)


def log_size(store: Store) -> None:
    """Log how large a store is."""
    size = sum(shard.size for shard in store.shards)
    LOGGER.info("%s: %d shards, %s", store.folder, len(store.shards), shown(size))


def check(config: Recipe) -> list[Difference]:
    """Ask the networks again for some of the stored images, and compare.

    Args:
        config: a recipe for training, whose store is there.

    Returns:
        the differences, by column.

    Raises:
        ConfigError: if the store is of something else, or empty.
        DataError: if it is damaged.
    """
    source = Source(config)
    outputs = source.outputs
    with contextlib.closing(source):
        count = len(outputs.places.sizes)
        every = [(view, number) for view in range(1, outputs.plan.views + 1) for number in range(count)]
        there = [place for place in every if outputs.has_batch(*place)]
        columns = outputs.columns
        if not there or columns is None:
            raise ConfigError(f"nothing is stored in {outputs.store.folder}", path="TeacherStore.path")
        chosen = sorted({there[i] for i in np.linspace(0, len(there) - 1, CHECKED).astype(int).tolist()})
        source.model(sum(outputs.places.sizes[number] for _, number in chosen))
        largest: dict[str, list[float]] = {}
        for view, number, batch in source.batches(chosen):
            live = source.ask(batch)
            position, rows = outputs.places.of_batch(number)
            stored = outputs.store.read(view, position, rows)
            for name, (_, listed) in columns.networks.items():
                rng = outputs.generator(name, view, position)
                now = columns.encode(name, live[name], rows, rng)
                pairs = [flatten(columns.decode(values, name))[0] for values in (now, stored)]
                for column, ours, theirs in zip(listed, *pairs, strict=True):
                    apart = _relative(ours, theirs)
                    if column.kept == "sample":
                        apart = float((now[column.classes] != stored[column.classes]).mean())
                    largest.setdefault(column.name, []).append(apart)
        size = sum(outputs.places.sizes[number] for _, number in chosen)
        return [
            Difference(
                column.name,
                column.precision,
                max(largest[column.name]),
                size * sum(int(np.prod(shape)) for _, _, shape in column.fields),
                column.kept == "sample",
            )
            for _, listed in columns.networks.values()
            for column in listed
        ]


def _relative(now: Any, before: Any) -> float:
    a = now.astype("float32").numpy().astype(np.float64)
    b = before.astype("float32").numpy().astype(np.float64)
    difference = np.abs(a - b).max(initial=0.0)
    return float(difference / max(np.abs(a).max(initial=0.0), 1e-30)) if difference else 0.0


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last + 1 of numbers that follow each other, given in order."""
    start = previous = None
    for number in numbers:
        if previous is None or number != previous + 1:
            if start is not None and previous is not None:
                yield start, previous + 1
            start = number
        previous = number
    if start is not None and previous is not None:
        yield start, previous + 1
