"""Outputs of frozen networks for the next batch, computed while the present batch trains.

A frozen network does not depend on the training, so its outputs for a batch may be computed as soon as the
images are there. One thread does this, on cores that the training leaves to it; it is given the images of a
batch when the training gets the batch before. The training takes the outputs only for exactly these images,
and lets the same thread compute them at once for any others. So the results are those without this thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ppcls.data import Batch, image_tensor
from ppcls.errors import PpclsError
from ppcls.runner import Runner, RunnerProcess

_MOST = 2  # batches begun but not taken: the present one and the next


@dataclass(frozen=True)
class _Begun:
    """Outputs that are being computed, or were."""

    images: np.ndarray
    outputs: Future[list[np.ndarray]]


class AheadRunner:
    """Runs a program in the thread of a :class:`Lookahead`.

    Attributes:
        outputs: names of its outputs, in order.

    Args:
        runner: runs the program.
        image_shape: [C, H, W] of the images that it is given ahead.
        thread: the thread.
    """

    def __init__(self, runner: Runner, image_shape: Sequence[int], thread: ThreadPoolExecutor) -> None:
        self.outputs = runner.outputs
        self._runner = runner
        self._shape = tuple(image_shape)
        self._thread = thread
        self._begun: deque[_Begun] = deque()
        self._unasked = 0

    def begin(self, images: np.ndarray) -> None:
        """Begin to compute all outputs for images [N, C, H, W], unless nobody has taken any of late.

        Args:
            images: float32; they must not change.
        """
        if self._unasked >= _MOST or images.shape[1:] != self._shape or images.dtype != np.float32:
            return
        self._unasked += 1
        if len(self._begun) == _MOST:
            self._begun.popleft().outputs.cancel()
        self._begun.append(_Begun(images, self._thread.submit(self._runner.run, images, self.outputs)))

    def run(self, batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """Return the named outputs for a batch [N, C, H, W].

        Raises:
            PpclsError: if the program cannot run it.
        """
        self._unasked = 0
        for place, begun in enumerate(self._begun):
            if list(outputs) == self.outputs and np.array_equal(begun.images, batch):
                for _ in range(place + 1):
                    self._begun.popleft()
                return begun.outputs.result()
        return self._thread.submit(self._runner.run, batch, outputs).result()


class Lookahead:
    """Lets a thread compute outputs of frozen networks for the batch after the present one.

    Args:
        threads: CPU threads for one batch.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ppcls-teacher")
        self._runners: list[AheadRunner] = []
        self._processes: list[RunnerProcess] = []

    def add(
        self,
        title: str,
        image_shape: Sequence[int],
        open_runner: Callable[[int], Callable[[], Runner]],
        *,
        own_process: bool,
    ) -> Runner:
        """Open a program, and return what runs it from now on.

        Args:
            title: the name of the network.
            image_shape: [C, H, W] of the images of training.
            open_runner: returns, for a number of CPU threads, a function that opens the program; it can be
                pickled.
            own_process: the program needs a process of its own, because it holds Python's lock.

        Raises:
            PpclsError: if the program cannot be opened.
            OSError: if the process cannot be started.
        """
        runner: Runner
        if own_process:
            process = RunnerProcess(open_runner(self.threads), title, self.threads)
            self._processes.append(process)
            runner = process
        else:
            runner = open_runner(self.threads)()
        ahead = AheadRunner(runner, image_shape, self._thread)
        self._runners.append(ahead)
        return ahead

    def over(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, each when the work on the next one has begun.

        An error of the next batch is raised when its turn comes.
        """
        try:
            failure: PpclsError | None = None
            following = next(batches, None)
            self._begin(following)
            while following is not None:
                present, following = following, None
                try:
                    following = next(batches, None)
                    self._begin(following)
                except PpclsError as error:
                    failure = error
                yield present
                if failure is not None:
                    raise failure
        finally:
            close = getattr(batches, "close", None)
            if close is not None:  # end the epoch of the loader
                close()

    def _begin(self, batch: Batch | None) -> None:
        if batch is None:
            return
        images = image_tensor(batch).numpy()
        for runner in self._runners:
            runner.begin(images)

    def close(self) -> None:
        """End the thread and the processes."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.close()
        self._thread.shutdown()
