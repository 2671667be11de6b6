"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import weakref
from pathlib import Path

from filelock import lock_descriptor

from ppcls.distributed import is_main
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER


def lock_path(folder: Path) -> Path:
    """Return the lock file of a run: next to its folder, because a new run renames an old folder."""
    return folder.parent / f".{folder.name}.lock"


class RunLock:
    """Lock `folder` against other runs while the block runs; rank 0 does it for all processes of a run.

    The lock is the system's, on a file: it ends with the process, however that ends. A forked child gives it
    back, so that a child that outlives its run holds nothing. The file stays; only the lock on it counts.

    Entering the block locks the file of an earlier run, where there is one, and changes no file. The file is
    made by :meth:`claim`, and says who holds it after :meth:`sign`.

    Args:
        folder: where the run writes.

    Raises:
        ConfigError: when entered or claimed, if another run holds the lock (its process and host are named),
            or the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = lock_path(folder)
        self._handle: int | None = None
        _LOCKS.add(self)

    def __enter__(self) -> RunLock:
        if is_main() and self.path.exists():
            self._open(os.O_RDWR)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. In a forked child this leaves the lock of its parent as it is."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def claim(self) -> bool:
        """Make the file if there is none and lock it; return whether it was made."""
        if self._handle is not None:
            return False
        try:
            self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:  # by a run that was started a moment ago
            self._open(os.O_RDWR)
            return False
        self.sign()
        return True

    def sign(self) -> None:
        """Note in the file who holds the lock."""
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now().isoformat(" ", "seconds"),
        }
        if self._handle is not None:
            with contextlib.suppress(OSError):  # a full disk; the lock holds without the note
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, json.dumps(owner).encode(), 0)

    def _open(self, flags: int) -> None:
        try:
            handle = os.open(self.path, flags, 0o666)
        except FileExistsError:
            raise
        except OSError as error:
            raise ConfigError(
                f"Global.output_dir: cannot write to {self.path.parent}: {error.strerror}"
            ) from None
        try:
            _acquire(handle, self.folder)
        except ConfigError:
            os.close(handle)
            raise
        self._handle = handle


_LOCKS: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in _LOCKS:
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _acquire(handle: int, folder: Path) -> None:
    try:
        free = lock_descriptor(handle, blocking=False)
    except OSError as error:
        LOGGER.warning(
            "%s: cannot be locked (%s); a second run in it would not be noticed", folder, error.strerror
        )
        return
    if not free:
        raise ConfigError(_held_by(handle, folder))


def _held_by(handle: int, folder: Path) -> str:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
        who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
        if owner["host"] == socket.gethostname() and not _is_alive(int(owner["pid"])):
            who = "it is starting"  # and has not yet replaced the note of the run before
    except (ValueError, KeyError, TypeError):
        who = "it left no name"
    return (
        f"Global.output_dir: another run is writing to {folder} ({who}). "
        "Wait for it or end it, or choose another folder with -o Global.output_dir=..."
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True
