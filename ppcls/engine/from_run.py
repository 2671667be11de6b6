"""The recipe with which the network of a finished run is evaluated, used or exported.

It is the recipe that the run saved, with the run's own weights and folder. Relative paths in it are those of
the folder in which the run was trained, if that still exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ppcls.config import Recipe, dump_yaml, load_config
from ppcls.config.loading import override_steps
from ppcls.engine.build import WORKING_FOLDER
from ppcls.engine.start.sameness import PATHS
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.report.runs import BEST, RunFolder, read_run

_WEIGHTS_SETTING = "Global.pretrained_model"
# The part of a recipe whose files a command reads, by mode.
_READ = {"eval": "DataLoader.Eval.", "infer": "Infer.", "export": "Infer."}


def load_run(
    folder: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    mode: str = "eval",
    weights: str | None = None,
) -> Recipe:
    """Return the checked recipe of a run, with the weights of the run as ``Global.pretrained_model``.

    An export goes into the folder ``inference`` of the run, unless an override names another place.

    Args:
        folder: the folder of the run, which may have been moved.
        overrides: see :func:`ppcls.config.load_config`.
        mode: ``eval``, ``infer`` or ``export``.
        weights: see :meth:`ppcls.report.runs.RunFolder.weights`; None for the best ones.

    Raises:
        ConfigError: if it is not the folder of a run, or the recipe does not fit this version.
        WeightsError: if the run does not have these weights.
    """
    run = read_run(folder)
    given = {".".join(override_steps(text)) for text in overrides}
    if weights is not None and _WEIGHTS_SETTING in given:
        raise ConfigError(f"--weights {weights} and -o {_WEIGHTS_SETTING} both name weights; use one of both")
    ours = {_WEIGHTS_SETTING: None, "Global.checkpoints": None, **_found_paths(run, mode, given)}
    texts = [_override(where, value) for where, value in ours.items() if where not in given]
    recipe = load_config(run.config_file, [*texts, *overrides], mode)
    place = Path(os.path.abspath(run.folder))
    if not given & {"Global.output_dir", "Global.run_name"}:
        recipe.Global.output_dir = str(place.parent)
        recipe.Global.run_name = place.name
    if "Global.save_inference_dir" not in given:
        recipe.Global.save_inference_dir = str(run.folder / "inference")
    if recipe.Global.pretrained_model is None:
        found = run.weights(weights or BEST, None if mode == "eval" else recipe.arch.main_name)
        recipe.Global.pretrained_model = str(found)
        LOGGER.info("%s: weights %s%s", run.folder, found.name, _epoch(run, found.name))
    return recipe


def _override(where: str, value: Any) -> str:
    text = dump_yaml(value).strip().removesuffix("...").strip()
    return f"{where}={text}"


def _epoch(run: RunFolder, tag: str) -> str:
    if tag == "best_model" and run.best is not None:
        return f" of epoch {run.best.best_epoch}"
    if tag == "latest" and run.progress is not None:
        return f" after {run.progress.epoch - 1} epochs, {run.progress.step} steps"
    return ""


def _found_paths(run: RunFolder, mode: str, given: set[str]) -> dict[str, str]:
    """Return the relative paths of a saved recipe as absolute ones, where their files are found.

    Files in the folder in which the run was trained have priority over files of the same names here.
    """
    recorded = (run.environment or {}).get(WORKING_FOLDER)
    if not isinstance(recorded, str) or os.path.abspath(recorded) == os.getcwd():
        return {}
    found = {}
    for where, text in _relative_paths(run.config):
        there = os.path.join(recorded, text)
        if _exists(there):
            found[where] = there
        elif where.startswith(_READ[mode]) and where not in given and not _exists(text):
            LOGGER.warning(
                "%s: %s is neither here nor in %s, where the run was trained; set it with -o %s=...",
                where,
                text,
                recorded,
                where,
            )
    return found


def _exists(path: str) -> bool:
    return any(os.path.exists(f"{path}{suffix}") for suffix in ("", ".pdparams", ".safetensors"))


def _relative_paths(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield config path and text of each relative path in a saved recipe."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        path = f"{where}.{key}" if where else str(key)
        if not isinstance(value, str):
            yield from _relative_paths(value, path)
        elif _is_path(path) and value and "://" not in value and not value.startswith(("~", os.sep)):
            yield path, value


def _is_path(where: str) -> bool:
    return PATHS.fullmatch(where) is not None or where.startswith("Infer.infer_imgs")
