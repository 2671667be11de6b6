"""The whole way in one call: :func:`distill`, :func:`train` and :func:`compare`, as ``ppcls.distill`` too."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle import nn

from ppcls.config import ArchSpec, complete_config, load_config
from ppcls.config.loading import texts_of
from ppcls.distilling.rehearsal import rehearse
from ppcls.distilling.request import Request, open_project
from ppcls.distilling.result import DistillationResult, measure_of
from ppcls.distilling.steps import DISTILL, STUDENT, Step, announce, run_step, steps_of
from ppcls.engine import Engine
from ppcls.errors import ConfigError, PpclsError, TrainingError, show
from ppcls.files import require_writable
from ppcls.launch import require_processes
from ppcls.logger import LOGGER, setup_logging
from ppcls.project import DEFAULT_METHOD
from ppcls.report import comparison, write_comparison, write_report
from ppcls.report.comparison import Row
from ppcls.report.comparison_text import render
from ppcls.report.run_sections import loss_names
from ppcls.report.runs import RunFolder, read_run


def distill(
    data: str | os.PathLike[str],
    teacher: str | os.PathLike[str] | nn.Layer | None = None,
    student: str | None = None,
    *,
    method: str = DEFAULT_METHOD,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    out: str | os.PathLike[str] | None = None,
    baseline: bool = False,
    export: bool | str | os.PathLike[str] = False,
    overrides: Sequence[str] = (),
    teacher_network: str | None = None,
    val: float = 0.2,
    seed: int | None = None,
    image_root: str | os.PathLike[str] | None = None,
    from_scratch: bool = False,
    processes: int | None = None,
) -> DistillationResult:
    """Train a small network with the help of a large one, from images to the student.

    The call writes the recipes of ``ppcls init`` into `out` and runs them: first the teacher, if it is the
    name of a network, then the student alone, if a baseline is wanted, then the student with the teacher.
    Called again after an interruption, it continues where it was; what is finished is not done again.

    Args:
        data: class folders, a list or shards, as for ``ppcls init``; or a project that it has written.
        teacher: name of a network, which is then trained first; weights of a network (with
            `teacher_network`); the folder of a run; an ONNX file; an exported folder; or a layer that maps
            images [N, 3, `image_size`, `image_size`], normalised for ImageNet, to logits. Default: by image
            size.
        student: name of a network. Default: by image size.
        method: distillation method; :data:`ppcls.project.METHODS` has them all.
        image_size: side of the images that the networks get. Default: by the size of the images.
        epochs: passes over the images of training, for every training.
        batch_size: images of a step.
        out: folder of recipes and runs, ``distilled`` by default.
        baseline: also train the student without the teacher, for comparison.
        export: write the student for deployment; True: into the folder ``inference`` of its run.
        overrides: changes of settings as for ``-o``. Those of networks, losses and metrics are for the
            student with the teacher; ``teacher:Key=value`` and ``student:Key=value`` are for another
            training.
        teacher_network: registered name of the network that the weights `teacher` belong to.
        val: share of each class to validate with, if the data have no such part.
        seed: of everything random in the trainings. None: each training draws a seed and keeps it. The split
            is the same for every seed; ``ppcls split --seed`` makes another one.
        image_root: folder that the paths in a list start from.
        from_scratch: begin with random weights, also where there are official ImageNet weights.
        processes: train in so many processes on this machine, one for each GPU. They share the images of a
            step, so that its size and the learning rate stay those of one process.

    Raises:
        ConfigError: for mistakes in options, or if `out` holds the distillation of another call.
        DataError: if the data cannot be trained on.
        WeightsError: if weights cannot be read or do not fit.
        TrainingError: if a training cannot continue.
        SystemExit: after Ctrl-C or SIGTERM, with the state saved.
    """
    setup_logging()
    overrides = texts_of(overrides)
    layer = teacher if isinstance(teacher, nn.Layer) else None
    request = Request(
        _path(data, "data"),
        None if teacher is None or isinstance(teacher, nn.Layer) else _path(teacher, "teacher"),
        teacher_network,
        student,
        method,
        image_size,
        epochs,
        batch_size,
        val,
        seed,
        None if image_root is None else _path(image_root, "image_root"),
        from_scratch,
    )
    if processes is not None:
        require_processes(processes)
    target = None if isinstance(export, bool) else Path(_path(export, "export"))
    if target is not None:
        require_writable(target, "export")
    project = open_project(request, None if out is None else _path(out, "out"), layer)
    seeded = [] if seed is None else [f"Global.seed={seed}"]
    steps = steps_of(project, [*seeded, *overrides], baseline=baseline, processes=processes)
    for step in steps:
        step.require_same_settings()
    announce(steps)
    rehearse(steps)
    runs = {step.name: run_step(step) for step in steps}
    result = _result(project.folder, steps[-1], runs)
    setup_logging()  # the logs of the runs are complete
    if not export:
        return result
    exported = result.export(target).folder
    return DistillationResult(**{**vars(result), "exported": exported})


def _path(given: object, option: str) -> str:
    """Return a path or name as text; raise an error for something else and for an empty text."""
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise ConfigError(f"{option}: expected a path or a name, got {show(given)}")
    return str(os.fspath(given))


def _result(project: Path, step: Step, runs: dict[str, RunFolder]) -> DistillationResult:
    run = runs[DISTILL]
    measure = measure_of(run)
    if measure is None:
        raise TrainingError(
            f"{run.folder}: the student was not evaluated; set Global.eval_during_train to true"
        )
    alone = runs.get(STUDENT)
    arch = step.config.arch
    teachers = [network for network in arch.children if network.frozen]
    report = None
    try:
        report = write_report(run.folder, None if alone is None else alone.folder)
    except PpclsError as error:
        LOGGER.warning("no report: %s", error)
    return DistillationResult(
        project=project,
        folder=run.folder,
        student=arch.main.name,
        teacher=", ".join(map(_shown, teachers)),
        method=" + ".join(loss_names(run.config)),
        accuracy=run.best_metrics[measure],
        teacher_accuracy=_teacher_value(run, [network.title for network in teachers], measure),
        baseline_accuracy=None if alone is None else alone.best_metrics.get(measure),
        report=report,
        measure=measure,
    )


def _shown(network: ArchSpec) -> str:
    """Return what a teacher is called: the name of its network, or of the file that it comes from."""
    path = network.options.get("path")
    return Path(path).name if isinstance(path, str) else network.name


def _teacher_value(run: RunFolder, titles: Sequence[str], measure: str) -> float | None:
    """Return the top-1 accuracy of the first teacher, if that is what the student is measured by."""
    for row in run.rows_of("teacher") if measure == "top1" else ():
        for name, value in row.items():
            if name.startswith("top1") and (not titles or name in ("top1", f"top1_{titles[0]}")):
                return float(value)
    return None


def train(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    resume: str | os.PathLike[str] | None = None,
) -> RunFolder:
    """Train the networks of a recipe; the same as ``ppcls train``.

    Args:
        recipe: a YAML file, the name of a packaged recipe, a :class:`~ppcls.config.Recipe`, or its content as
            a dict.
        overrides: changes of settings as for ``-o``, for a file.
        resume: a checkpoint, or ``auto`` for the newest one of the output folder.

    Returns:
        the run: ``best_metrics``, ``best_epoch``, ``folder`` and so on.
    """
    overrides = texts_of(overrides)
    config: Any = recipe
    if not isinstance(recipe, Mapping):
        config = load_config(_path(recipe, "recipe"), overrides, "train")
    elif overrides:
        raise PpclsError("overrides are for recipes in files; change the recipe itself")
    config = complete_config(config, "train")
    if resume is not None:
        config.Global.checkpoints = os.fspath(resume) if isinstance(resume, os.PathLike) else resume
    engine = Engine(config, "train")
    engine.train()
    return read_run(engine.folder)


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other; a notebook shows them as a table.

    Attributes:
        rows: one for each run, those of one recipe together, the best recipe first.
    """

    rows: Sequence[Row]

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the values of each run by name."""
        return [row.as_dict() for row in self.rows]

    def write(self, file: str | os.PathLike[str]) -> Path:
        """Write a page with tables and curves, such as ``compare.html``; return its path."""
        return write_comparison([row.record.folder for row in self.rows], Path(file))

    def __str__(self) -> str:
        return render(self.rows)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def compare(folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Comparison:
    """Compare runs; the same as ``ppcls compare``.

    Args:
        folders: folders of runs, or folders that contain some, or one such as ``output``.

    Raises:
        ConfigError: for a folder without any run.
    """
    if isinstance(folders, str | os.PathLike):
        folders = [folders]
    return Comparison(comparison.compare([Path(folder) for folder in folders]))
