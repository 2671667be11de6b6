"""A batch that is being prepared."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np

from ppcls.data.batch import Batch, Pixels
from ppcls.data.dataset import Dataset
from ppcls.data.images import ImageError
from ppcls.data.pool import Note
from ppcls.data.recycling import Recycler
from ppcls.data.sampler import Draws
from ppcls.data.samples import Draw, Opened, Samples
from ppcls.errors import DataError

# Bytes that a thread reads before it decodes. Python's code runs several times faster when it is still in the
# processor's cache, which decoding an image empties; so that of several samples runs at a time.
_READ_AHEAD = 4 << 20


class Job:
    """A batch that several threads fill.

    Args:
        dataset: the dataset.
        samples: prepares its samples.
        draws: the samples of the batch.
        epoch: number of the epoch.
        seed: seed of the run.
        recycler: gives the array of the batch.

    Attributes:
        indices: places of the samples in the dataset, int64 [N].
        unreadable: errors of images that were left out, by their place in the batch.
        futures: the work of the threads.
    """

    def __init__(
        self, dataset: Dataset, samples: Samples, draws: Draws, epoch: int, seed: int, recycler: Recycler
    ) -> None:
        self.indices = draws.index
        self.unreadable: dict[int, ImageError] = {}
        self.futures: list[Future[None]] = []
        self._dataset = dataset
        self._samples = samples
        self._draws = draws
        self._indices: list[int] = draws.index.tolist()
        self._repeats: list[int] = draws.repeat.tolist()
        self._epoch = epoch
        self._seed = seed
        self._recycler = recycler
        self._label = np.empty((len(draws.index), 1), np.int64)
        self._image: np.ndarray | None = None
        # Images that are normalised already although the batch is not: a transform gave no 8-bit pixels.
        self._odd: dict[int, np.ndarray] = {}
        self._unwanted = False
        self._lock = threading.Lock()

    def fill(self, start: int, stop: int, note: Note) -> None:
        """Prepare the samples from `start` to before `stop`; `note` is called with each one before."""
        while start < stop and not self._unwanted:
            opened: list[Opened | DataError] = []
            size = 0
            while start + len(opened) < stop and size < _READ_AHEAD:
                found = self._open(start + len(opened), note)
                opened.append(found)
                size += found.size if isinstance(found, Opened) else 0
            for sample in opened:
                if self._unwanted:
                    return
                self._prepare(start, sample, note)
                start += 1

    def _open(self, place: int, note: Note) -> Opened | DataError:
        index = self._indices[place]
        note(index)
        try:
            repeat = self._repeats[place]
            return self._samples.open(Draw(index, self._epoch, self._seed, repeat, self._draws.size))
        except DataError as error:  # it is raised when the sample is due
            return error

    def _prepare(self, place: int, opened: Opened | DataError, note: Note) -> None:
        note(self._indices[place])
        try:
            if isinstance(opened, DataError):
                raise opened
            self._label[place] = opened.label
            # Written in place: a new array for each image takes a tenth of the time, mostly page faults.
            out = None if self._image is None else self._image[place]
            image = self._samples.image(opened, out)
        except ImageError as error:
            if self._dataset.on_error == "raise":
                raise
            self.unreadable[place] = error
        else:
            if image is not out:
                self._keep(image, place)

    def _keep(self, image: np.ndarray, place: int) -> None:
        """Put an image into the array of the batch; the first one that is ready decides its shape."""
        with self._lock:
            if self._image is None:
                self._image = self._recycler.take((len(self.indices), *image.shape), image.dtype)
        batch = self._image
        if image.dtype != batch.dtype and np.uint8 in (image.dtype, batch.dtype):
            if image.dtype != np.uint8:
                self._odd[place] = image
                return
            image = self._pixels(image[None]).normalised()[0]
        if image.shape != batch.shape[1:]:
            raise self._of_another_shape(place, image.shape, batch.shape[1:])
        batch[place] = image

    def _of_another_shape(self, place: int, shape: tuple[int, ...], other: tuple[int, ...]) -> DataError:
        index = int(self.indices[place])
        return DataError(
            f"{self._dataset.path(index)} (sample {index}): the transforms give an image of shape {shape}, "
            f"but another of the batch has {other}; end the chain with a crop or resize to a fixed size"
        )

    def _pixels(self, levels: np.ndarray) -> Pixels:
        normalize = self._dataset.chain(self._draws.size).normalize
        if normalize is None:
            raise RuntimeError("8-bit images of transforms without a normalisation")
        return Pixels(levels, normalize)

    def cancel(self) -> None:
        """Cancel the work; a thread stops after its current sample."""
        self._unwanted = True
        for future in self.futures:
            future.cancel()

    def result(self) -> Batch:
        """Return the batch without unreadable images; call it when all samples are there."""
        if self._image is None:  # all of them
            return Batch(np.empty((0, 0, 0, 0), np.float32), self._label[:0], self.indices[:0])
        image: np.ndarray | Pixels = self._image
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = self._pixels(image)
            if self._odd:
                image = self._with_odd_images(image)
        good = [place for place in range(len(self.indices)) if place not in self.unreadable]
        if len(good) == len(self.indices):
            return Batch(image, self._label, self.indices)
        kept = image.rows(good) if isinstance(image, Pixels) else image[good]
        return Batch(kept, self._label[good], self.indices[good])

    def _with_odd_images(self, pixels: Pixels) -> np.ndarray:
        image = pixels.normalised()
        for place, odd in self._odd.items():
            if odd.shape != image.shape[1:]:
                raise self._of_another_shape(place, odd.shape, image.shape[1:])
            image[place] = odd
        return image
