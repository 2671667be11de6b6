"""Which process of a training this is: the environment variables of Paddle's launcher.

They are checked here before Paddle reads them: with wrong ones Paddle shows a traceback or waits for a
quarter of an hour. This module imports nothing slow.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ppcls.errors import ConfigError

RANK = "PADDLE_TRAINER_ID"
SIZE = "PADDLE_TRAINERS_NUM"
LOCAL_SIZE = "PADDLE_LOCAL_SIZE"
MASTER = "PADDLE_MASTER"
ENDPOINTS = "PADDLE_TRAINER_ENDPOINTS"
OWN_ENDPOINT = "PADDLE_CURRENT_ENDPOINT"
BACKEND = "PADDLE_DISTRI_BACKEND"
PATIENCE = "FLAGS_stop_check_timeout"  # Paddle's name for the longest duration of a start, in seconds
DEFAULT_PATIENCE = 40.0
BACKENDS = ("auto", "gloo", "nccl", "bkcl", "xccl", "flagcx", "heter")
# Variables that Paddle converts to numbers when processes connect, with its defaults.
NUMBERS = {PATIENCE: "900", "PADDLE_PG_TIMEOUT": "1800000", "FLAGS_nccl_nrings": "1", "PADDLE_WITH_GLOO": "0"}
# Variables that describe this process as one of several.
PLACE = (
    *(RANK, SIZE, MASTER, ENDPOINTS, OWN_ENDPOINT, "MASTER_ADDR", "MASTER_PORT", "PADDLE_RANK_IN_NODE"),
    *("PADDLE_GLOBAL_RANK", "PADDLE_GLOBAL_SIZE", "PADDLE_LOCAL_RANK", LOCAL_SIZE),
)
# Variables that replace options of the launcher; `ppcls train --nproc` gives all of them as options.
LAUNCHER = (
    *(
        "POD_IP",
        "PADDLE_DEVICES",
        "PADDLE_NNODES",
        "PADDLE_RUN_MODE",
        "PADDLE_LOG_LEVEL",
        "PADDLE_LOG_OVERWRITE",
    ),
    *("PADDLE_SORT_IP", "PADDLE_NPROC_PER_NODE", "PADDLE_JOB_ID", "PADDLE_RANK", "PADDLE_LOG_DIR"),
    *("PADDLE_MAX_RESTART", "PADDLE_ELASTIC_LEVEL", "PADDLE_ELASTIC_TIMEOUT", "PADDLE_SERVER_NUM"),
    *("PADDLE_TRAINER_NUM", "PADDLE_SERVERS_ENDPOINTS", "PADDLE_TRAINERS_ENDPOINTS", "PADDLE_GLOO_PORT"),
    *("PADDLE_START_PORT", "PADDLE_IPS", "PADDLE_AUTO_PARALLEL_CONFIG", "PADDLE_AUTO_CLUSTER"),
    *("PADDLE_BACKUP_ENV_PATH", "PADDLE_ENV_LIMIT_LEN", "FLAGS_FIXED_PORT", "PORT_RANGE"),
)
_STARTED_BY_LAUNCHER = "PADDLE_BACKUP_ENV_PATH"  # set by the launcher in each of its processes
_LAUNCHER_PID = "PPCLS_LAUNCHER"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """The processes of a training, and which one this is.

    Attributes:
        rank: index of this process.
        size: number of processes.
        master: ``host:port`` at which process 0 waits for the others; empty with one process.
        source: the variable that contains `master`.
        endpoints: ``host:port`` of each process; empty if the launcher does not give them.
    """

    rank: int
    size: int
    master: str = ""
    source: str = ""
    endpoints: tuple[str, ...] = ()

    def name(self, rank: int) -> str:
        """Return the name of a process in messages."""
        where = f" ({self.endpoints[rank]})" if self.endpoints else ""
        return f"process {rank}{where}"


def rank() -> int:
    """Return the index of this process; 0 if there is only one."""
    return _number(RANK, "0", least=0)


def world_size() -> int:
    """Return the number of training processes."""
    return _number(SIZE, "1", least=1)


def local_size() -> int:
    """Return the number of training processes on this machine."""
    return _number(LOCAL_SIZE, str(world_size()), least=1)


def read_job() -> Job:
    """Return the description of this process and of the whole training.

    Raises:
        ConfigError: if a variable is wrong; the message names it, its value and the expectation.
    """
    own = rank()
    size = world_size()
    text = os.environ.get(ENDPOINTS, "")
    endpoints = tuple(text.split(",")) if text else ()
    if own >= size:
        given = f"{SIZE}={size}" if SIZE in os.environ else f"{SIZE} is not set, which means 1"
        raise ConfigError(f"{RANK}={own}: expected a number below that of processes ({given})")
    if endpoints and len(endpoints) != size:
        given = f"{SIZE}={size}" if SIZE in os.environ else f"{SIZE} is not set, which means 1"
        raise ConfigError(f"{ENDPOINTS}={text}: expected one address for each process ({given})")
    for name, default in NUMBERS.items():
        _number(name, default, least=0)
    if size == 1:
        return Job(own, size)
    for endpoint in endpoints:
        split_endpoint(endpoint, f"{ENDPOINTS}={text}")
    if len(set(endpoints)) < len(endpoints):
        raise ConfigError(f"{ENDPOINTS}={text}: expected a different address for each process")
    _check_own_endpoint(own, size, endpoints)
    backend = os.environ.get(BACKEND, "auto")
    if backend not in BACKENDS:
        raise ConfigError(f"{BACKEND}={backend}: expected one of {', '.join(BACKENDS)}")
    master, source = _master(endpoints)
    split_endpoint(master, f"{source}={master}")
    return Job(own, size, master, source, endpoints)


def _number(name: str, default: str, least: int) -> int:
    text = os.environ.get(name, default)
    if not (text.strip().isascii() and text.strip().isdecimal() and len(text) < 20 and int(text) >= least):
        raise ConfigError(
            f"{name}={text!r}: expected a whole number of at least {least}. Paddle's launcher sets this "
            f"variable; without the launcher, leave it out (`unset {name}`)"
        )
    return int(text)


def split_endpoint(endpoint: str, where: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; `where` begins the message about a wrong value."""
    host, _, port = endpoint.partition(":")
    if host.strip() and port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536:
        return host, int(port)
    raise ConfigError(f"{where}: expected host:port, such as 10.0.0.1:38714, got {endpoint!r}")


def _check_own_endpoint(own: int, size: int, endpoints: tuple[str, ...]) -> None:
    """Compare this process's address with that in the list of all."""
    given = os.environ.get(OWN_ENDPOINT)
    if not given and not endpoints:
        raise ConfigError(
            f"{OWN_ENDPOINT} and {ENDPOINTS} are not set, but {SIZE}={size}: expected host:port of this "
            "process and of all. Paddle's launcher sets them: `ppcls train --nproc`, or `python -m "
            "paddle.distributed.launch`"
        )
    if not given:
        os.environ[OWN_ENDPOINT] = given = endpoints[own]  # Paddle needs it
    split_endpoint(given, f"{OWN_ENDPOINT}={given}")
    if endpoints and given != endpoints[own]:
        raise ConfigError(
            f"{OWN_ENDPOINT}={given}: expected {endpoints[own]}, which {ENDPOINTS} says of process {own} "
            f"({RANK})"
        )


def _master(endpoints: tuple[str, ...]) -> tuple[str, str]:
    """Return the address at which process 0 waits, and its variable; Paddle searches in this order."""
    if os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT"):
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", "MASTER_ADDR:MASTER_PORT"
    if MASTER in os.environ:
        return os.environ[MASTER], MASTER
    if endpoints:
        return endpoints[0], ENDPOINTS
    raise ConfigError(f"neither {MASTER} nor {ENDPOINTS} is set: expected host:port of process 0")


def patience() -> float:
    """Return the seconds in which all processes of a training have to start."""
    return float(_number(PATIENCE, str(int(DEFAULT_PATIENCE)), least=0))


@contextlib.contextmanager
def limited_patience() -> Iterator[None]:
    """Limit Paddle's waiting time to ours unless the user sets it; Paddle's default is 15 minutes."""
    given = os.environ.get(PATIENCE)
    os.environ[PATIENCE] = str(int(patience()))
    try:
        yield
    finally:
        if given is None:
            del os.environ[PATIENCE]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hide the variables of several processes, for a command that runs in one."""
    hidden = {name: os.environ.pop(name) for name in (*PLACE, *NUMBERS) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def end_with_launcher() -> None:
    """Let the kernel end this process if Paddle's launcher, which started it, ends (Linux only).

    Otherwise a process of a killed launcher would continue to train unseen, or wait endlessly for others. A
    process that was not started by a launcher is not affected: its shell may have ended on purpose.
    """
    if _STARTED_BY_LAUNCHER in os.environ:
        end_with_parent(os.environ.pop(_LAUNCHER_PID, None))


def end_on_sigterm() -> None:
    """Let SIGTERM end this process, or call its handler in Python, as it did before Paddle was imported.

    Paddle reports the signal as a crash, for which it needs memory: a process that was just asking for memory
    itself then waits endlessly for its own lock. Processes of Paddle's launcher keep the report: the launcher
    kills whoever does not end, and recognises by the report whom it has ended.
    """
    handler = signal.getsignal(signal.SIGTERM)
    of_main_thread = threading.current_thread() is threading.main_thread()
    if handler is not None and of_main_thread and _STARTED_BY_LAUNCHER not in os.environ:
        signal.signal(signal.SIGTERM, handler)


def announce_launcher() -> None:
    """Tell the processes that this one starts that it is their launcher."""
    os.environ[_LAUNCHER_PID] = str(os.getpid())


def end_with_parent(parent: str | None = None) -> None:
    """Let the kernel kill this process when its parent ends, also while it is stopped or busy.

    Args:
        parent: process number of the parent, if known: this process ends at once if the parent has already
            ended.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and parent != str(os.getppid()):
        os._exit(1)
