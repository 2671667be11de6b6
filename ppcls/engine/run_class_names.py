"""The class names of a run: those of its data, which its folder keeps, and those in results.

Names that belong to the data (class folders) define the meaning of labels. Training writes them into the run
folder as ``class_names.txt``, and every later command with these weights reads them there. So the training
data is not needed any more, and evaluation compares its classes with them by name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.class_names import (
    find_class_names,
    format_class_names,
    is_packaged,
    read_fitting_names,
    shown_name,
)
from ppcls.config import ComponentSpec, Recipe, RecipeTree
from ppcls.config.binding import takes
from ppcls.config.schema import InferSpec
from ppcls.data import Dataset
from ppcls.data.folders import list_class_names, text_order
from ppcls.engine.checkpoint.changes import read_run_config
from ppcls.errors import ConfigError, DataError
from ppcls.logger import LOGGER
from ppcls.registry import DATASETS, POSTPROCESSES
from ppcls.report.runs import CLASS_NAMES as FILE

_SETTING = "Infer.PostProcess.class_id_map_file"


@dataclass(frozen=True)
class ClassNames:
    """Names of all classes of a network.

    Attributes:
        names: names by class; None if unknown.
        source: a text about their origin, or the reason why there are none.
    """

    names: list[str] | None
    source: str


def class_names(config: Recipe, class_num: int, of_data: ClassNames | None = None) -> ClassNames:
    """Return the names for results and exports.

    The first of these that exists is used: the file (or list) that ``Infer.PostProcess`` names, the names
    kept with the run that the weights come from, the names that belong to the data of training.

    Args:
        config: a checked recipe.
        class_num: number of classes of the network.
        of_data: the result of :func:`data_class_names`, if it was called before.

    Raises:
        DataError: if the user's file does not have one name per class, or has a name of the data for another
            class.
    """
    node = config.Infer.PostProcess or {}
    of_data = of_data or data_class_names(config, weights_folder(config))
    file = node.get("class_id_map_file")
    listed = node.get("label_list")
    if listed is not None:
        return _agreeing(ClassNames([str(name) for name in listed], "Infer.PostProcess.label_list"), of_data)
    if file and not _left_out(file, class_num):
        names = read_fitting_names(file, class_num, node.get("delimiter"))
        return _agreeing(ClassNames(names, f"{_SETTING}: {file}"), of_data)
    if of_data.names is not None and len(of_data.names) != class_num:
        problem = f"{of_data.source} has {len(of_data.names)} names for {class_num} classes"
        LOGGER.warning("%s; results go without names. Give each class one name there", problem)
        return ClassNames(None, problem)
    if of_data.names is None and file:
        return ClassNames(None, f"{_SETTING}: {file} names other classes than the {class_num} of the network")
    return of_data


def _left_out(file: str, class_num: int) -> bool:
    """Tell whether a list of the package names other classes; the check of the recipe warned about it."""
    found = find_class_names(file)
    return is_packaged(found) and len(read_fitting_names(found, None)) != class_num


def _agreeing(found: ClassNames, of_data: ClassNames) -> ClassNames:
    names = found.names or []
    theirs = of_data.names or []
    moved = _moved(names, theirs)
    if moved:
        place = min(moved)
        text = f"{found.source}: class {place} is {names[place]!r}, but {theirs[place]!r} in {of_data.source}"
        if moved.keys() == set(moved.values()):  # they changed places with each other
            raise DataError(
                f"{text}; results would carry the names of other classes. Put the names into the order of "
                f"the classes, or leave {_SETTING} out"
            )
        LOGGER.warning(
            "%s, which has %r for another class; if that is not meant, put the names into the order of the "
            "classes, or leave %s out",
            text,
            names[place],
            _SETTING,
        )
    return found


def _moved(names: list[str], theirs: list[str]) -> dict[int, int]:
    """Return the classes whose names are those of other classes in `theirs`, each with that other class.

    Most names may be spelt otherwise, or in another language. Then case does not matter, and numbers do not
    count: they may be grades or ages that are shown instead of the numbers of folders.
    """
    if len(names) != len(theirs):
        return {}
    same = sorted(names) == sorted(theirs)
    if not same:
        names, theirs = ([shown_name(name).casefold() for name in every] for every in (names, theirs))
    there = {name: place for place, name in enumerate(theirs)}
    kept = {one for one, other in zip(names, theirs, strict=True) if one == other}
    return {
        place: there[name]
        for place, name in enumerate(names)
        if name in there and name not in kept and (same or not name.isdecimal())
    }


def data_class_names(config: Recipe, folder: Path | None) -> ClassNames:
    """Return the names that belong to the training data of a network.

    Args:
        config: a checked recipe.
        folder: folder of the run that trained the weights; None if there is none yet, or it is unknown.
    """
    kept = None if folder is None else recorded_names(folder, config)
    if kept is not None:
        return kept
    part, node = _named_part(config)
    if node is None:
        return ClassNames(None, "the recipe has no DataLoader.Train.dataset")
    names = _names_of_dataset(node)
    if names is not None:
        if folder is not None and node.options.get("class_names") is None and text_order(names) != names:
            LOGGER.warning(
                "%s keeps no class names; the classes are taken to be %s, ... Weights of an earlier version "
                "have them as texts: %s, ...; then name them so in DataLoader.Train.dataset.class_names",
                folder,
                ", ".join(names[:3]),
                ", ".join(text_order(names)[:3]),
            )
        return ClassNames(names, f"DataLoader.{part}.dataset ({_place(node)})")
    return ClassNames(None, f"DataLoader.{part}.dataset ({_place(node)}) has none, or is not here")


def _named_part(config: Recipe) -> tuple[str, ComponentSpec | None]:
    """Return the data whose class names count: of training, or of evaluation if training has no labels."""
    train = _dataset(config, "Train")
    if train is None or train.options.get("labelled") is not False or train.options.get("class_names"):
        return "Train", train
    return "Eval", _dataset(config, "Eval")


def evaluation_names(config: Recipe, known: ClassNames, folder: Path | None) -> list[str] | None:
    """Return the names that the classes of ``DataLoader.Eval`` must have; None if unknown.

    Names in a file for a list of training images may be spelt differently from folders of evaluation; they
    are only used if they contain all of these folders.
    """
    train = _dataset(config, "Train")
    evaluation = _dataset(config, "Eval")
    if train is None and folder is not None:
        train = _recorded_dataset(folder)
    theirs = None if evaluation is None else _names_of_dataset(evaluation)
    if theirs is None or known.names is None or train is None or _has_names(train):
        if theirs is not None and known.names is None:
            LOGGER.info("DataLoader.Eval: its classes cannot be compared by name: %s", known.source)
        return known.names
    if set(theirs) <= set(known.names):
        return known.names
    LOGGER.warning(
        "DataLoader.Eval: its class folders are not compared by name with training, whose list has numbers "
        "alone; make sure that class 0 is %s",
        theirs[0],
    )
    return None


def recorded_names(folder: Path, config: Recipe | None = None) -> ClassNames | None:
    """Return the names that a run kept in its folder.

    Runs of versions that did not keep names had class folders in alphabetical order: 0, 1, 10, 11, 2. Their
    names are returned in that order, with a warning if it differs from today's order.

    Args:
        folder: folder of the run.
        config: the recipe of now, whose folders are used if those of the old run do not exist any more.

    Raises:
        DataError: if ``class_names.txt`` is damaged.
    """
    if (folder / FILE).is_file():
        return ClassNames(read_fitting_names(folder / FILE, None), str(folder / FILE))
    node = _recorded_dataset(folder)
    if node is None or node.name != "FolderDataset":
        return None
    listed = node.options.get("class_names")
    if listed is not None:
        return ClassNames([shown_name(str(name)) for name in listed], f"{folder}/config.yaml")
    nodes = [node] if config is None else [node, _dataset(config, "Train"), _dataset(config, "Eval")]
    roots = [str(part.options.get("image_root")) for part in nodes if part and part.name == "FolderDataset"]
    root = next((place for place in roots if os.path.isdir(place)), None)
    names = list_class_names(root) if root is not None else []
    before = text_order(names)
    if names == before:
        return None
    LOGGER.warning(
        "%s was trained by an earlier version, which ordered class folders as texts (%s, ...) and kept no "
        "names; this order stays for its weights. Write it into %s to be sure of it, a line 'id name' each",
        folder,
        ", ".join(before[:4]),
        folder / FILE,
    )
    return ClassNames(before, f"the class folders of {root} in order of texts")


def names_file(names: list[str] | None) -> dict[str, bytes]:
    """Return name and content of the file with the class names of a run; empty without names."""
    return {} if names is None else {FILE: format_class_names(names).encode("utf-8", "backslashreplace")}


def names_to_record(config: Recipe, of_data: ClassNames, class_num: int) -> list[str] | None:
    """Return the names that a run keeps: those of its data, else those of a file in ``Infer.PostProcess``.

    Args:
        config: a checked recipe.
        of_data: the names that belong to the data.
        class_num: number of classes of the network.

    Raises:
        DataError: if the file does not fit, or has a name of the data for another class.
    """
    node = config.Infer.PostProcess or {}
    file = node.get("class_id_map_file")
    if not file:
        return of_data.names
    try:
        found = find_class_names(file)
    except DataError as error:
        LOGGER.warning("Infer.PostProcess: %s", error)
        return of_data.names
    if is_packaged(found):
        return of_data.names
    names = read_fitting_names(file, class_num, node.get("delimiter"))
    _agreeing(ClassNames(names, f"{_SETTING}: {file}"), of_data)
    return names if of_data.names is None else of_data.names


def weights_folder(config: Recipe) -> Path | None:
    """Return the folder of the weights of the network to deploy; None if they are not a local file."""
    return _folder_of(config.Global.pretrained_model or config.arch.main.pretrained)


def _folder_of(weights: Any) -> Path | None:
    if not isinstance(weights, str) or "://" in weights:
        return None
    return Path(weights).expanduser().parent


def check_teachers(config: Recipe, names: list[str] | None) -> None:
    """Raise an error for frozen networks whose run had the same classes in another order.

    Args:
        config: a checked recipe.
        names: names of the classes of training, in order.

    Raises:
        ConfigError: naming the network and the first class that differs.
    """
    if names is None or _has_class_map(config):
        return
    mapped = _mapped(config)
    for network in config.arch.children:
        name = network.title
        if name in mapped:
            continue
        folder = _folder_of(network.pretrained)
        theirs = recorded_names(folder, config) if network.frozen and folder is not None else None
        if theirs is None or theirs.names is None or theirs.names == names:
            continue
        moved = _moved(theirs.names, names)
        place = min(moved, default=None)
        if place is not None and sorted(theirs.names) == sorted(names):
            raise ConfigError(
                f"Arch.models.{name}: its weights were trained with the same classes in another order "
                f"({theirs.source}): class {place} was {theirs.names[place]!r}, here it is {names[place]!r}. "
                "Name the classes in its order in DataLoader.Train.dataset.class_names"
            )
        # Not refused: a student may learn from the features of a teacher of other classes.
        LOGGER.warning(
            "Arch.models.%s: its weights were trained on other classes (%s: %s) than these (%s)%s",
            name,
            theirs.source,
            ", ".join(theirs.names[:4]),
            ", ".join(names[:4]),
            "" if place is None else f"; its class {place}, {theirs.names[place]!r}, has another number here",
        )


def _mapped(config: Recipe) -> set[str]:
    """Return the networks whose classes an ensemble maps."""
    nodes = config.arch.options.get("ensembles") or {}
    return {name for node in nodes.values() for name in node.get("class_maps") or {}}


def _has_class_map(config: Recipe) -> bool:
    losses = ComponentSpec.read_all(config.Loss.Train, "Loss.Train")
    return any(loss.options.get("class_map") for loss in losses)


def _dataset(config: RecipeTree, part: str) -> ComponentSpec | None:
    """Return the dataset of a part of the data; None if there is none, or it cannot be read."""
    node: Any = config
    for step in ("DataLoader", part, "dataset"):
        node = node.get(step) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        return None
    return ComponentSpec.read(dict(node), f"DataLoader.{part}.dataset")


def _recorded_dataset(folder: Path) -> ComponentSpec | None:
    """Return the training data of the run in a folder."""
    return _dataset(read_run_config(folder) or {}, "Train")


def _place(dataset: ComponentSpec) -> str:
    given = (dataset.options.get(key) for key in ("cls_label_path", "data_file", "path", "image_root"))
    return str(next((value for value in given if value), dataset.name))


def _dataset_class(dataset: ComponentSpec) -> type[Dataset] | None:
    if dataset.name not in DATASETS:
        return None
    found = DATASETS[dataset.name]
    return found if isinstance(found, type) and issubclass(found, Dataset) else None


def _names_of_dataset(dataset: ComponentSpec) -> list[str] | None:
    found = _dataset_class(dataset)
    return None if found is None else found.find_class_names(dataset.options)


def _has_names(dataset: ComponentSpec) -> bool:
    """Tell whether class names are a part of such data."""
    found = _dataset_class(dataset)
    return found is not None and (
        found.has_class_names or found.find_class_names(dataset.options) is not None
    )


def with_names(infer: InferSpec, names: list[str] | None) -> dict[str, Any]:
    """Return ``Infer.PostProcess`` with the names of the classes instead of the file with names.

    It is not changed if it has no option ``label_list``, but its own names.
    """
    options = dict(infer.PostProcess or {"name": "Topk", "topk": 5})
    factory = POSTPROCESSES[options["name"]]
    if not takes(factory, "label_list"):
        return options
    bare = {k: v for k, v in options.items() if k not in ("class_id_map_file", "delimiter", "label_list")}
    return bare if names is None else {**bare, "label_list": list(names)}
