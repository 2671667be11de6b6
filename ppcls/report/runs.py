"""Read the folder of a finished or running training: its recipe, weights, metrics, names and environment.

Nothing in the folder is changed, and no network is built. Folders that earlier versions wrote are read too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ppcls.class_names import find_class_names, is_packaged, read_fitting_names
from ppcls.config import MAX_NODES_OF_DATA, ArchSpec, RecipeTree, read_yaml
from ppcls.errors import ConfigError, DataError, WeightsError, hint
from ppcls.logger import METRICS, read_rows
from ppcls.run_states import Progress, read_states

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
CLASS_NAMES = "class_names.txt"
BEST = "best"
LATEST = "latest"
_BEST_MODEL = "best_model"
_WEIGHTS = (".pdparams", ".safetensors")
# Files of which one is in every folder of a run, besides its recipe.
_SIGNS = (METRICS, ENVIRONMENT, "train.log", "*.pdstates", "*.pdparams")
_DEPTH = 3  # how far below a folder runs are looked for


@dataclass(frozen=True)
class RunFolder:
    """A training, as its folder describes it.

    Attributes:
        folder: the folder, as it was given.
        config: the recipe that the run saved; every key that its version knew.
        rows: rows of ``metrics.jsonl`` in their order: ``kind`` (``train``, ``eval`` or ``teacher``),
            ``epoch``, ``step`` and the values; damaged lines are left out.
        environment: versions, processor and command line; empty if the file is missing or damaged.
        progress: how far the run came, from ``latest``; None before its first checkpoint.
        best: the same for ``best_model``; None if there is none.
        problems: what could not be read, in words.
    """

    folder: Path
    config: RecipeTree
    rows: tuple[dict[str, Any], ...] = ()
    environment: Mapping[str, Any] | None = None
    progress: Progress | None = None
    best: Progress | None = None
    problems: tuple[str, ...] = ()

    @property
    def config_file(self) -> Path:
        """The saved recipe."""
        return self.folder / CONFIG

    @property
    def name(self) -> str:
        """The name of the folder, by which people know the run."""
        return Path(os.path.abspath(self.folder)).name

    @cached_property
    def arch(self) -> ArchSpec:
        """The networks of the run.

        Raises:
            ConfigError: if the saved recipe describes none.
        """
        chosen = self.settings.get("infer_model_name")
        return ArchSpec.read(self.config.get("Arch"), chosen if isinstance(chosen, str) else None)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The section ``Global`` of the saved recipe."""
        found = self.config.get("Global")
        return found if isinstance(found, dict) else {}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done; False for a run that still trains or was interrupted."""
        return self.progress is not None and self.progress.finished

    @property
    def epochs(self) -> int | None:
        """The number of epochs that were asked for."""
        asked = self.settings.get("epochs")
        return asked if isinstance(asked, int) else None

    @property
    def epochs_done(self) -> int:
        """The number of complete epochs at the latest checkpoint."""
        return 0 if self.progress is None else self.progress.epoch - 1

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best evaluation, of the weights or of their averages, whichever are better."""
        known = self.progress or self.best
        return None if known is None else known.chosen_epoch

    @property
    def best_metrics(self) -> Mapping[str, float]:
        """The metrics of the best evaluation by name, see `Progress.chosen`; empty before the first one."""
        known = self.progress or self.best
        return {} if known is None else known.chosen

    @property
    def averages_are_better(self) -> bool:
        """Whether the averaged weights are better than the weights themselves."""
        known = self.progress or self.best
        return known is not None and known.averages_are_better

    def rows_of(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of a kind: ``train``, ``eval`` or ``teacher``."""
        return [row for row in self.rows if row["kind"] == kind]

    @cached_property
    def class_names(self) -> list[str] | None:
        """The names of the classes, in order; None if the run kept none."""
        try:
            if (self.folder / CLASS_NAMES).is_file():
                return read_fitting_names(self.folder / CLASS_NAMES, None)
            return self._names_of_recipe()
        except DataError:
            return None

    def _names_of_recipe(self) -> list[str] | None:
        infer = self.config.get("Infer")
        post = infer.get("PostProcess") if isinstance(infer, dict) else None
        if not isinstance(post, dict):
            return None
        if isinstance(post.get("label_list"), list):
            return [str(name) for name in post["label_list"]]
        file = post.get("class_id_map_file")
        if not isinstance(file, str) or is_packaged(find_class_names(file)):
            return None
        return read_fitting_names(file, self.arch.main.class_count, post.get("delimiter"))

    # ------------------------------------------------------------------ weights

    def tags(self) -> list[str]:
        """Return the names of the weights files, without suffix: ``best_model``, ``latest`` and others."""
        found = {
            path.name.removesuffix(suffix) for suffix in _WEIGHTS for path in self.folder.glob(f"*{suffix}")
        }
        return sorted(found)

    def weights(self, which: str = BEST, network: str | None = None) -> Path:
        """Return a weights file of the run, without suffix.

        Args:
            which: ``best``: those of the best evaluation (the averaged ones, if the run has EMA and they are
                better); ``latest``; or the name of a file, such as ``epoch_10``.
            network: for ``best``, the student that is asked for; None for the one that the run deploys.

        Raises:
            WeightsError: if there is no such file; the message says what there is.
        """
        tags = self.tags()
        if which != BEST:
            name = next((which.removesuffix(s) for s in _WEIGHTS if which.endswith(s)), which)
            if name in tags:
                return self.folder / name
            raise WeightsError(
                f"{self.folder}: it has no weights {name!r}; {_listed(tags)}.{hint(name, [BEST, *tags])}"
            )
        names = [f"{_BEST_MODEL}_ema", _BEST_MODEL] if self.averages_are_better else [_BEST_MODEL]
        if network is not None and network != self.arch.main_name:
            names = [f"{name}.{network}" for name in names] + names
        else:
            names += [f"{name}_student" for name in names]  # if somebody kept only the small file
        for name in names:
            if name in tags:
                return self.folder / name
        raise WeightsError(self._no_best(tags))

    def _no_best(self, tags: list[str]) -> str:
        text = f"{self.folder}: it has no {_BEST_MODEL}"
        if self.settings.get("eval_during_train") is False:
            text += ", because Global.eval_during_train is false"
        elif not self.finished:
            done = f"{self.epochs_done} of {self.epochs or '?'} epochs are done"
            text += f": the run is not finished ({done}) and has not been evaluated"
        remedy = "; use --weights latest" if LATEST in tags else ""
        return f"{text}; {_listed(tags)}{remedy}"


def _listed(tags: list[str]) -> str:
    return f"its weights are {', '.join(tags)}" if tags else "there are no weights in it"


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is that of a run."""
    folder = Path(os.path.expanduser(folder))
    return (folder / CONFIG).is_file() and any(any(folder.glob(sign)) for sign in _SIGNS)


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the run folders in a folder, itself included, in order of their paths."""
    folder = Path(os.path.expanduser(folder))
    if is_run(folder):
        return [folder]
    return _runs_below(folder, _DEPTH)


def _runs_below(folder: Path, depth: int) -> list[Path]:
    try:
        below = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())
    except OSError:
        return []
    found: list[Path] = []
    for path in below:
        if is_run(path):
            found.append(path)
        elif depth > 1:
            found += _runs_below(path, depth - 1)
    return found


def read_run(folder: str | os.PathLike[str]) -> RunFolder:
    """Read the folder of a finished or running training.

    A damaged checkpoint, metrics file or environment is no error; `problems` of the result says so.

    Raises:
        ConfigError: if it is not the folder of a run, or its recipe cannot be read.
    """
    path = Path(os.path.expanduser(folder))
    _require_run(path)
    config = read_yaml(path / CONFIG, MAX_NODES_OF_DATA)
    if not isinstance(config, dict) or not isinstance(config.get("Arch"), dict):
        raise ConfigError(f"{path / CONFIG}: the saved recipe of the run is damaged: it has no section Arch")
    problems: list[str] = []
    return RunFolder(
        path,
        config,
        rows=tuple(_rows(path, problems)),
        environment=read_map(path / ENVIRONMENT, problems),
        progress=_progress(path, LATEST, problems),
        best=_progress(path, _BEST_MODEL, problems),
        problems=tuple(problems),
    )


def _require_run(folder: Path) -> None:
    """Raise an error that says what a path is instead of the folder of a run."""
    if not os.path.lexists(folder):
        beside = sorted(folder.parent.iterdir()) if folder.parent.is_dir() else []
        close = hint(folder.name, [path.name for path in beside])
        raise ConfigError(f"{folder}: there is no such folder.{close}")
    if not folder.is_dir():
        is_recipe = folder.suffix in (".yaml", ".yml")
        recipe = f"; eval, infer and export take a recipe with -c {folder}" if is_recipe else ""
        raise ConfigError(f"{folder}: expected the folder of a run, got a file{recipe}")
    if is_run(folder):
        return
    text = f"{folder} is not the folder of a run"
    if (folder / "inference.yml").is_file():
        raise ConfigError(f"{text} but an exported network; use ppcls predict --model-dir {folder}")
    weights = [path for suffix in _WEIGHTS for path in sorted(folder.glob(f"*{suffix}"))]
    if weights:
        raise ConfigError(
            f"{text}: it has weights, but no {CONFIG}. Give the recipe and the weights: "
            f"-c FILE -o Global.pretrained_model={weights[0]}"
        )
    inside = _runs_below(folder, _DEPTH)
    if inside:
        shown = ", ".join(str(path) for path in inside[:8])
        more = f" and {len(inside) - 8} more" if len(inside) > 8 else ""
        raise ConfigError(f"{text}, but it holds some: {shown}{more}")
    raise ConfigError(f"{text}: it has no {CONFIG}, which every training writes")


def _rows(folder: Path, problems: list[str]) -> list[dict[str, Any]]:
    try:
        rows, damaged = read_rows(folder / METRICS)
    except OSError as error:
        problems.append(f"{folder / METRICS} cannot be read: {error.strerror}")
        return []
    if damaged:
        problems.append(f"{folder / METRICS}: {damaged} damaged lines are left out")
    return rows


def read_map(file: Path, problems: list[str]) -> dict[str, Any]:
    """Return the map in a JSON file; an empty one, and a line in `problems`, if it is damaged.

    A file that does not exist is an empty map.
    """
    try:
        found = json.loads(file.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    problems.append(f"{file} is damaged")
    return {}


def _progress(folder: Path, tag: str, problems: list[str]) -> Progress | None:
    file = folder / f"{tag}.pdstates"
    if not file.is_file():
        return None
    try:
        return read_states(file)[0]
    except WeightsError as error:
        problems.append(str(error))
        return None
