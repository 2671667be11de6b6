"""Images in tar shards, read from beginning to end: no index is made, and no file is searched beforehand.

An epoch is one pass over the shards. A sample is known by its position in this pass. The loader says which
positions it will request; only these are kept in memory, each until it was requested, and of all others
only the headers are read. So a run that resumes in the middle of an epoch, or one process of several, reads
no image that it does not need, and the order is that of one process that never stopped.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ppcls.class_names import shown_name
from ppcls.config.nodes import Options
from ppcls.data.dataset import Dataset, OnError, OpenSample
from ppcls.data.fingerprint import Fingerprint, fingerprint_of
from ppcls.data.images import ImageError
from ppcls.data.rng import stream_rng
from ppcls.data.shard_index import BLOCK, split_member
from ppcls.data.shard_scan import find_shards, scan_shard
from ppcls.data.shards import stored_class_names
from ppcls.errors import ConfigError, DataError
from ppcls.logger import LOGGER
from ppcls.registry import DATASETS

_MOST_SAMPLES = 1 << 31
_LEAST_BYTES = 4 * BLOCK  # of a sample: an image and its class, each with a header
_NAMED = 10_000  # positions whose shard and key are remembered for messages


@dataclass(frozen=True)
class Sample:
    """A sample of a pass.

    Attributes:
        content: bytes of the image.
        label: class in the shard.
        where: shard, key and member.
    """

    content: bytes
    label: int
    where: str


@DATASETS.register()
class ShardStreamDataset(Dataset):
    """Images in tar shards of WebDataset's layout, read from beginning to end, for training.

    Unlike :class:`ppcls.data.ShardDataset`, it makes no index, so the number of images must be given. It
    needs a sampler that goes through the samples nearly in order: ``ShuffleBufferSampler``, which also
    changes the order of the shards in each epoch, or ``DistributedBatchSampler`` without ``shuffle``. See
    ``docs/shards.md``.

    Args:
        path: folder with shards, a tar file, or a pattern such as ``data/train-{000000..000099}.tar``.
        samples: number of images in an epoch: that of all shards together.
        transform_ops: transforms of an image.
        batch_transform_ops: transforms of a batch.
        class_names: the classes in order, by which those of the shards are numbered; null means the names
            that ``ppcls shard`` stored, if it wrote the shards.
        label_key: suffix of the members with the class.
        on_error: ``raise``, or ``skip``: images that cannot be read are left out, counted and named.
        class_num: labels must lie in 0..class_num-1; by default that of the network.

    Raises:
        ConfigError: if `samples` is below 1.
        DataError: if there are no shards. During an epoch, naming shard and key, if a shard is damaged, a
            label does not fit, or there are fewer images than `samples`.
    """

    has_class_names = True
    is_stream = True

    def __init__(
        self,
        path: str,
        samples: int,
        transform_ops: list[Any] | None = None,
        batch_transform_ops: list[Any] | None = None,
        class_names: list[str] | None = None,
        label_key: str = "cls",
        on_error: OnError = "raise",
        class_num: int | None = None,
    ) -> None:
        super().__init__(path, transform_ops, batch_transform_ops, on_error)
        if not 1 <= samples < _MOST_SAMPLES:
            raise ConfigError(
                f"expected a number from 1 to {_MOST_SAMPLES - 1}, got {samples}",
                path="ShardStreamDataset.samples",
            )
        self.samples = samples
        self.shards = find_shards(path)
        self._label_key = label_key
        size = sum(shard.stat().st_size for shard in self.shards)
        if samples > size // _LEAST_BYTES:
            raise DataError(
                f"{path}: samples is {samples}, but {len(self.shards)} shards of {size} bytes cannot hold "
                f"more than {size // _LEAST_BYTES} images"
            )
        stored = stored_class_names(path)
        self.class_names = stored if class_names is None else [shown_name(str(name)) for name in class_names]
        if class_num is not None and self.class_names is not None and len(self.class_names) != class_num:
            raise DataError(f"{path}: {len(self.class_names)} classes, but class_num is {class_num}")
        self._classes = class_num
        self._numbers: list[int] | None = None
        if stored is not None and self.class_names != stored:
            number_of = {name: number for number, name in enumerate(self.class_names or ())}
            self._numbers = [number_of.get(name, -1) for name in stored]
        self._names: OrderedDict[int, str] = OrderedDict()
        self._told = False

    @classmethod
    def find_class_names(cls, options: Options) -> list[str] | None:
        """Return the names in ``class_names.txt``; see :meth:`Dataset.find_class_names`."""
        given = options.get("class_names")
        if given is not None:
            return [shown_name(str(name)) for name in given]
        return stored_class_names(str(options.get("path")))

    def __len__(self) -> int:
        return self.samples

    def path(self, index: int) -> str:
        """Return shard, key and member of a sample that was read recently; of others, only the path."""
        return self._names.get(index, self.name)

    def paths_with(self, text: str) -> Iterator[str]:
        """Yield the shards whose paths contain `text`."""
        return (path for shard in self.shards if text in (path := str(shard)))

    def label(self, index: int) -> NoReturn:
        """Raise DataError: the classes are known only when the samples are read."""
        self._refuse()

    def read(self, index: int) -> NoReturn:
        """Raise DataError: samples are read in the order of an epoch alone."""
        self._refuse()

    def relative_paths(self) -> NoReturn:
        """Raise DataError: the names are known only when the samples are read."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise DataError(
            f"{self.name}: ShardStreamDataset reads shards from beginning to end, for training alone; use "
            "ShardDataset here, which makes an index of the same shards"
        )

    def fingerprint(self) -> Fingerprint:
        """Return a fingerprint of the names and sizes of the shards."""
        names = [f"{shard.name} {shard.stat().st_size}" for shard in self.shards]
        found = fingerprint_of(self.name, names, np.zeros(len(names), np.int64))
        return Fingerprint(self.name, self.samples, found.digest)

    def opener(self, epoch: int, seed: int, wanted: np.ndarray, *, shuffled: bool) -> OpenSample:
        """Begin a pass over the shards; see :meth:`Dataset.opener`."""
        order = np.arange(len(self.shards))
        if shuffled:
            stream_rng(seed, epoch).shuffle(order)
        return _Pass(self, [self.shards[number] for number in order], self._label_key, wanted).open_sample

    def open_sample(self, index: int, epoch: int, seed: int) -> tuple[bytes, int]:
        """Open a sample outside of an epoch: the shards are read from the beginning."""
        return self.opener(epoch, seed, np.array([index]), shuffled=False)(index, epoch, seed)

    def accept(self, index: int, found: Sample) -> tuple[bytes, int]:
        """Return bytes and class of a sample that was read.

        Raises:
            ImageError: if the image is empty.
            DataError: if the label does not fit.
        """
        self._names[index] = found.where
        if len(self._names) > _NAMED:
            self._names.popitem(last=False)
        label = self._class_of(found)
        if not found.content:
            raise ImageError("the file is empty")
        return found.content, label

    def _class_of(self, found: Sample) -> int:
        label = found.label
        if self._numbers is not None and 0 <= label < len(self._numbers):
            label = self._numbers[label]
            if label < 0:
                raise DataError("class_names does not name its class")
        if self._classes is not None and not 0 <= label < self._classes:
            raise DataError(
                f"the label must be in 0..{self._classes - 1} (class_num {self._classes}), got {label}"
            )
        return label

    def report_more(self) -> None:
        """Warn once that the shards hold more images than an epoch has."""
        if not self._told:
            self._told = True
            LOGGER.warning(
                "%s: the shards hold more images than samples: %d; an epoch leaves the last ones out",
                self.name,
                self.samples,
            )


class _Pass:
    """One pass over the shards, read as far as samples were requested.

    Args:
        dataset: gives the number of samples, and the name for messages.
        shards: the tar files in the order of the epoch.
        label_key: see :class:`ShardStreamDataset`.
        wanted: the positions that will be requested, each as often as it is here, int64.
    """

    def __init__(
        self,
        dataset: ShardStreamDataset,
        shards: Sequence[Path],
        label_key: str,
        wanted: np.ndarray,
    ) -> None:
        self._dataset = dataset
        self._left = Counter(wanted.tolist())  # requests that will come, by position
        self._held: dict[int, Sample] = {}
        self._reading = self._read(shards, label_key)
        self._lock = threading.Lock()
        self._error: DataError | None = None

    @property
    def held(self) -> int:
        """Number of images in memory."""
        return len(self._held)

    def open_sample(self, index: int, epoch: int, seed: int) -> tuple[bytes, int]:
        """Return bytes and class of the sample at a position; see :meth:`Dataset.open_sample`.

        Raises:
            ImageError: if the image is empty.
            DataError: if a shard is damaged, or has a label that does not fit.
        """
        return self._dataset.accept(index, self.take(index))

    def take(self, position: int) -> Sample:
        """Return the sample at a position; read up to it, if it was not read yet.

        Raises:
            DataError: if a shard is damaged or there are not so many samples.
        """
        with self._lock:  # one thread reads, the others decode what was read
            while position not in self._held:
                if self._error is not None:
                    raise self._error
                try:
                    number, found = next(self._reading)
                except DataError as error:
                    self._error = error
                    raise
                except StopIteration:
                    raise RuntimeError(f"position {position} was not announced, or taken before") from None
                self._held[number] = found
            self._left[position] -= 1
            return self._held[position] if self._left[position] else self._held.pop(position)

    def _read(self, shards: Sequence[Path], label_key: str) -> Iterator[tuple[int, Sample]]:
        """Yield the positions that will be requested, and their samples."""
        samples = len(self._dataset)
        following = _follow(shards, label_key, self._left)
        count = 0
        for position, found in following:
            count = position + 1
            if count == samples and next(following, None) is not None:
                self._dataset.report_more()
            if found is not None:
                yield position, found
            if count == samples:
                return
        raise DataError(f"the shards hold {count} images, but samples is {samples}; set samples: {count}")


def _follow(
    shards: Sequence[Path], label_key: str, wanted: Container[int]
) -> Iterator[tuple[int, Sample | None]]:
    """Yield all positions of a pass, and the samples of those that are wanted.

    Raises:
        DataError: naming the shard, if it cannot be read or is damaged.
    """
    position = 0
    for path in shards:
        names: list[str] = []
        try:
            with path.open("rb") as file:
                for length, offset, label in scan_shard(path, label_key, names):
                    name = names.pop()
                    found = None
                    if position in wanted:
                        file.seek(offset)
                        where = f"{path}: {split_member(name)[0]}, {os.path.basename(name)}"
                        found = Sample(file.read(length), label, where)
                    yield position, found
                    position += 1
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
