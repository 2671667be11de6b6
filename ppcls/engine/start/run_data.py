"""The data of a run: opened, and compared with the run to resume and with the other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.config import Recipe
from ppcls.data import build_loader, build_train_loader, datasets_of
from ppcls.data.mirroring import mirroring_problem
from ppcls.engine import build
from ppcls.engine.checkpoint import Checkpoint
from ppcls.engine.checkpoint.changes import report_list_changes
from ppcls.engine.checkpoint.run_folder import check_images
from ppcls.engine.run_class_names import (
    ClassNames,
    check_teachers,
    data_class_names,
    evaluation_names,
    names_to_record,
    recorded_names,
)
from ppcls.engine.start.processes import Course, former_processes, set_course
from ppcls.engine.start.sameness import require_same_lists
from ppcls.logger import LOGGER


@dataclass(frozen=True)
class RunData:
    """The open data of a run.

    Attributes:
        loader: batches for training.
        eval_loader: batches for evaluation; None if the run does not evaluate.
        shape: [C, H, W] of an image of training.
        class_names: names to keep with the run, by class; None if unknown.
        lists: fingerprint of each list, by its config path.
        course: where the run begins, and how batches make steps.
    """

    loader: Any
    eval_loader: Any
    shape: tuple[int, ...]
    class_names: list[str] | None
    lists: dict[str, dict[str, Any]]
    course: Course


def open_data(config: Recipe, folder: Path, resumed: Checkpoint | None) -> RunData:
    """Open the data of a run and compare it with the run to resume and with the other processes.

    Args:
        config: the recipe; its seed is set.
        folder: where the run will write; images that would be renamed with it are refused.
        resumed: the checkpoint to resume.
    """
    kept = None if resumed is None else recorded_names(resumed.where.parent, config)
    class_num = config.arch.main.class_count
    loader = build_train_loader(
        config.DataLoader,
        seed=config.Global.seed or 0,
        class_num=class_num,
        class_names=None if kept is None else kept.names,
        former=former_processes(config, resumed),
        update_freq=config.Global.update_freq,
    )
    train = config.DataLoader.Train
    if train is None or train.labelled:
        known = ClassNames(loader.dataset.class_names, loader.dataset.name)
    else:
        known = kept or data_class_names(config, None)
    names = names_to_record(config, known, class_num)
    check_teachers(config, names)
    mirrored = mirroring_problem(loader.dataset, names)
    if mirrored is not None:
        LOGGER.warning("%s", mirrored)
    shape = build.first_sample_shape(loader)
    eval_loader = None
    if config.Global.eval_during_train:
        build.check_deployed_trains(config.arch)
        eval_loader = open_evaluation(config, evaluation_names(config, kept or known, None))
    datasets = datasets_of(loader, eval_loader)
    check_images(folder, datasets, resumed)
    lists = {where: dataset.fingerprint() for where, dataset in datasets.items()}
    require_same_lists(lists)
    if resumed is not None:
        report_list_changes(resumed.progress.lists, lists)
    recorded = {where: fingerprint.as_dict() for where, fingerprint in lists.items()}
    course = set_course(config, resumed, loader)
    return RunData(loader, eval_loader, shape, names, recorded, course)


def open_evaluation(config: Recipe, names: Sequence[str] | None = None) -> Any:
    """Return the loader of the images to evaluate.

    Args:
        config: the recipe; its seed is set.
        names: the classes of the network by number, which class folders are mapped to.
    """
    return build_loader(
        config["DataLoader"]["Eval"],
        "Eval",
        seed=config.Global.seed or 0,
        class_num=config.arch.main.class_count,
        class_names=names,
    )
