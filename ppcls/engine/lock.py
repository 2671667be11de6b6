"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ppcls.distributed import is_main
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HELD = {errno.EACCES, errno.EAGAIN}


def lock_path(folder: Path) -> Path:
    """Return the lock file of a run: beside its folder, because a new run renames that of an old one."""
    return folder.parent / f".{folder.name}.lock"


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` while the block runs; rank 0 does it for all processes of a run.

    The lock is the kernel's, on a file: it ends with the process, however that ends. It is a record lock
    (``lockf``), which children do not inherit, so that a loader process that outlives its run holds nothing.
    The file stays; only the lock on it counts.

    Raises:
        ConfigError: if another run holds the lock (its process and host are named), or the file cannot be
            made.
    """
    if not is_main():
        yield
        return
    path = lock_path(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(f"Global.output_dir: cannot write to {path.parent}: {error.strerror}") from None
    try:
        _acquire(handle, folder)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, folder: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no file locks")
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            raise ConfigError(_held_by(handle, folder)) from None
        LOGGER.warning(
            "%s: cannot be locked (%s); a second run in it would not be noticed", folder, error.strerror
        )
        return
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.datetime.now().isoformat(" ", "seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk; the lock holds without the note
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)


def _held_by(handle: int, folder: Path) -> str:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
        who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        who = "it left no name"
    return (
        f"Global.output_dir: another run is writing to {folder} ({who}). "
        "Wait for it or end it, or choose another folder with -o Global.output_dir=..."
    )
