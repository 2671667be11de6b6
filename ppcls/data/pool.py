"""Threads that prepare images, watched by the thread that waits for them.

A thread cannot be killed. If one hangs, in a read from a dead network drive or in third-party code, it is
abandoned: unlike a thread of ``concurrent.futures`` it does not keep the process from ending.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

Note = Callable[[Any], None]
Work = Callable[[Note], None]

_GLANCE = 1.0  # seconds between two checks of the threads


class HungError(Exception):
    """Nothing was finished for too long; the arguments say what the threads are working on."""


class Pool:
    """A fixed number of threads with one queue.

    Args:
        workers: number of threads.
    """

    def __init__(self, workers: int) -> None:
        self._queue: queue.SimpleQueue[tuple[Work, Future[None]] | None] = queue.SimpleQueue()
        self._at: dict[int, Any] = {}
        self._steps = 0
        self._hung = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"ppcls-loader-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> Future[None]:
        """Queue `work`. It is called with a function that it must call whenever it begins something new."""
        future: Future[None] = Future()
        self._queue.put((work, future))
        return future

    def wait(self, future: Future[None], timeout: float) -> None:
        """Wait until a piece of work ends, and raise the error that it raised.

        Args:
            future: the work.
            timeout: longest time in seconds without progress of any thread; 0: no limit. Time in which
                this process was stopped does not count.

        Raises:
            HungError: after that time; with what the threads are working on.
        """
        quiet = 0.0
        steps = self._steps
        glance = min(_GLANCE, timeout / 4) or _GLANCE
        while not future.done():
            wait([future], timeout=glance)
            if steps != self._steps:
                quiet = 0.0
                steps = self._steps
            else:
                quiet += glance
            if timeout and quiet >= timeout and not future.done():
                self._hung = True
                raise HungError(*self._at.values())
        future.result()

    def close(self, patience: float = 5.0) -> None:
        """Drop queued work and end the threads.

        Args:
            patience: seconds to wait for their current work, unless they were found hanging.
        """
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is not None:
                item[1].cancel()
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + (0.0 if self._hung else patience)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _note(self, what: Any) -> None:
        self._at[threading.get_ident()] = what
        self._steps += 1

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            work, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                work(self._note)
            except BaseException as error:  # noqa: BLE001 - whoever waits for the work raises it again
                future.set_exception(error)
            else:
                future.set_result(None)
            self._at.pop(threading.get_ident(), None)
            self._steps += 1
            del item, work, future  # a thread that waits must not keep a batch in memory
