"""Fill a store of teacher outputs in several processes of this machine, each of which computes a part.

The processes exchange nothing with each other, so one that ends takes nothing from the others. They report to
the command that started them, which shows one line of progress for all. Paddle's launcher is not used: it
would end all processes together with the first.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from ppcls.config import Recipe, load_config
from ppcls.cpu import threads
from ppcls.cpu.processor import available_cores
from ppcls.distributed import gpus_for
from ppcls.engine.teacher_outputs import Pace, Watcher, fill, log_size, require_section
from ppcls.errors import PpclsError, TrainingError
from ppcls.job import LAUNCHER, NUMBERS, PLACE, end_with_parent
from ppcls.logger import LOGGER
from ppcls.teacher.store import Store
from ppcls.teacher.stored import Coming

_START = "from ppcls.engine.store_processes import serve_part; serve_part()"
_GRACE = 60.0  # seconds in which interrupted processes store what they have computed
_LINES = 15  # the most lines to show of what a process wrote before it ended


@dataclass(frozen=True)
class _Line:
    """A line for the log."""

    level: int
    text: str


@dataclass(frozen=True)
class _Done:
    """The number of rows that a process has computed so far."""

    rows: int


_Message = Coming | _Line | _Done | PpclsError | None  # None: the process has closed its end of the pipe


@dataclass
class _Part:
    """A process, and what is known of it.

    Attributes:
        number: counted from 1.
        process: the process.
        output: what it writes to its standard output and standard error.
        coming: what it is about to store; None before it is ready, or if nothing is missing in its part.
        done: number of rows that it has computed.
        error: the error that it reported.
        running: whether more messages may come.
    """

    number: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    coming: Coming | None = None
    done: int = 0
    error: PpclsError | None = None
    running: bool = True

    def failure(self) -> str:
        """Wait for the end of the process, and return why it failed; empty if it did not."""
        code = self.process.wait()
        if self.error is not None:
            return str(self.error)
        if code == -signal.SIGKILL:
            return "it was killed (signal 9), mostly because memory ran out"
        if code < 0:
            return f"it was ended by signal {-code}"
        if code == 0:
            return ""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
        lines = lines[starts[-1] if starts else -_LINES :]
        return "\n    ".join([f"it ended with exit code {code}", *lines])


def fill_in_processes(
    recipe: str, overrides: Sequence[str], processes: int, part: int = 1, parts: int = 1
) -> None:
    """Fill a store, or one of several parts of it, in processes that compute equal shares.

    Args:
        recipe: path of a recipe for training.
        overrides: as after ``-o``.
        processes: number of processes.
        part: counted from 1.
        parts: number of parts.

    Raises:
        PpclsError: if the recipe does not fit the store, or the disk has too little room.
        TrainingError: if a process ended early. What the others computed is stored all the same.
    """
    config = load_config(recipe, overrides, mode="train")
    folder = Path(os.path.expanduser(str(require_section(config).path)))
    environment = _environment(config, processes)
    inbox: queue.SimpleQueue[tuple[_Part, _Message]] = queue.SimpleQueue()
    started: list[_Part] = []
    with _ending(started):
        for number, device in enumerate(_devices(config.Global.device, processes), 1):
            share = ((part - 1) * processes + number, parts * processes)
            level = logging.INFO if number == 1 else logging.WARNING
            task = (recipe, [*overrides, *device], *share, level)
            started.append(_start(number, task, environment, inbox))
        _follow(started, inbox)
        failures = [(each, text) for each in started if (text := each.failure())]
    if not failures:
        if not any(each.coming for each in started):
            LOGGER.info("%s: nothing is missing", folder)
        log_size(Store(folder))
        return
    first = failures[0][0].error
    if first is not None and all(str(each.error) == str(first) for each in started):
        raise first
    text = "\n".join(
        f"  process {each.number} of {processes}: {text.splitlines()[0]}" for each, text in failures
    )
    raise TrainingError(
        f"{folder} is not filled:\n{text}\nWhat was complete is stored; run the same command again for the "
        "rest"
    )


def _devices(device: str, processes: int) -> list[list[str]]:
    """Return the overrides by which each process gets a GPU of its own, if GPUs are used.

    Raises:
        ConfigError: see :func:`~ppcls.distributed.gpus_for`.
    """
    if not gpus_for(processes, device):
        return [[] for _ in range(processes)]
    return [[f"Global.device=gpu:{number}"] for number in range(processes)]


def _environment(config: Recipe, processes: int) -> dict[str, str]:
    """Return the environment of the processes: their share of the cores, and no traces of a launcher."""
    hidden = {*PLACE, *LAUNCHER, *NUMBERS}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if threads.CHOSEN is None:
        loading = int(config["DataLoader"]["Train"]["loader"]["num_workers"])
        count = threads.suggest_threads(available_cores(), processes, loading)
        environment[threads.VARIABLE] = str(count)
    # The modules of this process, not those of the folder that it was started in.
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}


def _start(
    number: int,
    task: tuple[Any, ...],
    environment: dict[str, str],
    inbox: queue.SimpleQueue[tuple[_Part, _Message]],
) -> _Part:
    output = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed together with the part
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(os.getpid())],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
        start_new_session=True,  # Ctrl-C reaches only this command, which passes it on
    )
    part = _Part(number, process, output)
    _send(part, task)
    threading.Thread(target=_receive, args=(part, inbox), daemon=True).start()
    return part


def _send(part: _Part, message: Any) -> None:
    """Send something to a process, unless it has ended."""
    if part.process.stdin is not None:
        with suppress(OSError):
            part.process.stdin.write(pickle.dumps(message))
            part.process.stdin.flush()


def _receive(part: _Part, inbox: queue.SimpleQueue[tuple[_Part, _Message]]) -> None:
    """Put the messages of a process into `inbox`, last None."""
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while part.process.stdout is not None:
            inbox.put((part, pickle.load(part.process.stdout)))  # noqa: S301 - from a process of ours
    inbox.put((part, None))


def _follow(parts: list[_Part], inbox: queue.SimpleQueue[tuple[_Part, _Message]]) -> None:
    """Log what the processes report, until all have ended.

    They begin to store when all are ready and the disk has room for all of them.
    """
    waiting = {part.number for part in parts}  # neither ready nor ended
    pace: Pace | None = None
    logged: set[str] = set()
    while any(part.running for part in parts):
        part, message = inbox.get()
        if isinstance(message, _Line):
            if message.text not in logged:
                logged.add(message.text)
                LOGGER.log(message.level, "%s", message.text)
        elif isinstance(message, _Done):
            part.done = message.rows
            if pace is not None:
                pace.log(sum(each.done for each in parts))
        elif isinstance(message, Coming):
            part.coming = message
            waiting.discard(part.number)
        elif isinstance(message, PpclsError):
            part.error = message
        else:
            part.running = False
            waiting.discard(part.number)
            if pace is not None:
                _announce_failure(part, len(parts))
                pace.rows -= 0 if part.coming is None else part.coming.rows - part.done
                pace.log(sum(each.done for each in parts))
        if pace is None and not waiting:
            pace = _begin(parts)


def _announce_failure(part: _Part, processes: int) -> None:
    """Log at once that a process has failed; the others may take hours."""
    text = part.failure()
    if text:
        so_far = "" if part.coming is None else f" after {part.done} of {part.coming.rows} images"
        LOGGER.warning("process %d of %d failed%s: %s", part.number, processes, so_far, text)


def _begin(parts: list[_Part]) -> Pace:
    """Let the processes begin, if the disk has room for what all of them store."""
    coming = [part.coming for part in parts if part.coming is not None]
    rows = sum(each.rows for each in coming)
    if coming:
        replace(coming[0], rows=rows).check_room()
        if len(coming) > 1:
            LOGGER.info("%d processes compute them", len(coming))
    for part in parts:
        if part.running:
            _send(part, True)
        elif coming:
            _announce_failure(part, len(parts))
    return Pace(rows)


@contextmanager
def _ending(parts: list[_Part]) -> Iterator[None]:
    """End the processes with the block. After Ctrl-C they first store what they have computed."""
    try:
        yield
    except KeyboardInterrupt:
        for part in parts:
            part.process.send_signal(signal.SIGINT)
        for part in parts:
            with suppress(subprocess.TimeoutExpired):
                part.process.wait(_GRACE)
        raise
    finally:
        for part in parts:
            part.process.kill()
            part.process.wait()
            for stream in (part.process.stdin, part.output):
                if stream is not None:
                    with suppress(OSError):  # data that the process did not read
                        stream.close()


@dataclass
class _Reporting(Watcher):
    """Sends what happens in this process to the one that started it."""

    answers: IO[bytes]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: _Message) -> None:
        """Send a message."""
        with self.lock:
            pickle.dump(message, self.answers)
            self.answers.flush()

    def begin(self, coming: Coming) -> None:
        """Report what is about to be stored, and wait for permission."""
        self.send(coming)
        pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one

    def find_nothing(self, folder: Path, part: int, parts: int) -> None:
        """Report nothing: if this holds for all processes, it is logged once."""

    def advance(self, done: int) -> None:
        """Report how many rows have been computed."""
        self.send(_Done(done))


class _Sending(logging.Handler):
    """Sends lines of the log."""

    def __init__(self, reporting: _Reporting, level: int) -> None:
        super().__init__(level)
        self._reporting = reporting

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._reporting.send(_Line(record.levelno, record.getMessage()))


def serve_part() -> None:
    """Fill a part of a store for the process that started this one; called in a new process."""
    end_with_parent(sys.argv.pop(1))
    reporting = _Reporting(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what plug-ins and libraries print
    recipe, overrides, part, parts, level = pickle.load(sys.stdin.buffer)  # noqa: S301 - as above
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(_Sending(reporting, level))
    try:
        fill(load_config(recipe, overrides, mode="train"), part, parts, reporting)
    except PpclsError as error:
        reporting.send(error)
        sys.exit(2)
