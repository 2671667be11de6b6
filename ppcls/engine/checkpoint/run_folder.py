"""The folder of a run: checks before the start, and the moment from which it changes.

A start may fail for many reasons, and the folder may contain a run of several days. So nothing is changed
until everything that can fail has succeeded. Then :func:`open_run_folder` writes the files of the new run
next to the folder. Only when they are on the disk, an earlier run is renamed and the new files are moved.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ppcls.config import Recipe, RecipeTree
from ppcls.data import Dataset
from ppcls.engine.build import run_files
from ppcls.engine.checkpoint import Checkpoint, Checkpointer, name_for_earlier_run
from ppcls.engine.checkpoint.lock import RunLock
from ppcls.errors import ConfigError
from ppcls.files import require_writable, sync_folder
from ppcls.logger import LOGGER, METRICS, SCALAR_FOLDERS, cut_back

# Paths to which a run writes; it does not read from them.
WRITTEN = re.compile(r"Global\.(output_dir|run_name|save_inference_dir)")


def resumes_in_place(folder: Path, resumed: Checkpoint | None) -> bool:
    """Tell whether a run is resumed in its own folder."""
    return resumed is not None and folder.is_dir() and resumed.where.parent.samefile(folder)


def finish_saves(folder: Path) -> None:
    """Finish the last save of a run that was killed after its commit: files may still have to be renamed.

    A folder that cannot be written stays as it is, because every checkpoint is read as if that were done.
    """
    checkpointer = Checkpointer(folder)
    with contextlib.suppress(OSError):
        for commit in list(folder.glob("*.commit")):
            checkpointer.recover(commit.stem)


def check_run_folder(folder: Path, config: Recipe, resumed: Checkpoint | None) -> None:
    """Raise an error for a folder that this run cannot use; change nothing.

    Raises:
        ConfigError: if it cannot be written, or it contains an earlier run, which would be renamed, together
            with images or lists that this run reads.
    """
    require_writable(folder)
    if not _is_renamed(folder, resumed):
        for option, name in SCALAR_FOLDERS.items():
            if config.Global[option]:
                require_writable(folder / name, f"Global.{option}")
        return
    for node, key, where in _texts(config.DataLoader, "DataLoader"):
        if _is_there(node[key], folder):
            raise ConfigError(f"{where}: {node[key]} {_would_be_renamed(folder)}")


def check_images(folder: Path, datasets: Mapping[str, Dataset], resumed: Checkpoint | None) -> None:
    """Raise an error for images in a folder that would be renamed.

    Args:
        folder: folder of the run.
        datasets: the datasets of the run, by config path.
        resumed: the checkpoint to resume.

    Raises:
        ConfigError: naming the dataset and the first such image.
    """
    if not _is_renamed(folder, resumed):
        return
    for where, dataset in datasets.items():
        for path in dataset.paths_with(folder.name):
            if _place_in(path, folder) is not None:
                raise ConfigError(f"{where}: {path} {_would_be_renamed(folder)}")


def _is_renamed(folder: Path, resumed: Checkpoint | None) -> bool:
    return not resumes_in_place(folder, resumed) and name_for_earlier_run(folder) is not None


def _would_be_renamed(folder: Path) -> str:
    return (
        f"lies in {folder}, which holds an earlier run and would be renamed; move the data, or choose "
        "another folder with -o Global.output_dir=..."
    )


def open_run_folder(
    folder: Path,
    config: Recipe,
    resumed: Checkpoint | None,
    lock: RunLock,
    *,
    changed: bool,
    keep: Callable[[dict[str, Any]], bool],
    more: Mapping[str, bytes],
    noted: Mapping[str, Any],
) -> None:
    """Create the folder of a run; an earlier run in it that is not resumed in place is renamed.

    This is the first change on the disk. If it fails, everything is restored.

    Args:
        folder: where the run writes.
        config: written as ``config.yaml``; paths into an earlier run that is renamed follow it.
        resumed: the checkpoint to resume.
        lock: lock of the folder.
        changed: the config differs from that of the run to resume, which is then kept under another name.
        keep: tells which rows of ``metrics.jsonl`` to keep if the run is resumed in place.
        more: content of further files by name.
        noted: further entries of ``environment.json``.

    Raises:
        ConfigError: if the folder cannot be written, or another run has started in it meanwhile.
    """
    with _claimed(folder, lock):
        in_place = resumes_in_place(folder, resumed)
        earlier = None if in_place else name_for_earlier_run(folder)
        files: dict[str, bytes] = {}
        if resumed is not None and in_place and changed:
            before = f"config.until_step_{resumed.progress.step}.yaml"
            if not (folder / before).exists():  # after a second change at the same step: the first led there
                files[before] = (folder / "config.yaml").read_bytes()
        metrics = cut_back(folder / METRICS, keep) if in_place else b""
        if metrics is not None:
            files[METRICS] = metrics
        files |= more
        files |= run_files(config if earlier is None else following(config, folder, earlier), noted)
        _require_no_folders(folder / name for name in files)
        with _staged(folder, files, inside=earlier is None and folder.is_dir()) as staged:
            if earlier is None:
                _move_files(staged, folder)
            else:
                _replace_folder(staged, folder, earlier)
    Checkpointer(earlier or folder).clean()
    lock.sign()


@contextlib.contextmanager
def _claimed(folder: Path, lock: RunLock) -> Iterator[None]:
    """Create the parent folders and claim the lock; undo both if the block fails."""
    absent = [parent for parent in folder.parents if not parent.exists()]
    there = next(parent for parent in folder.parents if parent.exists())
    times = {path: path.stat() for path in (folder, there) if path.exists()}
    made = False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = lock.claim()
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            if made:
                lock.path.unlink()
            for parent in absent:
                parent.rmdir()
            for path, before in times.items():
                if path.stat().st_mtime_ns != before.st_mtime_ns:
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if isinstance(error, OSError):
            what = f": {error.filename}" if error.filename else ""
            raise ConfigError(
                f"Global.output_dir: cannot write to {folder}: {error.strerror}{what}"
            ) from None
        raise


@contextlib.contextmanager
def _staged(folder: Path, files: Mapping[str, bytes], *, inside: bool) -> Iterator[Path]:
    """Yield a hidden folder with `files`, all on the disk; it is removed afterwards.

    It is next to `folder`, which it may replace, or `inside` of it, because that may be on another disk.
    """
    for home in (folder, folder.parent):
        for remains in home.glob(f".{glob.escape(folder.name)}.*.tmp"):  # from a start that was killed
            shutil.rmtree(remains, ignore_errors=True)
    staged = (folder if inside else folder.parent) / f".{folder.name}.{os.getpid()}.tmp"
    try:
        staged.mkdir()
        for file, content in files.items():
            with (staged / file).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _require_no_folders(places: Iterable[Path]) -> None:
    for place in places:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))


def _move_files(staged: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(staged, folder)
        return
    for file in sorted(staged.iterdir()):  # config.until_step_N.yaml before config.yaml
        os.replace(file, folder / file.name)
    sync_folder(folder)


def _replace_folder(staged: Path, folder: Path, earlier: Path) -> None:
    os.rename(folder, earlier)
    try:
        os.rename(staged, folder)
    except BaseException:
        os.rename(earlier, folder)
        raise
    LOGGER.info("%s holds an earlier run; it is kept as %s", folder, earlier)


# ---------------------------------------------------------------- paths into a folder that is renamed


def following(config: Recipe, folder: Path, earlier: Path) -> Recipe:
    """Return a copy of a config in which paths into `folder` are replaced by paths into `earlier`."""
    config = copy.deepcopy(config)
    for node, key, where in _texts(config):
        if not WRITTEN.fullmatch(where) and _is_there(node[key], folder):
            node[key] = str(earlier / str(_place_in(node[key], folder)))
    return config


def follow_earlier_run(config: Recipe, recorded: RecipeTree, folder: Path) -> None:
    """Update paths into the earlier run that was renamed when the run to resume began.

    A recipe may name weights in its own output folder, such as those of a teacher trained there before. Its
    run then reads them from ``<folder>.earlier-1``. A resumed run must do the same, because `folder` now
    contains weights of the run itself.

    Args:
        config: config of this start; it is changed.
        recorded: content of ``config.yaml`` of the run to resume.
        folder: folder of the run.
    """
    before = {where: node[key] for node, key, where in _texts(recorded)}
    for node, key, where in _texts(config):
        was = before.get(where)
        place = _place_in(node[key], folder)
        if was is None or place is None:
            continue
        homes = folder.parent.glob(f"{glob.escape(folder.name)}.earlier-*")
        if any(_place_in(was, home) == place for home in homes):
            LOGGER.info("%s: %s was renamed when this run began; it is read from %s", where, node[key], was)
            node[key] = was


def _texts(node: Any, where: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Yield for each string in a config its container, its key there and its config path."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        path = f"{where}.{key}" if where else str(key)
        if isinstance(value, str):
            yield node, key, path
        else:
            yield from _texts(value, path)


def _place_in(text: str, folder: Path) -> Path | None:
    """Return `text` as a path inside `folder`; None if it is not one."""
    path, home = (Path(os.path.abspath(os.path.expanduser(p))) for p in (text, folder))
    for parent in path.parents:
        # If a symbolic link is renamed, paths through it change, so the last name is compared as written.
        if parent.name == home.name and parent.parent.resolve() == home.parent.resolve():
            return path.relative_to(parent)
    return None


def _is_there(text: str, folder: Path) -> bool:
    """Tell whether `text` is the path of an existing file in `folder`, possibly without its suffix."""
    place = _place_in(text, folder)
    if place is None:
        return False
    path = folder / place
    return path.exists() or any(path.parent.glob(f"{glob.escape(path.name)}.*"))
