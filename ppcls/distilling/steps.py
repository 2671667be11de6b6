"""The trainings of a project, one after the other: those that are finished are skipped, others continue."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcls.config import Recipe, load_config
from ppcls.config.arch import without_weights
from ppcls.config.loading import override_steps, read
from ppcls.config.nodes import Node
from ppcls.data import Batch, Dataset, build_dataset
from ppcls.distilling.estimate import Cost, expected_seconds, in_words, measure
from ppcls.distributed import gpus_for
from ppcls.engine import Engine
from ppcls.engine.build import select_device
from ppcls.engine.checkpoint.changes import find_changes, list_changes
from ppcls.engine.hooks.base import Hook
from ppcls.engine.run import Run
from ppcls.engine.run_class_names import data_class_names, evaluation_names
from ppcls.engine.speed import use_processor
from ppcls.engine.start.processes import PROCESSES, SIZES
from ppcls.errors import ConfigError, DataError, TrainingError
from ppcls.launch import launch
from ppcls.logger import LOGGER
from ppcls.project import Project, is_project
from ppcls.registry import BACKBONES
from ppcls.report.runs import RunFolder, is_run, read_run

TEACHER, STUDENT, DISTILL = "teacher", "student", "distill"
STEPS = (TEACHER, STUDENT, DISTILL)
# Settings that place the runs of a project, which the steps rely on.
_PLACES = re.compile(r"Global\.(output_dir|run_name|checkpoints|pretrained_model)")
# Settings that belong to one recipe; without the name of a step they are for the student with the teacher.
_OF_DISTILL = re.compile(r"(Arch|Loss|Metric|TeacherStore)(\..*)?|Global\.infer_model_name")
_NO_MATTER = re.compile(r"Global\.(device|plugins\.\d+)")
_STOPPED = (129, 130, 143)  # exit codes of a training that the user ended
_FIRST_STEPS = 20  # after so many steps of a training, the time that it takes is known


@dataclass(frozen=True)
class Step:
    """One training.

    Attributes:
        name: ``teacher``, ``student`` or ``distill``.
        title: what it is, for people.
        recipe: its file.
        config: its recipe with overrides.
        folder: folder of its run.
        overrides: those of `config`, as after ``-o``.
        processes: how many train it; None: this one.
    """

    name: str
    title: str
    recipe: Path
    config: Recipe
    folder: Path
    overrides: tuple[str, ...]
    processes: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all its epochs are done."""
        if not is_run(self.folder):
            return False
        run = read_run(self.folder)
        return run.finished and (run.epochs or 0) >= self.config.Global.epochs

    def require_same_settings(self) -> None:
        """Raise an error if the training is finished, and was done with other settings or images.

        Raises:
            ConfigError: naming the settings, or the lists of images.
        """
        if not self.is_finished:
            return
        advice = f"choose another --out, or move {self.folder} away to train it again"
        # The run may have been given no seed, and then keeps the one that it drew.
        changes = [
            change
            for change in find_changes(read_run(self.folder).config, self.config.to_dict())
            if not change.harmless and not _NO_MATTER.fullmatch(change.key)
        ]
        if changes:
            shown = "\n  ".join(map(str, changes[:8]))
            raise ConfigError(
                f"{self.folder} is finished, and was trained with other settings:\n  {shown}\nRepeat the "
                f"call with those, {advice}"
            )
        progress = read_run(self.folder).progress
        try:
            datasets = {f"DataLoader.{part}.dataset": one for part, one in _datasets(self.config).items()}
        except DataError:  # the images are gone, and nobody trains on them any more
            return
        fingerprints = {where: dataset.fingerprint() for where, dataset in datasets.items()}
        others = [
            f"{where}: {name} {how}"
            for where, name, how in list_changes(progress.lists if progress else {}, fingerprints)
        ]
        if others:
            shown = "\n  ".join(others)
            raise ConfigError(
                f"{self.folder} is finished, and was trained or evaluated on other images:\n  {shown}\nA "
                f"teacher that has seen images of validation would be praised for it: {advice}"
            )


def split_overrides(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the overrides of each step.

    ``distill:Key=value`` is for one step alone. Otherwise settings of networks, losses and metrics are for
    the step with the teacher, and all others for every step.

    Raises:
        ConfigError: for a setting that places the runs, or a step that does not exist.
    """
    found: dict[str, list[str]] = {name: [] for name in STEPS}
    for text in texts:
        step, colon, rest = text.partition(":")
        if not (colon and "=" not in step and step.isidentifier()):
            step, rest = "", text
        elif step not in STEPS:
            raise ConfigError(f"-o {text}: there is no step {step!r}; expected one of {', '.join(STEPS)}")
        key = ".".join(override_steps(rest))
        if _PLACES.fullmatch(key):
            raise ConfigError(f"-o {text}: distill itself decides {key}; --out chooses the folder")
        for name in [step] if step else [DISTILL] if _OF_DISTILL.fullmatch(key) else STEPS:
            found[name].append(rest)
    return found


def steps_of(
    project: Project, overrides: Sequence[str], *, baseline: bool, processes: int | None = None
) -> list[Step]:
    """Return the trainings of a project, with all their recipes checked.

    Args:
        project: the project.
        overrides: see :func:`split_overrides`.
        baseline: also train the student alone.
        processes: how many train together; they share the batches of the recipes. A training that began
            with another number keeps its batches, which the processes of now share exactly. None: this one.

    Raises:
        ConfigError: for mistakes in recipes or overrides, and for batches that cannot be shared.
    """
    changes = split_overrides(overrides)
    recipes = {
        TEACHER: project.teacher,
        STUDENT: project.student if baseline else None,
        DISTILL: project.distill,
    }
    found = []
    for name, recipe in recipes.items():
        if recipe is None:
            alone = next((text for text in overrides if text.startswith(f"{name}:")), None)
            if alone is not None:
                why = "--baseline is missing" if name == STUDENT else "the teacher is trained already"
                raise ConfigError(f"-o {alone}: there is no such training here ({why})")
            continue
        _require_own(project, recipe)
        own = [*changes[name], "Global.checkpoints=auto"]
        config = load_config(recipe, own, "train")
        folder = Path(config.Global.output_dir) / (config.Global.run_name or config.arch.name)
        if processes is not None:
            gpus_for(processes, config.Global.device)
        shares = _shares(config, _processes_of(folder) or processes or 1)
        if shares:
            own += shares
            config = load_config(recipe, own, "train")
        settings = config.Global
        if not settings.eval_during_train or (settings.start_eval_epoch or 0) > settings.epochs:
            raise ConfigError(
                f"{recipe}: distill chooses the best epoch by evaluations, and this training has none; "
                "leave out Global.eval_during_train and Global.start_eval_epoch"
            )
        network = config.arch.main.name
        titles = {
            TEACHER: f"the teacher, {network}",
            STUDENT: f"{network} alone (baseline)",
            DISTILL: f"{network} with the teacher",
        }
        found.append(Step(name, titles[name], recipe, config, folder, tuple(own), processes))
    return found


def _processes_of(folder: Path) -> int | None:
    """Return the number of processes that a training began with; None if it did not begin."""
    progress = read_run(folder).progress if is_run(folder) else None
    return None if progress is None else (progress.batches or {}).get(PROCESSES, 1)


def _shares(config: Recipe, processes: int) -> list[str]:
    """Return the overrides that give each process its share of a batch, so that a step keeps its images.

    Raises:
        ConfigError: if a batch cannot be divided.
    """
    found = []
    for part, node in config.DataLoader.parts.items():
        sampler = node.sampler or {}
        option = next((option for option in SIZES if option in sampler), None)
        if processes == 1 or part == "Eval" or option is None:
            continue
        key, batch = f"DataLoader.{part}.sampler.{option}", sampler[option]
        if not isinstance(batch, int) or batch % processes:
            raise ConfigError(
                f"{key}: {batch} images cannot be shared equally by {processes} processes (--nproc); choose "
                f"a --batch-size that is a multiple of {processes}"
            )
        found.append(f"{key}={batch // processes}")
    return found


def _require_own(project: Project, recipe: Path) -> None:
    """Raise an error if a recipe of a project trains in the runs of another one, of which it is a copy.

    Paths in recipes are absolute. So this comes first: lists may be missing for the same reason.
    """
    section = read(recipe).get("Global")
    output = section.get("output_dir") if isinstance(section, dict) else None
    if not isinstance(output, str):
        return
    home = Path(os.path.abspath(output)).parent
    if home.exists() and (home.samefile(project.folder) or not is_project(home)):
        return
    if home.exists():
        reason = f"which belongs to the project {home}. If it is a copy, change the paths in its files *.yaml"
    else:
        reason = (
            f"and {home} does not exist. If the project was moved, replace that path by {project.folder} in "
            "its files *.yaml"
        )
    raise ConfigError(f"{project.folder}: its recipes train in {output}, {reason}")


def announce(steps: Sequence[Step]) -> None:
    """Log what will be trained and how long it is expected to take, measured on a few random images."""
    sizes: dict[str, tuple[int, int]] = {}
    measured: dict[str, Cost] = {}
    total = 0.0
    for number, step in enumerate(steps, 1):
        select_device(step.config.Global.device)
        use_processor(step.config, "train")  # as the training will do
        place = f"{number} of {len(steps)}: {step.title}"
        epochs = step.config.Global.epochs
        if step.is_finished:
            LOGGER.info("%s: finished before (%s)", place, step.folder)
            continue
        costs = _costs(step.config, measured)
        images, held = sizes.setdefault(str(step.config.DataLoader.to_dict()), _images(step.config))
        done = read_run(step.folder).epochs_done if is_run(step.folder) else 0
        seconds = 0.0 if costs is None else expected_seconds(step.config, images, held, costs)
        seconds *= (epochs - done) / epochs
        total += seconds
        since = f"after the {done} epochs done before, " if done else ""
        left = f"{epochs - done} epoch{'s' if epochs - done != 1 else ''} of {images} images"
        LOGGER.info(
            "%s: %s%s, %s", place, since, left, "time unknown" if costs is None else in_words(seconds)
        )
    if total:
        together = steps[0].processes
        LOGGER.info(
            "altogether %s%s; measured on random images, reading real ones may add to it",
            in_words(total),
            "" if together in (None, 1) else f" in one process (here {together} share the work)",
        )


def _costs(config: Recipe, known: dict[str, Cost]) -> dict[str, Cost] | None:
    """Return the cost of each network of a recipe by its title; None if one cannot be measured.

    Args:
        config: the recipe.
        known: what was measured before, by options; it is extended.
    """
    side = config.Global.image_shape[-1]
    found = {}
    for network in config.arch.children or (config.arch,):
        node: Node = {key: value for key, value in network.options.items() if key not in _ADAPTED}
        if not BACKBONES.trait(network.name, "always_frozen"):
            node["class_num"] = network.class_count
        size = network.options.get("input_size") or side
        key = f"{without_weights(node)} {size}"
        if key not in known:
            try:
                known[key] = measure(node, size if isinstance(size, int) else size[-1], _batch_size(config))
            except (ValueError, RuntimeError, TypeError) as error:  # the start of the training explains it
                LOGGER.debug("%s cannot be measured: %s", network.name, error)
                return None
        found[network.title] = known[key]
    return found


_ADAPTED = ("mean", "std", "input_size")


def _batch_size(config: Recipe) -> int:
    train = config.DataLoader.Train
    found = (train.sampler or {}).get("batch_size") if train is not None else None
    return found if isinstance(found, int) else 32


def _images(config: Recipe) -> tuple[int, int]:
    """Return the numbers of images to train on and to evaluate."""
    found = _datasets(config)
    train, held = (len(found[name]) if name in found else 0 for name in ("Train", "Eval"))
    return train, held


def _datasets(config: Recipe) -> dict[str, Dataset]:
    """Return the images to train on and to evaluate, as far as the recipe has them."""
    parts = config.DataLoader.parts
    # Evaluation may lack some of the classes, which have the numbers of training.
    known = {"Eval": evaluation_names(config, data_class_names(config, None), None)}
    return {
        name: build_dataset(parts[name].dataset, name, config.arch.main.class_count, known.get(name))
        for name in ("Train", "Eval")
        if name in parts
    }


class Pace(Hook):
    """Logs after the first steps of a training how long the rest will take, reading of images included."""

    does_nothing_alone = False

    def __init__(self, title: str) -> None:
        self.title = title
        self._begin: tuple[float, int] | None = None
        self._told = False

    def after_step(self, run: Run, batch: Batch) -> None:
        """Measure from the end of the first step on, which also prepares what later ones use."""
        now = time.perf_counter()
        step = run.progress.step
        if self._begin is None:
            self._begin = (now, step)
        elif not self._told and step - self._begin[1] >= _FIRST_STEPS:
            self._told = True
            epochs = run.settings.epochs - run.progress.epoch + 1
            left = epochs * len(run.parts.loader) / run.settings.update_freq
            seconds = (now - self._begin[0]) / (step - self._begin[1]) * left
            LOGGER.info("%s: %s left by the pace of the first steps", self.title, in_words(seconds))


def run_step(step: Step) -> RunFolder:
    """Train, or continue, or do nothing if all epochs are done; return the run.

    Raises:
        SystemExit: after Ctrl-C or SIGTERM, with ``latest`` saved; code 130 or 143.
        TrainingError: if one of several processes failed.
    """
    if step.is_finished:
        return read_run(step.folder)
    LOGGER.info("training %s: %s", step.title, step.folder)
    try:
        if step.processes is None:
            Engine(step.config, "train").train(hooks=[Pace(step.title)])
        else:
            _train_together(step, step.processes)
    except SystemExit:
        state = "finished" if step.is_finished else "not finished"
        LOGGER.info("%s is %s; repeat the call to continue", step.title, state)
        raise
    finally:
        gc.collect()  # the networks of this step are not needed any more
    return read_run(step.folder)


def _train_together(step: Step, processes: int) -> None:
    """Train a step in several processes, as ``ppcls train --nproc`` does."""
    settings = step.config.Global
    arguments = ["train", "-c", str(step.recipe)]
    for text in step.overrides:
        arguments += ["-o", text]
    code = launch(arguments, processes, settings.device, Path(settings.output_dir) / "log")
    if code in _STOPPED:
        raise SystemExit(code)
    if code:
        raise TrainingError(
            f"{step.title}: a process ended with exit code {code}, see above; when its cause is gone, repeat "
            "the call to continue"
        )
