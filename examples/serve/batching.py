"""Put images that arrive one by one into batches, because a network is faster with several at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

Result = dict[str, Any]
_STOP = None
_Waiting = tuple[bytes, "Future[Result]"]


class Overloaded(Exception):
    """More images are waiting than the server accepts."""


class Batcher:
    """Threads that collect waiting images and predict them together.

    A thread takes the first image, waits a few milliseconds for more, and predicts what has come. While it
    predicts, the next thread collects, so images are decoded beside the network.

    Args:
        predict: returns one result for each image of a batch, in order; several threads call it.
        max_batch: images in a batch.
        max_wait: seconds that the first image of a batch waits for others.
        workers: number of threads.
        max_waiting: images that may wait; further ones are refused.

    Attributes:
        batches: number of batches so far.
        images: number of images in them.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[bytes]], list[Result]],
        *,
        max_batch: int = 16,
        max_wait: float = 0.005,
        workers: int = 2,
        max_waiting: int = 256,
    ) -> None:
        self._predict = predict
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(max_waiting)
        self._collecting = threading.Lock()
        self._counting = threading.Lock()
        self._closed = False
        self.batches = 0
        self.images = 0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, image: bytes) -> Future[Result]:
        """Return the future result of an image.

        Raises:
            Overloaded: if too many images are waiting, or the server is ending.
        """
        if self._closed:
            raise Overloaded("the server is ending")
        future: Future[Result] = Future()
        try:
            self._waiting.put_nowait((image, future))
        except queue.Full:
            raise Overloaded(f"{self._waiting.maxsize} images are waiting already") from None
        return future

    def close(self) -> None:
        """Finish what is waiting, and end the threads."""
        self._closed = True
        for _ in self._threads:
            self._waiting.put(_STOP)
        for thread in self._threads:
            thread.join()
        while not self._waiting.empty():  # what came at the very moment
            item = self._waiting.get()
            if item is not _STOP:
                item[1].set_exception(Overloaded("the server is ending"))

    def _work(self) -> None:
        while batch := self._collect():
            self._answer(batch)

    def _collect(self) -> list[_Waiting]:
        """Return the next batch; an empty one at the end."""
        with self._collecting:  # one thread at a time, so that batches become large
            first = self._waiting.get()
            if first is _STOP:
                return []
            batch = [first]
            end = time.monotonic() + self._max_wait
            while len(batch) < self._max_batch:
                try:
                    item = self._waiting.get(timeout=max(0.0, end - time.monotonic()))
                except queue.Empty:
                    break
                if item is _STOP:
                    self._waiting.put(_STOP)  # for this thread, when it has predicted the batch
                    break
                batch.append(item)
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        wanted = [(image, future) for image, future in batch if future.set_running_or_notify_cancel()]
        if wanted:
            self._resolve(wanted)

    def _resolve(self, wanted: list[_Waiting]) -> None:
        """Predict images together; one by one if that fails, because only one of them may be to blame."""
        try:
            results = self._predict([image for image, _ in wanted])
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait, and the thread must continue
            if len(wanted) == 1:
                wanted[0][1].set_exception(error)
                return
            for each in wanted:
                self._resolve([each])
            return
        with self._counting:
            self.batches += 1
            self.images += len(wanted)
        for (_, future), result in zip(wanted, results, strict=True):
            future.set_result(result)
