"""Training in several processes, started by Paddle's launcher on this machine or on each of several ones.

In addition to the launcher itself, this module checks the options for this machine, returns one meaningful
exit code, passes signals on, and prints the error of the failed process last. The launcher shows the lines of
process 0; the others write ``workerlog.<number>`` in the log folder. If wanted, a job that failed is started
again.

Until the start of the run has succeeded, no log is written into its folder: a failed start leaves nothing
there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ppcls.console import patient_console
from ppcls.cpu import threads
from ppcls.distributed import LOST, STARTED, STOPPING, gpus_for
from ppcls.errors import INTERRUPTED, ConfigError, show, was_interrupted
from ppcls.files import is_running
from ppcls.job import LAUNCHER, PLACE, announce_launcher, end_with_parent, world_size
from ppcls.machines import Machines

_LINES = 30  # the most lines of a log to show
_TEMPORARY = "ppcls-log-"  # followed by the number of the process that made the folder
_COPY_EVERY = 0.5  # seconds
_MOST_SIGNALS = 64
_PAUSE = 5.0  # seconds before a restart
# Exit codes after which a restart would change nothing or is not wanted: success, a mistake of the user, and
# the signals by which users end a run (SIGHUP, SIGINT, SIGTERM).
_FINAL = (0, 2, 129, 130, 143)
# What the log of a process says after SIGTERM: a crash report of Paddle, or a line of a training.
_TERMINATED = ("`Termination signal` is detected", f"SIGTERM: {STOPPING}")


def launch(
    arguments: Sequence[str],
    processes: int,
    device: str,
    logs: Path,
    *,
    machines: Machines | None = None,
    restarts: int = 0,
) -> int:
    """Run ``ppcls`` with `arguments` in several processes and wait for all of them.

    Args:
        arguments: the arguments after ``ppcls`` on the command line.
        processes: number of processes on this machine.
        device: ``Global.device``.
        logs: folder of the log files.
        machines: all machines, if there are several.
        restarts: how often the processes may be started again after a failure.

    Returns:
        exit code: 0 if every process succeeded, 128 + signal number after Ctrl-C, SIGTERM or SIGHUP, else
        that of the process that failed first.

    Raises:
        ConfigError: see :func:`ppcls.distributed.gpus_for`.
    """
    if threads.MISTAKE is not None:
        print(f"ppcls: {threads.MISTAKE}", file=sys.stderr)
    for done in itertools.count(1):
        code = _launch_once(arguments, processes, device, logs, machines)
        if done > restarts or code in _FINAL:
            return code
        print(
            f"ppcls: restart {done} of {restarts} in {_PAUSE:g} s, because the processes ended with exit "
            f"code {code}; the run continues from its newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(_PAUSE)  # a port may still be in use
    raise AssertionError("never reached")


def require_processes(processes: int) -> None:
    """Raise an error unless a number of processes can be started here.

    Raises:
        ConfigError: if it is no such number, or this process is itself one of several.
    """
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ConfigError(f"--nproc: expected at least 1, got {show(processes)}")
    if world_size() > 1:
        raise ConfigError(
            f"--nproc starts {processes} processes, but this one is already one of {world_size()} that "
            "a launcher started; use one of both"
        )


def _launch_once(
    arguments: Sequence[str], processes: int, device: str, logs: Path, machines: Machines | None
) -> int:
    """Run ``ppcls`` in several processes once, see :func:`launch`."""
    first = 0 if machines is None else machines.rank * processes
    total = processes * (1 if machines is None else len(machines.addresses))
    with _WorkerLogs(logs, processes, first) as written:
        command, environment = _command(processes, device, written.folder)
        if machines is not None:
            command += machines.options()
            environment |= machines.variables(environment)
        environment[STARTED] = str(written.started)
        script = str(Path(__file__).with_name("__main__.py"))
        # In a separate session: Ctrl-C reaches only this process, which passes it on.
        launcher = subprocess.Popen([*command, script, *arguments], env=environment, start_new_session=True)
        with passing_signals_to(launcher) as received:
            code = written.follow(launcher)
        if received:
            return 128 + received[0]
        if code not in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM):
            place = logs if written.started.exists() else None
            lines = {n: _read(file) for n, file in written.files.items()}
            codes = written.codes()
            print(_explain(lines, place, total, codes), file=sys.stderr)
            return _code_of_the_cause(code, _causes(lines), codes)
        return code


class _WorkerLogs:
    """The logs of the processes, in a temporary folder and, once the run has started, also in its folder.

    Attributes:
        folder: the temporary folder.
        files: the log of each process in that folder.
        started: a file that exists once the start of the run has succeeded, see
            `ppcls.distributed.announce_start`.

    Args:
        logs: folder of the run's logs; earlier logs there are continued.
        processes: number of processes of this machine.
        first: number of the first of them among those of all machines.

    Raises:
        ConfigError: if there is no room for temporary files.
    """

    def __init__(self, logs: Path, processes: int, first: int = 0) -> None:
        self.logs = logs
        try:
            _remove_logs_of_ended()
            self.folder = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{os.getpid()}-"))
        except OSError as error:
            raise ConfigError(f"--nproc: no folder for temporary files ({error}); set TMPDIR") from None
        self.files = {first + place: self.folder / f"workerlog.{place}" for place in range(processes)}
        self.started = self.folder / "started"
        self._copied = dict.fromkeys(self.files, 0)

    def __enter__(self) -> _WorkerLogs:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def follow(self, launcher: subprocess.Popen[bytes]) -> int:
        """Copy the logs until `launcher` ends; return its exit code."""
        while True:
            try:
                code = launcher.wait(timeout=_COPY_EVERY)
            except subprocess.TimeoutExpired:
                self._copy()
            else:
                self._copy()
                return code

    def codes(self) -> dict[int, int]:
        """Return the exit codes that processes announced, see `ppcls.distributed.announce_end`."""
        files = {number: self.folder / f"code.{number}" for number in self.files}
        texts = {number: file.read_text() for number, file in files.items() if file.exists()}
        return {number: int(text) for number, text in texts.items() if text}

    def _copy(self) -> None:
        """Append new lines to the logs of the run."""
        if not self.started.exists():
            return
        for number, file in self.files.items():
            new = _read_from(file, self._copied[number])
            if new:
                self._copied[number] += len(new)
                # A full disk: the run does not depend on its logs.
                with contextlib.suppress(OSError):
                    self.logs.mkdir(parents=True, exist_ok=True)
                    with (self.logs / f"workerlog.{number}").open("ab") as stream:
                        stream.write(new)


def _remove_logs_of_ended() -> None:
    """Remove the temporary logs of commands that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*-*"):
        process = folder.name.removeprefix(_TEMPORARY).partition("-")[0]
        if process.isdecimal() and not is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def run_launcher() -> None:
    """Run Paddle's launcher in a process that ends together with the one that started it.

    ``sys.argv`` holds the number of that process and the launcher's own arguments.
    """
    end_with_parent(sys.argv.pop(1))
    announce_launcher()
    warnings.filterwarnings("ignore", message="No ccache found")  # Paddle's message about itself
    with patient_console():
        try:
            from paddle.distributed.launch.main import launch as launch_paddle
        except (ImportError, KeyboardInterrupt) as error:
            if not was_interrupted(error):
                raise
            print(INTERRUPTED, file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        launch_paddle()


def _command(processes: int, device: str, logs: Path) -> tuple[list[str], dict[str, str]]:
    """Return the launcher's command line and the environment to run it in."""
    import paddle

    gpus = gpus_for(processes, device)
    start = "from ppcls.launch import run_launcher; run_launcher()"
    command = [sys.executable, "-c", start, str(os.getpid())]
    command += ["--nproc_per_node", str(processes), "--log_dir", str(logs)]
    command += ["--log_level", "WARNING"]  # otherwise it prints thirty lines about itself
    outside = {name: value for name, value in os.environ.items() if name not in (*PLACE, *LAUNCHER)}
    environment = {"GLOG_minloglevel": "1", **with_this_package(outside)}  # no lines about its connections
    if threads.CHOSEN is None:
        environment[threads.NOT_CHOSEN] = "1"
    if not paddle.device.is_compiled_with_cuda():
        # The launcher of a CPU build treats this variable as a list of GPUs, and crashes if it is short.
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        return command, environment
    if gpus:
        command += ["--gpus", ",".join(map(str, range(gpus)))]
    return command, environment


def with_this_package(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which another Python finds this ppcls, and no module beside a script."""
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONSAFEPATH": "1", "PYTHONPATH": path}


@contextmanager
def passing_signals_to(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass Ctrl-C and SIGTERM on to `process` while the block runs; yield the list of received signals.

    Closing the terminal (SIGHUP) also ends the run in order, unless ``nohup`` is used.
    """
    received: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        process.send_signal(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)

    signals = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    old = {signum: signal.signal(signum, pass_on) for signum in signals}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def _read_from(file: Path, start: int) -> bytes:
    """Return the content of a log from byte `start`; nothing if it does not exist."""
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            return stream.read()
    except FileNotFoundError:
        return b""


def _read(file: Path) -> list[str]:
    """Return the lines of a log."""
    return _read_from(file, 0).decode(errors="replace").splitlines()


def _explain(
    logs: dict[int, list[str]], folder: Path | None, total: int | None = None, announced: Collection[int] = ()
) -> str:
    """Return the errors of the processes that caused the failure; if unknown, the last lines of suspects.

    Args:
        logs: lines by process.
        folder: folder of the logs; None if they are not kept.
        total: number of processes of all machines; default: there is only this one.
        announced: processes that announced their exit code, so that none of them was killed.
    """
    total = total or len(logs)
    found = _causes(logs)
    parts = []
    if not found:
        found = {number: lines[-5:] for number, lines in _suspects(logs, announced).items()}
        elsewhere = "" if total == len(logs) else " The cause may be in the output of another machine."
        killed = f"Process {next(iter(found))}" if len(found) == 1 and not elsewhere else "One"
        parts.append(
            f"ppcls: no process says why it ended.{elsewhere} {killed} was probably killed, mostly because "
            "memory ran out; the system's log (`dmesg`) shows that. Checkpoints are whole; resume with "
            "--resume auto"
        )
    for number, lines in found.items():
        place = "" if folder is None else f" ({folder / f'workerlog.{number}'})"
        parts.append(f"ppcls: process {number} of {total}{place}:")
        parts += [f"  {line}" for line in lines[-_LINES:]]
    return "\n".join(parts)


def _causes(logs: dict[int, list[str]]) -> dict[int, list[str]]:
    """Return the errors of the processes that caused the failure."""
    errors = {number: _error(lines) for number, lines in logs.items()}
    return {n: lines for n, lines in errors.items() if lines and not any(LOST in line for line in lines)}


def _suspects(logs: dict[int, list[str]], announced: Collection[int]) -> dict[int, list[str]]:
    """Return the logs of the processes that the launcher did not end; those of all if there is none."""
    left = {
        number: lines
        for number, lines in logs.items()
        if number not in announced and not any(text in line for text in _TERMINATED for line in lines)
    }
    return left or logs


def _code_of_the_cause(code: int, causes: Iterable[int], codes: dict[int, int]) -> int:
    """Return the most informative exit code of a job.

    Args:
        code: exit code of the launcher, which may be the negative number of a signal, also as a byte.
        causes: processes that caused the failure.
        codes: exit codes that processes announced; killed ones and those with a traceback announce none.
    """
    own = [codes.get(number) or 1 for number in causes]
    if own:
        return own[0]
    if code in (-signal.SIGKILL, 256 - signal.SIGKILL):
        return 128 + signal.SIGKILL
    return code if 0 < code <= 128 + _MOST_SIGNALS else 1  # else the launcher ended it


def _error(lines: list[str]) -> list[str]:
    """Return the lines of a log from its last error message or traceback."""
    starts = [
        i for i, line in enumerate(lines) if line.startswith(("ppcls: ", "Traceback (most recent call last)"))
    ]
    return lines[starts[-1] :] if starts else []
