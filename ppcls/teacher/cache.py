"""Programs of networks on disk by fingerprint: each is written once and checked before each use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from ppcls.files import sync_folder
from ppcls.logger import LOGGER
from ppcls.weights.sources import cache_folder

FILES = "files.json"
KEPT = 16  # programs; those that were used last are kept
_BLOCK = 1 << 22


@contextlib.contextmanager
def stored_program(
    key: str, write: Callable[[Path], None], *, again: bool = False, keep: bool = True
) -> Iterator[tuple[Path, bool]]:
    """Yield the folder of a program, which is written if it is missing or incomplete.

    The folder must not be used after the block: another process may replace it then.

    Args:
        key: fingerprint of the program.
        write: writes the program into an empty folder.
        again: write it even if it exists.
        keep: put it into the cache; otherwise into a temporary folder.

    Yields:
        the folder, and whether it existed before. It is a temporary folder if the cache cannot be written.
    """
    home = cache_folder("programs")
    with contextlib.ExitStack() as stack:
        if not keep:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ppcls-")))
            write(folder)
            yield folder, False
            return
        folder = home / key
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(home / f".{key}.lock"))
            with contextlib.suppress(OSError):
                os.utime(folder)  # before it is read, so that no other process removes it
            exists = not again and is_whole(folder)
            if not exists:
                _fill(folder, write)
                _remove_oldest(home, folder)
        except (OSError, NotImplementedError) as error:  # a system without locks raises the latter
            exists = not again and is_whole(folder)  # written by another user who may write there
            if not exists:
                LOGGER.info("cannot write to %s: %s; using a temporary folder", home, error)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ppcls-")))
                write(folder)
        yield folder, exists


def _fill(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a program into a temporary folder, and rename that when it is complete."""
    part = folder.with_name(f".{folder.name}.tmp")  # a killed process may have left it; its lock is held here
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        write(part)
        (part / FILES).write_text(json.dumps(_checksums(part)), "utf-8")
        for path in part.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Tell whether all files of a stored program exist and are unchanged.

    Paddle also runs a program whose parameters are missing or damaged, and returns wrong results.
    """
    try:
        listed: Any = json.loads((folder / FILES).read_text("utf-8"))
        return isinstance(listed, dict) and bool(listed) and listed == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, list[int]]:
    return {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.name != FILES}


def _checksum(path: Path) -> list[int]:
    size = 0
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            size = size + len(block)
            crc = zlib.crc32(block, crc)
    return [size, crc]


def _remove_oldest(home: Path, newest: Path) -> None:
    """Remove the programs that were used longest ago, but none that was used within the last hour.

    Unfinished folders of killed processes are removed after a day.
    """
    with contextlib.suppress(OSError):
        for part in home.glob(".*.tmp"):
            if part.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(part, ignore_errors=True)
        folders = [path for path in home.iterdir() if path.is_dir() and not path.name.startswith(".")]
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for folder in folders[KEPT:]:
            if folder != newest and folder.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(folder, ignore_errors=True)
                (home / f".{folder.name}.lock").unlink(missing_ok=True)
