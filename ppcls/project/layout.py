"""The files of a project, by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ppcls.errors import ConfigError
from ppcls.files import FileSet

DATA, TEACHER, STUDENT, DISTILL = "data.yaml", "teacher.yaml", "student.yaml", "distill.yaml"
NAMES, README = "class_names.txt", "README.md"
TRAIN_LIST, VAL_LIST = "train_list.txt", "val_list.txt"
FILES = (TRAIN_LIST, VAL_LIST, NAMES, DATA, TEACHER, STUDENT, DISTILL, README)


@dataclass(frozen=True)
class Project:
    """The files of a project.

    Attributes:
        folder: its folder.
        teacher: the recipe that trains the teacher; None if it is trained already.
        student: the recipe that trains the student on the labels alone.
        distill: the recipe that trains the student with the teacher.
        class_names: file with one line ``id name`` per class.
        lists: lists of images that were written, of training and of validation.
        readme: what to do next.
        replaced: names of files that were there before.
    """

    folder: Path
    teacher: Path | None
    student: Path
    distill: Path
    class_names: Path
    lists: tuple[Path, ...]
    readme: Path
    replaced: tuple[str, ...] = ()

    @property
    def recipes(self) -> tuple[Path, ...]:
        """The recipes in the order of their use."""
        return tuple(path for path in (self.teacher, self.student, self.distill) if path is not None)

    @property
    def run(self) -> Path:
        """The folder of the run of the student with the teacher."""
        return self.folder / "output/distill"

    @property
    def commands(self) -> list[str]:
        """The next commands."""
        return [f"ppcls train -c {shell_path(recipe)}" for recipe in self.recipes]


def read_project(folder: str | Path) -> Project:
    """Return the project in a folder.

    Raises:
        ConfigError: if there is none, or files of it are missing.
    """
    out = Path(os.path.abspath(os.path.expanduser(folder)))
    missing = [name for name in (DATA, STUDENT, DISTILL, NAMES) if not (out / name).is_file()]
    if missing:
        raise ConfigError(f"{folder} is not a project of `ppcls init`: it has no {', '.join(missing)}")
    lists = tuple(out / name for name in (TRAIN_LIST, VAL_LIST) if (out / name).is_file())
    teacher = out / TEACHER if (out / TEACHER).is_file() else None
    return Project(out, teacher, out / STUDENT, out / DISTILL, out / NAMES, lists, out / README)


def finish_project(folder: Path) -> bool:
    """Move files to their places if a process was killed while it wrote a project; tell whether one is there.

    Raises:
        ConfigError: if only some of its files are there, or they cannot be moved.
    """
    if not folder.is_dir():
        return False
    try:
        FileSet(folder, "project", FILES).finish()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from error
    if any((folder / name).exists() for name in FILES if name != README):
        read_project(folder)
        return True
    return False


def is_project(folder: str | Path) -> bool:
    """Tell whether a folder has the recipes of a project."""
    out = Path(folder).expanduser()
    return (out / DATA).is_file() and (out / DISTILL).is_file()


def shell_path(path: Path) -> str:
    """Return a path for a command, as short as possible."""
    relative = os.path.relpath(path)
    text = str(path) if relative.startswith("..") else relative
    return (
        text
        if text.replace("/", "").replace("_", "").replace("-", "").replace(".", "").isalnum()
        else f"'{text}'"
    )
