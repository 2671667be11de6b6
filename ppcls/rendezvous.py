"""The first connection of the processes of a training, before Paddle connects them.

Process 0 waits at the address that Paddle will use later. The other processes send it their rank and a note
about their work, and get the notes of all processes. So a missing process, an address in use, and processes
of different trainings are reported within seconds, with names. Paddle would wait for a quarter of an hour, or
continue to train.

Process 0 sends first, so nothing is sent to another program that may listen at the address.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from ppcls.errors import TrainingError
from ppcls.job import PATIENCE, SIZE, Job, split_endpoint

_GREETING = b"ppcls meeting 1\n"
_LARGEST = 64 << 20  # largest size of a note in bytes
_ANSWER = 5.0  # seconds to wait for a line that the other side should send at once
_PORT_WAIT = 10.0  # seconds to wait for the port, which an earlier run may still be using
_NOTICE = 10.0  # seconds until a message says which processes are missing
_LOGGER = logging.getLogger("ppcls")


def meet(job: Job, note: Any, patience: float) -> list[Any]:
    """Wait until all processes are connected.

    Args:
        job: the processes of the training, and which one this is.
        note: information about this process; anything that JSON can represent.
        patience: longest time to wait, in seconds.

    Returns:
        the notes of all processes, in order of rank.

    Raises:
        TrainingError: if a process is missing, or the address is in use.
    """
    meeting = _host if job.rank == 0 else _visit
    return meeting(job, note, patience)


# ---------------------------------------------------------------------- process 0


def _host(job: Job, note: Any, patience: float) -> list[Any]:
    end = time.monotonic() + patience
    guests: dict[int, tuple[socket.socket, Any]] = {}
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(job, end))
        notice = time.monotonic() + _NOTICE
        problem = ""
        while not problem:
            missing = [r for r in range(1, job.size) if r not in guests or _has_left(guests[r][0])]
            if not missing:
                break
            now = time.monotonic()
            if now > end:
                problem = _absent(job, missing)
            elif now > notice:
                _LOGGER.info("waiting for %s of %d", _names(job, missing), job.size)
                notice = end
            else:
                problem = _welcome(listener, job, guests, stack, min(end, notice))
        # Before a process leaves: otherwise Paddle would connect to this socket and be cut off.
        listener.close()
        notes = [note, *(guests[rank][1] for rank in range(1, job.size))] if not problem else []
        answer = json.dumps({"problem": problem, "notes": notes}).encode() + b"\n"
        for link, _ in guests.values():
            _dismiss(link, answer)
    if problem:
        raise TrainingError(problem)
    return notes


def _listen(job: Job, end: float) -> socket.socket:
    """Return a socket that listens at the port; wait if an earlier run is still using it."""
    port = split_endpoint(job.master, job.source)[1]
    end = min(end, time.monotonic() + _PORT_WAIT)
    while True:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen(job.size)
        except OSError as error:
            listener.close()
            if time.monotonic() < end:
                time.sleep(0.5)
                continue
            raise TrainingError(
                f"{job.name(0)} of {job.size}: port {port} cannot be used ({error.strerror}), where the "
                f"processes are to meet ({job.source}={job.master}). Another program has it, maybe a "
                "training that has not ended: end that one, or name another port (`--master` of the launcher)"
            ) from None
        return listener


def _welcome(
    listener: socket.socket,
    job: Job,
    guests: dict[int, tuple[socket.socket, Any]],
    stack: ExitStack,
    end: float,
) -> str:
    """Accept one process; return the problem with it, or an empty string."""
    listener.settimeout(min(1.0, max(0.1, end - time.monotonic())))
    try:
        link = stack.enter_context(listener.accept()[0])
        link.settimeout(_ANSWER)
        link.sendall(_GREETING)
        said = json.loads(_line(link))
        rank = int(said["rank"])
        size = int(said["size"])
        note = said["note"]
    except (OSError, ValueError, KeyError, TypeError):  # no connection, or another program
        return ""
    if size != job.size:
        return f"process {rank} was started as one of {size}, process 0 as one of {job.size} ({SIZE})"
    if not 0 < rank < job.size or (rank in guests and not _has_left(guests[rank][0])):
        return f"two processes say that they are process {rank} of {size} (PADDLE_TRAINER_ID)"
    guests[rank] = (link, note)
    return ""


def _has_left(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        return link.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _dismiss(link: socket.socket, answer: bytes) -> None:
    """Send the answer and let the other side close first, because Paddle needs the port at once."""
    with suppress(OSError):
        link.settimeout(_ANSWER)
        link.sendall(answer)
        link.recv(1)


def _absent(job: Job, missing: list[int]) -> str:
    return (
        f"{_names(job, missing)} of {job.size} did not start, or did not reach process 0 at {job.master} "
        f"({job.source}). Start all {job.size} processes ({SIZE}) with the same address; the environment "
        f"variable {PATIENCE} allows them more seconds"
    )


def _names(job: Job, ranks: list[int]) -> str:
    shown = ", ".join(job.name(rank) for rank in ranks[:8])
    return shown + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")


# ---------------------------------------------------------------------- the others


def _visit(job: Job, note: Any, patience: float) -> list[Any]:
    hello = json.dumps({"rank": job.rank, "size": job.size, "note": note}).encode() + b"\n"
    start = time.monotonic()
    noticed = False
    while True:
        try:
            answer, reason = _ask(job, hello, patience)
        except OSError as error:
            answer = None
            reason = error.strerror or str(error)
        if answer is not None:
            break
        waited = time.monotonic() - start
        if waited > patience:
            _give_up(job, reason)
        if waited > _NOTICE and not noticed:
            _LOGGER.info("waiting for process 0 of %d at %s: %s", job.size, job.master, reason)
            noticed = True
        time.sleep(0.2)
    if answer["problem"]:
        raise TrainingError(f"{answer['problem']} (said by process 0)")
    notes: list[Any] = answer["notes"]
    return notes


def _ask(job: Job, hello: bytes, patience: float) -> tuple[dict[str, Any] | None, str]:
    """Return the answer of process 0, or None and the reason."""
    address = split_endpoint(job.master, job.source)
    with socket.create_connection(address, timeout=_ANSWER) as link:
        try:
            greeting = _line(link, len(_GREETING))
        except (TimeoutError, ConnectionError):
            greeting = b""
        if greeting != _GREETING:
            return None, "something answers there that is not process 0 of a training"
        link.sendall(hello)
        link.settimeout(patience + _ANSWER)  # process 0 may have started later, and waits just as long
        return json.loads(_line(link)), ""


def _give_up(job: Job, reason: str) -> NoReturn:
    raise TrainingError(
        f"process {job.rank} of {job.size} does not find process 0 at {job.master} ({job.source}): {reason}. "
        f"Process 0 has to run on that machine and be started at about the same time; the environment "
        f"variable {PATIENCE} allows more seconds"
    )


def _line(link: socket.socket, largest: int = _LARGEST) -> bytes:
    """Receive a line.

    Raises:
        OSError: if the other side closes, sends more than `largest` bytes or is too slow.
    """
    received = bytearray()
    while not received.endswith(b"\n"):
        block = link.recv(min(1 << 16, largest - len(received)))
        if not block:
            raise ConnectionError(
                "the connection was closed" if len(received) < largest else "no end of line"
            )
        received += block
    return bytes(received)
