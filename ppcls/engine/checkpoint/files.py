"""Checkpoints whose three files become valid together.

A checkpoint ``tag`` is ``tag.pdparams`` (trained weights), ``tag.pdopt`` (optimizer slots and parameters
of losses, by structured names) and ``tag.pdstates`` (JSON: position in the run, schedule, best metric,
and size and checksum of the other two; see :mod:`ppcls.run_states`).

Saving is a small redo log: all files are first written and synced under ``*.new``; then ``tag.commit``
appears; then the files are renamed and ``tag.commit`` is removed. If the process is killed before the commit,
the old checkpoint stays valid. If it is killed afterwards, the new checkpoint is complete: it is read from
``*.new``, and :meth:`Checkpointer.recover` renames the files. Reading changes nothing, so the checkpoint of a
running training can be read. Equal files of several tags are written once, see
:mod:`ppcls.engine.checkpoint.equal_files`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.engine.checkpoint.equal_files import EqualFiles, fingerprint, move
from ppcls.errors import TrainingError, WeightsError
from ppcls.run_states import Progress, encode_states, read_states
from ppcls.weights import read_params, sync_folder, write_atomic

SUFFIXES = (".pdparams", ".pdopt", ".pdema", ".pdstates")
NEEDED = (".pdparams", ".pdopt", ".pdstates")


@dataclass(frozen=True)
class Checkpoint:
    """The result of :meth:`Checkpointer.load`.

    Attributes:
        where: path without suffix.
        params: trained weights.
        optimizer: tensors of optimizer and losses.
        progress: position in the run.
        ema: averaged weights, if there are any.
    """

    where: Path
    params: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    progress: Progress
    ema: dict[str, np.ndarray] | None = None


class Checkpointer:
    """Write and read the checkpoints of one run.

    Args:
        folder: ``<output_dir>/<Arch.name>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._equal = EqualFiles()

    def save(
        self,
        tag: str,
        params: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        progress: Progress,
        ema: Mapping[str, Any] | None = None,
    ) -> None:
        """Write checkpoint `tag` such that a complete one exists at every moment.

        Raises:
            TrainingError: if the disk is full or the folder cannot be written; the previous one stays.
        """
        tensors = {".pdparams": params, ".pdopt": optimizer, **({} if ema is None else {".pdema": ema})}
        with self._explained(tensors.values()):
            try:
                self._save(tag, tensors, progress)
            except (WeightsError, OSError):
                with contextlib.suppress(OSError):
                    self.recover(tag)  # half a checkpoint would occupy the space that is missing
                raise

    def _save(self, tag: str, tensors: Mapping[str, Mapping[str, Any]], progress: Progress) -> None:
        self.recover(tag)
        new = {suffix: self.folder / f"{tag}{suffix}.new" for suffix in SUFFIXES}
        files = {
            suffix: self._equal.write(new[suffix], values, self.folder / f"{tag}{suffix}")
            for suffix, values in tensors.items()
        }
        states = encode_states(progress, files)
        write_atomic(new[".pdstates"], lambda stream: stream.write(states))
        write_atomic(self.folder / f"{tag}.commit", lambda stream: None)
        self.recover(tag)

    def save_weights(self, name: str, params: Mapping[str, Any]) -> None:
        """Write only ``name.pdparams``: weights for evaluation and deployment, from which no run is resumed.

        Raises:
            TrainingError: as for :meth:`save`.
        """
        file = self.folder / f"{name}.pdparams"
        new = file.with_name(f"{file.name}.new")
        with self._explained([params]):
            try:
                self._equal.write(new, params, file)
                move(new, file)
                sync_folder(self.folder)
            except (WeightsError, OSError):
                with contextlib.suppress(OSError):
                    new.unlink(missing_ok=True)
                raise

    def _explained(self, tensors: Collection[Mapping[str, Any]]) -> AbstractContextManager[None]:
        def size() -> int:
            return sum(np.asarray(value).nbytes for group in tensors for value in group.values())

        return explained(self.folder, "checkpoint", size)

    def clean(self) -> None:
        """Finish or remove incomplete saves of a killed run. Only for the run that writes to the folder."""
        for path in (*self.folder.glob("*.commit"), *self.folder.glob("*.new")):
            name = path.name.removesuffix(".commit").removesuffix(".new")
            self.recover(next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name))
        for path in (*self.folder.glob(".*.tmp"), *self.folder.glob(".write-test-*")):
            if not path.is_dir():  # a report, for example, removes its own folders
                path.unlink(missing_ok=True)

    def recover(self, tag: str) -> None:
        """Finish an interrupted save that was committed; remove the files of one that was not."""
        commit = self.folder / f"{tag}.commit"
        committed = commit.exists()
        for suffix in SUFFIXES:
            new = self.folder / f"{tag}{suffix}.new"
            if new.exists():
                if committed:
                    move(new, self.folder / f"{tag}{suffix}")
                else:
                    new.unlink()
        if committed:
            sync_folder(self.folder)
            commit.unlink()

    def load(self, tag: str) -> Checkpoint:
        """Read checkpoint `tag` after checking that its files belong together.

        Raises:
            WeightsError: naming the file that is missing, damaged or from another save.
        """
        paths = {suffix: self._current(tag, suffix) for suffix in SUFFIXES}
        missing = [str(paths[suffix]) for suffix in NEEDED if not paths[suffix].is_file()]
        if missing:
            raise WeightsError(
                f"checkpoint {self.folder / tag}: {', '.join(missing)} not found; a checkpoint has "
                f"the files {', '.join(NEEDED)}. To start from weights alone use "
                "-o Global.pretrained_model=..."
            )
        progress, files = read_states(paths[".pdstates"])
        for suffix, expected in files.items():
            if not paths[suffix].is_file() or fingerprint(paths[suffix]) != expected:
                raise WeightsError(
                    f"{paths[suffix]} is damaged or not of the same save as {paths['.pdstates'].name}: "
                    f"expected {expected['size']} bytes with CRC-32 {expected['crc32']}"
                )
        return Checkpoint(
            where=self.folder / tag,
            params=read_params(paths[".pdparams"]),
            optimizer=read_params(paths[".pdopt"]),
            progress=progress,
            ema=read_params(paths[".pdema"]) if ".pdema" in files else None,
        )

    def _current(self, tag: str, suffix: str) -> Path:
        """Return the file of the last complete save, which may still have to be renamed."""
        path = self.folder / f"{tag}{suffix}"
        new = path.with_name(f"{path.name}.new")
        return new if (self.folder / f"{tag}.commit").exists() and new.exists() else path

    def tags(self) -> list[str]:
        """Return the names of checkpoints, complete or not, in the order in which resuming tries them.

        ``latest`` comes first, then ``epoch_N`` from the highest, then ``best_model``.
        """
        found = {
            path.name.removesuffix(suffix)
            for suffix in (".pdstates", ".commit")
            for path in self.folder.glob(f"*{suffix}")
        }
        epochs = sorted(
            (int(m[1]) for tag in found if (m := re.fullmatch(r"epoch_(\d+)", tag))), reverse=True
        )
        ordered = ["latest", *(f"epoch_{epoch}" for epoch in epochs), "best_model"]
        return [tag for tag in ordered if tag in found]

    def prune(self, keep_last: int) -> None:
        """Delete all but the newest `keep_last` of the ``epoch_N`` checkpoints."""
        whole = [int(tag[6:]) for tag in self.tags() if tag.startswith("epoch_")]
        if len(whole) < keep_last:
            return
        names = [re.fullmatch(r"epoch_(\d+)\.pd\w+", path.name) for path in self.folder.glob("epoch_*")]
        for epoch in sorted({int(name[1]) for name in names if name}):  # including incomplete ones
            if epoch < whole[keep_last - 1]:
                for suffix in reversed(SUFFIXES):  # the states first: the rest is then not a checkpoint
                    (self.folder / f"epoch_{epoch}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def explained(folder: Path, what: str, size: Callable[[], int]) -> Iterator[None]:
    """Convert an error of writing into a message about the space that is needed and what to do.

    Args:
        folder: where a training writes.
        what: what it writes, for the message.
        size: returns the number of bytes; called after an error only, because it may copy from a GPU.

    Raises:
        TrainingError: in place of the error.
    """
    try:
        yield
    except (WeightsError, OSError) as error:
        try:
            space = f"{shutil.disk_usage(folder).free / 2**20:.1f} MB are free there"
        except OSError as problem:
            space = f"the folder cannot be checked: {problem.strerror}"
        raise TrainingError(
            f"{error}. The {what} needs {size() / 2**20:.1f} MB, {space}. The checkpoints "
            f"saved before are intact. Free some space in {folder}, then continue with --resume auto"
        ) from None


def name_for_earlier_run(folder: Path) -> Path | None:
    """Return the name under which a new run keeps the earlier run in `folder`.

    Returns:
        ``<folder>.earlier-1`` and so on; None if the folder holds no checkpoints.
    """
    if not any((*folder.glob("*.pdparams"), *folder.glob("*.commit"))):
        return None
    number = 1
    while (kept := folder.with_name(f"{folder.name}.earlier-{number}")).exists():
        number += 1
    return kept
