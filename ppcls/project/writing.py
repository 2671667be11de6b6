"""Write the files of a project."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.class_names import format_class_names
from ppcls.config.nodes import Node
from ppcls.errors import ConfigError, DataError
from ppcls.files import FileSet, require_writable
from ppcls.project.methods import METHODS, loss_lines
from ppcls.project.planning import Plan, Training
from ppcls.project.sources import Part
from ppcls.project.summary import DataSummary

DATA, TEACHER, STUDENT, DISTILL = "data.yaml", "teacher.yaml", "student.yaml", "distill.yaml"
NAMES, README = "class_names.txt", "README.md"
TRAIN_LIST, VAL_LIST = "train_list.txt", "val_list.txt"
_FILES = (TRAIN_LIST, VAL_LIST, NAMES, DATA, TEACHER, STUDENT, DISTILL, README)


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
        return [f"ppcls train -c {_shell(recipe)}" for recipe in self.recipes]


def check_folder(summary: DataSummary, folder: str | Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Check that a project can be written, and change nothing.

    Returns:
        names of files of another project that would be replaced.

    Raises:
        ConfigError: if the folder cannot be written, holds files of that name, or lies among the data.
    """
    there = check_files(folder, _FILES, overwrite=overwrite)
    out = Path(os.path.abspath(os.path.expanduser(folder)))
    root = summary.source.root
    if summary.source.kind == "class folders" and (out == root or root in out.parents):
        raise ConfigError(f"out: {out} lies in {root}, where it would be taken for a class; choose another")
    return there


def check_files(
    folder: str | Path, names: Sequence[str] = _FILES, *, overwrite: bool = False
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
        DATA: _data(summary, plan, out),
        STUDENT: _alone(plan.student, out, "student"),
        DISTILL: _distill(plan, summary, out, node),
        README: _readme(summary, plan, project),
    }
    if project.teacher is not None:
        texts[TEACHER] = _alone(plan.teacher, out, "teacher")
    for path, part in zip(lists, [p for p in (summary.train, summary.val) if p.options is None], strict=True):
        texts[path.name] = list_text(part, summary.source.root)
    try:
        with FileSet(out, "project", _FILES).replacing() as stage:
            for name, text in texts.items():
                (stage / name).write_text(text, encoding="utf-8", errors="strict")
    except OSError as error:
        raise ConfigError(f"out: cannot write to {out}: {error.strerror or error}") from error
    return project


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


def is_project(folder: str | Path) -> bool:
    """Tell whether a folder has the recipes of a project."""
    out = Path(folder).expanduser()
    return (out / DATA).is_file() and (out / DISTILL).is_file()


def list_text(part: Part, root: Path) -> str:
    """Return the list of a part, one line ``path label`` per image, with paths that start from `root`.

    Raises:
        DataError: for a path that a list cannot hold.
    """
    lines = []
    for index in part.indices.tolist():
        path = os.path.relpath(part.dataset.path(index), root)
        if "\n" in path or "\r" in path:
            raise DataError(f"{path!r}: a list holds no names with a line break; rename the file or folder")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise DataError(f"{path!r}: the name is not UTF-8; rename the file or folder") from None
        if path != path.lstrip():
            path = f"./{path}"  # blanks around a line do not count
        lines.append(f"{path} {part.dataset.label(index)}\n")
    return "".join(lines)


def _quoted(path: str | Path) -> str:
    """Return a path as YAML, in quotes."""
    text = str(path)
    if "${" in text:
        raise DataError(f"{text}: recipes take ${{ as a reference to another value; rename the folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{text!r}: the name is not UTF-8; rename the folder") from None
    return json.dumps(text, ensure_ascii=False)


def _option(key: str, value: Any) -> str:
    """Return an option of a network as one line of YAML."""
    text = value if key == "name" else _quoted(value) if isinstance(value, str) else json.dumps(value)
    return f"{key}: {text}"


def _shell(path: Path) -> str:
    """Return a path for a command, as short as possible."""
    relative = os.path.relpath(path)
    text = str(path) if relative.startswith("..") else relative
    return (
        text
        if text.replace("/", "").replace("_", "").replace("-", "").replace(".", "").isalnum()
        else f"'{text}'"
    )


def _data(summary: DataSummary, plan: Plan, out: Path) -> str:
    accuracy = _accuracy("TopkAcc: {", summary)
    rate = plan.student.learning_rate
    chain = "small_images" if plan.small else "images"
    lines = [
        "# What the recipes of this project share. Written by `ppcls init`; change what you like.",
        f"# Images are cut, mirrored and normalised as in _base_/{chain}.yaml of the package.",
        f"_base_: [_base_/baseline.yaml, _base_/{chain}.yaml]",
        "Global:",
        f"  image_size: {plan.image_size}  # pixels of a side; all transforms follow",
        f"  output_dir: {_quoted(out / 'output')}",
        "  keep_last: 1",
        f"Arch: {{name: {plan.student.network}, class_num: {summary.class_num}}}",
        "Optimizer:",
        f"  {{name: Momentum, momentum: 0.9, lr: {{name: Cosine, learning_rate: {rate}}},",
        f"   regularizer: {{name: L2, coeff: {plan.student.weight_decay}}}}}",
        f"Metric: {{Train: {accuracy}, Eval: {accuracy}}}",
        "DataLoader:",
    ]
    for name, part, file in (("Train", summary.train, TRAIN_LIST), ("Eval", summary.val, VAL_LIST)):
        options = part.options or {
            "name": "ImageNetDataset",
            "image_root": str(summary.source.root),
            "cls_label_path": str(out / file),
        }
        shown = [f"{key}: {value if key == 'name' else _quoted(value)}" for key, value in options.items()]
        lines += [f"  {name}:", "    dataset:", *(f"      {text}" for text in shown)]
        batch = plan.batch_size if name == "Train" else max(plan.batch_size, 64)
        lines += [f"    sampler: {{batch_size: {batch}}}"]
    first = summary.val.path(0)
    lines += ["Infer:"]
    if summary.source.kind != "shards":
        lines += [f"  infer_imgs: {_quoted(os.path.abspath(first))}"]
    topk = min(5, summary.class_num)
    lines += [f"  PostProcess: {{topk: {topk}, class_id_map_file: {_quoted(out / NAMES)}}}"]
    return "\n".join(lines) + "\n"


def _schedule(training: Training) -> list[str]:
    rate = f"learning_rate: {training.learning_rate}, warmup_epoch: {training.warmup}"
    return ["Optimizer:", f"  lr: {{{rate}}}", f"  regularizer: {{coeff: {training.weight_decay}}}"]


def _global(training: Training, step: str) -> list[str]:
    return [
        "Global:",
        f"  epochs: {training.epochs}",
        f"  run_name: {step}",
    ]


def _pretrained(training: Training) -> str:
    return "True" if training.pretrained else "False"


def _beginning(training: Training) -> str:
    return "official ImageNet weights, downloaded once" if training.pretrained else "random weights"


def _alone(training: Training, out: Path, step: str) -> str:
    recipe = _shell(out / f"{step}.yaml")
    purpose = {
        "teacher": "The teacher: a large network learns from the labels.",
        "student": "The student alone: what the small network learns from the labels without a teacher.",
    }[step]
    lines = [
        f"# {purpose}",
        f"# Run: ppcls train -c {recipe}",
        "_base_: data.yaml",
        *_global(training, step),
        "Arch:",
        f"  name: {training.network}  # `ppcls models` lists all networks",
        f"  pretrained: {_pretrained(training)}  # begins with {_beginning(training)}",
        *_schedule(training),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(beginning: str, summary: DataSummary) -> str:
    ks = "[1, 5]" if summary.class_num > 5 else "[1]"
    return f"[{beginning}topk: {ks}}}]"


def _distill(plan: Plan, summary: DataSummary, out: Path, node: Node) -> str:
    teacher, student = plan.teacher, plan.student
    accuracy = _accuracy("DistillationTopkAcc: {model_key: Student, ", summary)
    lines = [
        f"# The student learns from labels and teacher. {METHODS[plan.method][0]}.",
        f"# Run: ppcls train -c {_shell(out / DISTILL)}",
        "_base_: [data.yaml, _base_/distillation.yaml]",
        *_global(student, "distill"),
        "Arch:",
        "  models:",
        "    - Teacher:",
        *(f"        {_option(key, value)}" for key, value in node.items()),
        f"    - Student: {{name: {student.network}, pretrained: {_pretrained(student)}}}",
        "Loss:  # docs/methods/ explains it",
        "  Train:",
        *(
            f"    - {line}"
            for line in loss_lines(plan.method, teacher.network, student.network, student.epochs)
        ),
        *_schedule(student),
        "Metric:",
        f"  Train: {accuracy}",
        f"  Eval: {accuracy}",
    ]
    return "\n".join(lines) + "\n"


def _readme(summary: DataSummary, plan: Plan, project: Project) -> str:
    run = _shell(project.run)
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
        f"All of them, one after the other: `ppcls distill {_shell(project.folder)} --baseline`.",
        "",
        "Then export the student and use it:",
        "",
        "```bash",
        f"ppcls export {run}",
        f"ppcls predict --model-dir {_shell(project.run / 'inference')} photo.jpg",
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
