"""Write files so that they are always complete, also after a kill at any moment or on a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ppcls.errors import ConfigError, WeightsError

_MANIFEST = "files.json"


def write_atomic(
    path: str | os.PathLike[str], writer: Callable[[BinaryIO], object], *, replace: bool = True
) -> bool:
    """Let `writer` fill a new file, and move it to `path` when it is complete and on the disk.

    If the writing fails, a file that was at `path` before stays unchanged. Leftovers of killed processes are
    removed.

    Args:
        path: of the file.
        writer: writes the content to the stream that it gets.
        replace: whether the new file takes the place of one that exists at this moment.

    Returns:
        whether the new file is at `path`; always true if `replace` is true.

    Raises:
        WeightsError: if the file cannot be written (disk full, no permission).
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent, target.name)
        with temporary.open("wb") as stream:
            writer(stream)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            os.replace(temporary, target)
        elif not _move_new(temporary, target):
            return False
        sync_folder(target.parent)
        return True
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _move_new(source: Path, target: Path) -> bool:
    """Move a file to a path, unless a file exists there; return whether it was moved."""
    try:
        os.link(source, target)  # unlike a rename, it fails if another process has just written the file
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if target.exists():
            return False
        os.replace(source, target)
    return True


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power failure, if the system can open folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class FileSet:
    """Files of one folder that are always replaced together; other files in the folder are not touched.

    New files are written into a hidden folder next to the old ones. When all of them are on the disk, the
    hidden folder is renamed: from this moment the new files are valid, and they are moved to their places. If
    the process is killed before, the old files stay valid, and afterwards the new ones; :meth:`place` returns
    where each file is, and :meth:`finish` completes the moving.

    Attributes:
        folder: folder of the files.
        label: part of the name of the hidden folder.
        names: files that belong to the set, in the order in which they are moved; files that are missing in a
            new set are removed. A new set may have additional files.
        last: those of `names` that must not exist together with older files: their old versions are removed
            first.
    """

    folder: Path
    label: str
    names: tuple[str, ...]
    last: tuple[str, ...] = ()

    @property
    def _complete(self) -> Path:
        """The folder of new valid files that may not all be in their places."""
        return self.folder / f".{self.label}.new"

    def place(self, name: str) -> Path | None:
        """Return the path of a file of the set; None if the set has no such file."""
        listed = self._listed()
        if listed is not None and name not in listed and name in self.names:
            return None  # an old file that will be removed
        places = (self._complete / name, self.folder / name)
        return next((path for path in places if path.is_file()), None)

    @contextlib.contextmanager
    def replacing(self) -> Iterator[Path]:
        """Yield a folder for new files, which replace the old ones if the block ends without an error.

        Raises:
            OSError: if a file cannot be written or moved.
        """
        created = [path for path in (self.folder, *self.folder.parents) if not path.is_dir()]
        self.folder.mkdir(parents=True, exist_ok=True)
        stage = self.folder / f".{self.label}.{os.getpid()}.tmp"
        try:
            self.finish()
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir()
            yield stage
            made = {path.name for path in stage.iterdir()}
            self._refuse_folders(made.union(self.names))
            listed = [*sorted(made.difference(self.names)), *(n for n in self.names if n in made)]
            (stage / _MANIFEST).write_text(json.dumps(listed), "utf-8")
            for path in stage.iterdir():
                _sync_file(path)
            sync_folder(stage)
            os.replace(stage, self._complete)
            self.finish()
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            with contextlib.suppress(OSError):  # it is not empty, unless nothing was written
                for path in created:
                    path.rmdir()

    def _refuse_folders(self, names: Iterable[str]) -> None:
        """Raise an error if a folder is in the place of a file, before the new files become valid."""
        for name in names:
            if (self.folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.folder / name))

    def finish(self) -> None:
        """Complete the replacement by a killed process if it wrote all files, otherwise remove its files.

        Raises:
            OSError: if a file cannot be moved or removed.
        """
        _remove_leftovers(self.folder, self.label)
        listed = self._listed()
        if listed is None:
            shutil.rmtree(self._complete, ignore_errors=True)  # it is empty, if it exists
            return
        for name in self.names:
            outdated = name in self.last and (self._complete / name).exists()
            if outdated or name not in listed:
                (self.folder / name).unlink(missing_ok=True)
        for name in listed:
            if (self._complete / name).exists():
                os.replace(self._complete / name, self.folder / name)
        sync_folder(self.folder)
        (self._complete / _MANIFEST).unlink()
        self._complete.rmdir()

    def _listed(self) -> list[str] | None:
        """Return the names of new files that may have to be moved; None if there are none."""
        try:
            found = json.loads((self._complete / _MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(found, list):
            return None
        return [name for name in found if isinstance(name, str) and os.path.basename(name) == name]


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _remove_leftovers(folder: Path, name: str) -> None:
    """Remove ``.<name>.<process>.tmp`` of processes that have ended."""
    for path in folder.glob(f".{_escaped(name)}.*.tmp"):
        process = path.name.removesuffix(".tmp").rpartition(".")[2]
        if process.isdecimal() and path.name == f".{name}.{process}.tmp" and not is_running(int(process)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def is_running(process: int) -> bool:
    """Tell whether a process of this machine is alive; True if that is unknown."""
    if os.name != "posix":
        return True  # the question would end it there
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def require_possible(folder: Path, where: str = "Global.output_dir") -> None:
    """Raise an error for names that no file system accepts, such as one of 300 characters.

    Raises:
        ConfigError: naming the setting `where`, the folder and the reason.
    """
    reason = None
    try:
        os.lstat(folder)
    except ValueError:
        reason = "a name has no zero bytes"
    except OSError as error:
        reason = error.strerror if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP) else None
    if reason is not None:
        raise ConfigError(f"{where}: cannot write to {str(folder)!r}: {reason}")


def require_writable(folder: Path, where: str = "Global.output_dir") -> None:
    """Check that `folder` is writable or can be created; change nothing.

    Raises:
        ConfigError: naming the setting `where`, the folder and the reason.
    """
    require_possible(folder, where)
    folder = Path(os.path.abspath(folder))
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))  # also a broken link
    reason = None
    if not there.is_dir():
        reason = os.strerror(errno.ENOTDIR)
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = os.strerror(errno.EROFS if _is_read_only(there) else errno.EACCES)
    if reason is not None:
        raise ConfigError(f"{where}: cannot write to {folder}: {reason}")


def _is_read_only(folder: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
