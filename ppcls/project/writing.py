"""Write the files of a project."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ppcls.class_names import format_class_names
from ppcls.data.lists import path_in_list
from ppcls.errors import ConfigError
from ppcls.files import FileSet, require_writable
from ppcls.project.layout import (
    DATA,
    DISTILL,
    FILES,
    NAMES,
    README,
    STUDENT,
    TEACHER,
    TRAIN_LIST,
    VAL_LIST,
    Project,
    shell_path,
)
from ppcls.project.planning import Plan
from ppcls.project.recipes import recipe_of_both, recipe_of_one, shared_recipe
from ppcls.project.sources import Part, Source, require_outside
from ppcls.project.summary import DataSummary


def check_folder(summary: DataSummary, folder: str | Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Check that a project can be written, and change nothing.

    Returns:
        names of files of another project that would be replaced.

    Raises:
        ConfigError: if the folder cannot be written, holds files of that name, or lies among the data.
    """
    there = check_files(folder, FILES, overwrite=overwrite)
    require_other_files(summary.source, Path(os.path.abspath(os.path.expanduser(folder))), FILES)
    require_outside(summary.source, folder)
    return there


def require_other_files(source: Source, folder: Path, names: Sequence[str]) -> None:
    """Raise ConfigError if files of these names in a folder belong to the data themselves."""
    own = [
        name
        for name in names
        if (folder / name).exists() and any((folder / name).samefile(file) for file in source.files)
    ]
    if own:
        raise ConfigError(
            f"out: part of the data themselves, and never replaced: {', '.join(own)} in {folder}; choose "
            "another folder with --out"
        )


def check_files(
    folder: str | Path, names: Sequence[str] = FILES, *, overwrite: bool = False
) -> tuple[str, ...]:
    """Check that files can be written into a folder; change nothing. The data need not be known for it.

    Args:
        folder: where they will be.
        names: of the files; by default those of a project.
        overwrite: accept files that are there.

    Returns:
        names of the files that are there.

    Raises:
        ConfigError: if the folder cannot be written, or holds a file of these names.
    """
    out = Path(os.path.abspath(os.path.expanduser(folder)))
    require_writable(out, "out")
    there = tuple(name for name in names if os.path.lexists(out / name))
    if there and not overwrite:
        raise ConfigError(
            f"out: {out} already holds {', '.join(there)}; choose another folder, or replace these files "
            "with overwrite (--overwrite)"
        )
    return there


def write_project(
    summary: DataSummary, plan: Plan, folder: str | Path = "project", *, overwrite: bool = False
) -> Project:
    """Write recipes, class names, lists and a README; all of them or none.

    Args:
        summary: the data.
        plan: the defaults.
        folder: where to write.
        overwrite: replace the files of an earlier project.

    Raises:
        ConfigError: see :func:`check_folder`.
        DataError: if the path of an image cannot be written into a list.
    """
    replaced = check_folder(summary, folder, overwrite=overwrite)
    out = Path(os.path.abspath(os.path.expanduser(folder)))
    lists = tuple(
        out / name
        for name, part in ((TRAIN_LIST, summary.train), (VAL_LIST, summary.val))
        if part.options is None
    )
    project = Project(
        out,
        None if plan.teacher_node is not None else out / TEACHER,
        out / STUDENT,
        out / DISTILL,
        out / NAMES,
        lists,
        out / README,
        replaced,
    )
    weights = str(out / "output/teacher/best_model")
    node = plan.teacher_node or {"name": plan.teacher.network, "pretrained": weights}
    texts = {
        NAMES: format_class_names(summary.class_names),
        DATA: shared_recipe(summary, plan, out),
        STUDENT: recipe_of_one(plan.student, out, "student"),
        DISTILL: recipe_of_both(plan, summary, out, node),
        README: _readme(summary, plan, project),
    }
    if project.teacher is not None:
        texts[TEACHER] = recipe_of_one(plan.teacher, out, "teacher")
    for path, part in zip(lists, [p for p in (summary.train, summary.val) if p.options is None], strict=True):
        texts[path.name] = list_text(part, summary.source.root)
    try:
        with FileSet(out, "project", FILES).replacing() as stage:
            for name, text in texts.items():
                (stage / name).write_text(text, encoding="utf-8", errors="strict")
    except OSError as error:
        raise ConfigError(f"out: cannot write to {out}: {error.strerror or error}") from error
    return project


def list_text(part: Part, root: Path) -> str:
    """Return the list of a part, one line ``path label`` per image, with paths that start from `root`.

    Raises:
        DataError: for a path that a list cannot hold.
    """
    lines = []
    for index in part.indices.tolist():
        path = path_in_list(os.path.relpath(part.dataset.path(index), root))
        lines.append(f"{path} {part.dataset.label(index)}\n")
    return "".join(lines)


def _readme(summary: DataSummary, plan: Plan, project: Project) -> str:
    run = shell_path(project.run)
    names = {
        project.teacher: f"the teacher, {plan.teacher.network}",
        project.student: f"the student alone, {plan.student.network}",
        project.distill: f"the student with the teacher ({plan.method})",
    }
    steps = [
        f"{command}   # {names[recipe]}"
        for command, recipe in zip(project.commands, project.recipes, strict=True)
    ]
    notes = [f"- {note}" for note in (*summary.notes, *plan.notes)]
    lines = [
        f"# {project.folder.name}",
        "",
        f"Written by `ppcls init`. A large network teaches a small one {summary.class_num} classes.",
        "",
        "```bash",
        *steps,
        "```",
        "",
        f"All of them, one after the other: `ppcls distill {shell_path(project.folder)} --baseline`.",
        "",
        "Then export the student and use it:",
        "",
        "```bash",
        f"ppcls export {run}",
        f"ppcls predict --model-dir {shell_path(project.run / 'inference')} photo.jpg",
        "```",
        "",
        "## What init saw",
        "",
        "```",
        summary.describe(),
        "```",
        "",
        "## The files",
        "",
        "| file | contents |",
        "| --- | --- |",
        f"| {DATA} | data, images of {plan.image_size} pixels, batches of {plan.batch_size} |",
        *(f"| {recipe.name} | {names[recipe]} |" for recipe in project.recipes),
        f"| {NAMES} | one line `id name` per class |",
        *(f"| {path.name} | one line `path label` per image |" for path in project.lists),
        "",
        "`ppcls validate -c FILE` checks a recipe after a change, `ppcls check-data -c FILE` reads every",
        "image once. Paths are absolute, so the commands work in any folder; if images or this folder move,",
        "change the paths, or run `ppcls init` again.",
        'The page "A first project" of the documentation explains every default.',
    ]
    if notes:
        lines += ["", "## Worth knowing", "", *notes]
    return "\n".join(lines) + "\n"
