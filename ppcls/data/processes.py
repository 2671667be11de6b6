"""Samples prepared by processes, for transforms in pure Python, which hold the interpreter lock.

Every thread of the loader hands its samples to a process and waits for the result, which is copied through a
pipe. So batches are the same as with threads, and errors and hanging samples are reported in the same way.
Unlike those of ``multiprocessing``, the processes run only this module, not the main program.
``benchmarks/loader_processes.py`` compares their speed with that of threads.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import signal
import subprocess
import sys
import types
from contextlib import suppress
from typing import Any

import cv2
import numpy as np

from ppcls.data.samples import Draw, LocalSamples, Opened
from ppcls.errors import ConfigError, DataError, PpclsError, TrainingError
from ppcls.plugins import files_of, import_file

_GRACE = 30.0  # seconds until the exit code of a process whose pipe is closed is there, also under load


class RemoteSamples:
    """The samples of a dataset, prepared by processes.

    Args:
        samples: what each process prepares; the dataset in it is copied to each process with pickle.
        workers: number of processes.

    Raises:
        ConfigError: if the dataset cannot be copied.
    """

    def __init__(self, samples: LocalSamples, workers: int) -> None:
        self._samples = samples
        self._free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        try:
            self._content = _pickled(samples)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"loader.use_processes: the dataset cannot be copied to a process ({error}); use threads"
            ) from error
        command = [sys.executable, "-c", "from ppcls.data.processes import serve_samples; serve_samples()"]
        # The modules of this process, not those of the folder that it was started in.
        modules = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "PYTHONSAFEPATH": "1"}
        self._processes = [
            subprocess.Popen(command, env=os.environ | modules, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(workers)
        ]
        self._fresh = set(self._processes)
        for process in self._processes:
            self._free.put(process)

    def open(self, draw: Draw) -> Opened:
        """See :meth:`ppcls.data.samples.Samples.open`; the image is read later, by a process."""
        return Opened(draw, self._samples.label(draw))

    def image(self, opened: Opened, out: np.ndarray | None = None) -> np.ndarray:
        """See :meth:`ppcls.data.samples.Samples.image`, computed by a process that has nothing else to do.

        Raises:
            DataError: naming the sample, if its process ends unexpectedly.
            TrainingError: likewise, if a signal ended it; a restart of the training may succeed.
        """
        index = opened.draw.index
        process = self._free.get()
        try:
            answer = self._ask(process, opened.draw)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # closed, or cut off
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            code = process.returncode
            kind = TrainingError if code is None or code < 0 else DataError
            raise kind(
                f"{self._samples.dataset.path(index)} (sample {index}): the process that prepared it ended "
                f"(exit code {code}). -9 mostly means that memory ran out: use fewer num_workers; -11 that a "
                "library crashed on this file; 1 that the error above ended it"
            ) from None
        finally:
            self._free.put(process)
        if isinstance(answer, PpclsError):
            raise answer
        image: np.ndarray = answer
        return image

    def _ask(self, process: subprocess.Popen[bytes], question: Draw) -> Any:
        stdin = process.stdin
        stdout = process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        if process in self._fresh:
            self._fresh.discard(process)
            stdin.write(self._content)
        stdin.write(pickle.dumps(question))
        stdin.flush()
        return pickle.load(stdout)  # noqa: S301 - from a process of ours

    def close(self) -> None:
        """Kill the processes; no work can be lost."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):  # data that was not sent yet
                        stream.close()


class _Pickler(pickle.Pickler):
    """Notes the modules that the process needs, and refuses what it would not find."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.modules: dict[str, None] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Look at a class or function, which is copied by name; pickle does the rest."""
        if isinstance(obj, type | types.FunctionType):
            top = str(obj.__module__).partition(".")[0]
            if top not in self.modules and not _is_found_anew(top):
                raise pickle.PicklingError(
                    f"{obj.__qualname__} is defined in {top}, which no other process can import; "
                    "a file of its own, named in Global.plugins, can be"
                )
            self.modules[top] = None
        return NotImplemented


def _is_found_anew(module: str) -> bool:
    """Tell whether another process finds a top-level module by its name."""
    if module == "__main__":
        return False
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return bool(files_of([module])) or any(finder.find_spec(module, None) for finder in finders)


def _pickled(samples: LocalSamples) -> bytes:
    """Return the plug-ins that samples need, and then the samples themselves."""
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    pickler.dump(samples)
    return pickle.dumps(files_of(pickler.modules)) + stream.getvalue()


def serve_samples() -> None:
    """Prepare samples for the process that started this one, until it closes the pipe or ends."""
    for signum in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # only the main process reacts to them; it ends this process
        signal.signal(signum, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of transforms
    cv2.setNumThreads(1)
    questions = sys.stdin.buffer
    for name, file in pickle.load(questions).items():  # noqa: S301 - as below
        import_file(name, file)
    samples: LocalSamples = pickle.load(questions)  # noqa: S301 - from the process that started this one
    while True:
        try:
            draw: Draw = pickle.load(questions)  # noqa: S301
        except EOFError:
            return
        answer: Any
        try:
            answer = samples.image(samples.open(draw))
        except PpclsError as error:
            answer = error
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()
