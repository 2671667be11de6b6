"""Batches, prepared ahead of time by threads.

Threads are used because OpenCV, Pillow and NumPy release the interpreter lock while they work: two threads
are about twice as fast as two processes, which copy every image, and an error keeps its type and its
traceback. If a sample hangs, the run ends with a message that names the file, see ``timeout``.

Freed images and batches stay with the process, see :mod:`ppcls.cpu.memory`, so new ones cost no page faults.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from ppcls.data.batch import Batch
from ppcls.data.dataset import Dataset
from ppcls.data.division import Division
from ppcls.data.images import ImageError
from ppcls.data.job import Job
from ppcls.data.pool import HungError, Pool
from ppcls.data.processes import RemoteSamples
from ppcls.data.recycling import Recycler
from ppcls.data.rng import batch_rng
from ppcls.data.sampler import Draws, Sampler, Share
from ppcls.data.samples import LocalSamples, Samples
from ppcls.distributed import rank
from ppcls.errors import DataError
from ppcls.logger import LOGGER

BatchOp = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]

# Number of samples that a thread takes at a time: handing out work takes 30 microseconds, a sample 700.
_CHUNK = 16


class Loader:
    """Batches of a dataset, epoch by epoch.

    The content of a batch depends only on the seed, the epoch and its number, not on the threads. Where the
    transforms end in a normalisation and no batch transform follows, a batch holds 8-bit pixels, which are
    normalised when they are needed; see :class:`Batch`.

    Args:
        dataset: the samples.
        sampler: chooses the samples of each batch.
        share: the part of the samples that belongs to this process.
        num_workers: number of threads; with 0, each batch is prepared when it is requested.
        timeout: if no thread finishes a sample for this many seconds, the epoch ends with an error; 0: never.
        use_processes: let each thread hand its samples to a process of its own.
        batch_ops: transforms of whole batches, ``op(image, label, rng) -> (image, label)``.
        division: how the batches of another number of processes, those of `share`, are divided among the
            processes of now; None if they are the batches of now.

    Attributes:
        dataset: as given.
        skipped: error messages of the images left out so far, by sample (``on_error: skip``).

    Raises:
        DataError: if an epoch would have no batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        share: Share,
        *,
        num_workers: int = 4,
        timeout: float = 0,
        use_processes: bool = False,
        batch_ops: Sequence[BatchOp] = (),
        division: Division | None = None,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.share = share
        self.num_workers = num_workers
        self.timeout = timeout
        self.batch_ops = list(batch_ops)
        self.division = division
        self.skipped: dict[int, str] = {}
        self._use_processes = use_processes
        self._only_first = False
        # Transforms of batches need normalised images; then the threads normalise them.
        self._local = LocalSamples(dataset, finished=bool(self.batch_ops))
        self._samples: Samples = self._local
        self._pool: Pool | None = None
        self._recycler = Recycler()
        self._finalizer: weakref.finalize[..., Loader] | None = None
        # Enough batches that every thread has work while the next batch is collected.
        size = max(sampler.batch_size // (1 if division is None else division.parts), 1)
        self._ahead = -(-2 * num_workers * min(_CHUNK, size) // size)
        self._ahead = min(max(self._ahead, 2), 64) if num_workers else 0
        if share.training and not len(self):
            together = sampler.batch_size * share.world_size
            raise DataError(
                f"{dataset.name}: {len(dataset)} samples, but a step takes {together} (batch_size "
                f"{sampler.batch_size}, {share.world_size} processes) and drop_last leaves out what is less; "
                "use a smaller batch_size or drop_last: False"
            )

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return self.sampler.count(self.share) if self.division is None else len(self.division)

    def path(self, index: int) -> str:
        """Return the file of an entry of ``Batch.index``."""
        return self.dataset.path(index)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch in order.

        Args:
            epoch: number of the epoch; it decides order and augmentation.
            start_batch: first batch to yield, for a run that was interrupted.

        Raises:
            DataError: when a batch with a sample that fails or hangs is due; the message names the
                file. With ``on_error: skip``, if no image of a batch of training can be read, or none at all.
        """
        plan = self._plan(epoch)
        if self._only_first:
            plan = plan[: start_batch + 1]
        jobs: deque[Job] = deque()
        started = start_batch
        unread = 0
        samples = self._streamed(epoch, plan[start_batch:]) if self.dataset.is_stream else None
        try:
            for number in range(start_batch, len(plan)):
                while started < len(plan) and started <= number + self._ahead:
                    jobs.append(self._start(plan[started], epoch, samples))
                    started += 1
                job = jobs.popleft()
                batch = self._finish(job, epoch, number)
                unread += len(job.unreadable)
                if len(batch.index):
                    yield batch
                elif self.share.training:
                    raise DataError(
                        f"{self.dataset.name}: no image of a batch of {len(job.indices)} can be read, so "
                        f"there is nothing to train on in this step; the first: {job.unreadable[0]}. Take "
                        "such files out (`ppcls check-data` finds them) or use a larger batch_size"
                    )
            if unread:
                self._count_unread(unread, sum(len(draws.index) for draws in plan[start_batch:]))
        finally:
            for job in jobs:  # the consumer left early, or an error ended the epoch
                job.cancel()
            self._recycler.clear()

    def _streamed(self, epoch: int, plan: list[Draws]) -> LocalSamples:
        """Return the samples of a stream for an epoch, of which `plan` will be requested."""
        wanted = np.concatenate([draws.index for draws in plan]) if plan else np.empty(0, np.int64)
        opener = self.dataset.opener(epoch, self.share.seed, wanted, shuffled=self.sampler.shuffle)
        return LocalSamples(self.dataset, self._local.finished, opener)

    def _plan(self, epoch: int) -> list[Draws]:
        """Return the samples of each batch of this process in an epoch."""
        division = self.division
        if division is None:
            return self.sampler.batches(self.share, epoch)
        former = {
            process: self.sampler.batches(replace(self.share, rank=process), epoch)
            for process in division.former_processes(rank())
        }
        return division.plan(rank(), former)

    def _place(self, number: int) -> int:
        """Return the number of a batch among those of all processes in an epoch."""
        if self.division is None:
            return number * self.share.world_size + self.share.rank
        part = self.division.part(rank(), number)
        return part.batch * self.share.world_size * part.parts + part.stream

    @contextmanager
    def only_first_batch(self) -> Iterator[None]:
        """While the block runs, epochs end after their first batch (for a trial)."""
        self._only_first = True
        try:
            yield
        finally:
            self._only_first = False

    @property
    def is_tried(self) -> bool:
        """Whether epochs end after their first batch."""
        return self._only_first

    def _start(self, draws: Draws, epoch: int, samples: Samples | None = None) -> Job:
        if self.num_workers and self._pool is None:
            # Images are prepared in parallel here; OpenCV's own threads would only compete for the cores.
            cv2.setNumThreads(1)
            if self._use_processes:
                self._samples = RemoteSamples(self._local, self.num_workers)
            self._pool = Pool(self.num_workers)
            self._finalizer = weakref.finalize(self, _end, self._pool, self._samples)  # at exit too
        job = Job(self.dataset, samples or self._samples, draws, epoch, self.share.seed, self._recycler)
        indices = draws.index
        if self._pool is not None:
            for start in range(0, len(indices), _CHUNK):
                stop = min(start + _CHUNK, len(indices))
                job.futures.append(self._pool.submit(partial(job.fill, start, stop)))
        return job

    def _finish(self, job: Job, epoch: int, number: int, with_ops: bool = True) -> Batch:
        if not self.num_workers:
            job.fill(0, len(job.indices), lambda index: None)
        try:
            for future in job.futures:
                self._wait(future)
        finally:
            job.cancel()
        for place, error in sorted(job.unreadable.items()):
            self._skip(int(job.indices[place]), error)
        batch = job.result()
        if with_ops and self.batch_ops and len(batch.index):
            rng = batch_rng(self.share.seed, epoch, self._place(number))
            for op in self.batch_ops:
                batch.image, batch.label = op(batch.image, batch.label, rng)
        return batch

    def _wait(self, future: Future[None]) -> None:
        if self._pool is None:
            raise RuntimeError("the loader was closed during an epoch")
        try:
            self._pool.wait(future, self.timeout)
        except HungError as error:
            names = "".join(f"\n  {self.dataset.path(i)} (sample {i})" for i in sorted(set(error.args)))
            raise DataError(
                f"{self.dataset.name}: no sample was finished for {self.timeout:g} s; the threads hang at:"
                f"{names}\nLook whether these files can be read (a network drive, a pipe?). If the "
                "transforms take that long, raise loader.timeout"
            ) from None

    def _count_unread(self, unread: int, total: int) -> None:
        if unread == total:
            raise DataError(
                f"{self.dataset.name}: none of {total} images can be read; see the warnings above"
            )
        LOGGER.warning("%s: %d of %d images left out (on_error: skip)", self.dataset.name, unread, total)

    def first_image(self) -> np.ndarray:
        """Return the first image of the dataset that can be read, [C, H, W], as epoch 0 sees it.

        Raises:
            DataError: if it fails or hangs; with ``on_error: skip``, if none can be read.
        """
        for index in range(len(self.dataset)):
            job = self._start(Draws(np.array([index]), np.array([0])), 0)
            batch = self._finish(job, 0, 0, with_ops=False)
            if len(batch.index):
                return batch.image[0]
        raise DataError(f"{self.dataset.name}: none of {len(self.dataset)} images can be read")

    def _skip(self, index: int, error: ImageError) -> None:
        if index not in self.skipped:
            self.skipped[index] = str(error)
            LOGGER.warning("left out, %d so far: %s", len(self.skipped), error)

    def close(self) -> None:
        """End the threads and processes and drop waiting work. The next epoch starts new ones."""
        if self._finalizer is not None:
            self._finalizer()  # once
        self._pool = None
        self._finalizer = None
        self._samples = self._local


def _end(pool: Pool, samples: Samples) -> None:
    if isinstance(samples, RemoteSamples):
        samples.close()  # first, because it releases threads that wait for a sample
    pool.close()
