"""The recipe with which the network of a finished run is evaluated, used or exported.

It is the recipe that the run saved, with the run's own weights and folder. Relative paths in it are those of
the folder in which the run was trained, and what was moved together with the run is found again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ppcls.class_names import find_class_names, is_packaged
from ppcls.config import Recipe, dump_yaml, load_config
from ppcls.config.loading import override_steps
from ppcls.engine.build import WORKING_FOLDER
from ppcls.engine.start.sameness import PATHS
from ppcls.errors import ConfigError, DataError
from ppcls.logger import LOGGER
from ppcls.report.runs import BEST, CLASS_NAMES, RunFolder, read_run

_WEIGHTS_SETTING = "Global.pretrained_model"
_NAMES_FILE = "Infer.PostProcess.class_id_map_file"
# The part of a recipe whose files a command reads, by mode.
_READ = {"eval": "DataLoader.Eval.", "infer": "Infer.", "export": _NAMES_FILE}


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
    if "Arch.infer_model_name" in given:
        ours["Global.infer_model_name"] = None  # the same setting; the run saved it in both sections
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
    return recipe.mark_checked(mode)  # what was added is right; checking again would repeat the warnings


def _override(where: str, value: Any) -> str:
    text = dump_yaml(value).strip().removesuffix("...").strip()
    return f"{where}={text}"


def _epoch(run: RunFolder, tag: str) -> str:
    if tag == "best_model" and run.best is not None:
        return f" of epoch {run.best.best_epoch}"
    if tag == "best_model_ema" and run.progress is not None and run.progress.best_ema_epoch is not None:
        return f" of epoch {run.progress.best_ema_epoch}"
    if tag == "latest" and run.progress is not None:
        return f" after {run.progress.epoch - 1} epochs, {run.progress.step} steps"
    return ""


def _found_paths(run: RunFolder, mode: str, given: set[str]) -> dict[str, str]:
    """Return the paths of a saved recipe that have to change so that their files are found.

    A file is looked for where it was when the run was trained, then where it is if the run was moved together
    with it, then here.
    """
    home = (run.environment or {}).get(WORKING_FOLDER)
    home = home if isinstance(home, str) else os.getcwd()
    old_root, new_root = _moved(run, home)
    found = {}
    for where, text in _paths(run.config):
        there = os.path.join(home, os.path.expanduser(text))
        moved = os.path.join(new_root, os.path.relpath(there, old_root))
        if _exists(there):
            if os.path.abspath(there) != os.path.abspath(os.path.expanduser(text)):
                found[where] = there
        elif there.startswith(old_root + os.sep) and _exists(moved):
            found[where] = moved
        elif where == _NAMES_FILE and (_is_packaged(text) or (run.folder / CLASS_NAMES).is_file()):
            if not _is_packaged(text):
                found[where] = str(run.folder / CLASS_NAMES)
        elif where.startswith(_READ[mode]) and where not in given and not _exists(text):
            LOGGER.warning("%s: %s does not exist any more; set it with -o %s=...", where, there, where)
    return found


def _moved(run: RunFolder, home: str) -> tuple[str, str]:
    """Return the outermost folder that was moved with a run, as it was and as it is now; equal if it stayed.

    Args:
        run: the run.
        home: the working folder of its training.
    """
    name = run.settings.get("run_name") or run.config["Arch"].get("name")
    old = Path(os.path.abspath(os.path.join(home, str(run.settings.get("output_dir", "")), str(name))))
    new = Path(os.path.abspath(run.folder))
    if old == new:
        return str(old), str(new)
    while old.name == new.name and old != old.parent and new != new.parent:
        old, new = old.parent, new.parent
    return str(old), str(new)


def _is_packaged(names: str) -> bool:
    try:
        return is_packaged(find_class_names(names))
    except DataError:
        return False


def _exists(path: str) -> bool:
    return any(os.path.exists(f"{path}{suffix}") for suffix in ("", ".pdparams", ".safetensors"))


def _paths(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield config path and text of each path of a file or folder in a saved recipe."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        path = f"{where}.{key}" if where else str(key)
        if not isinstance(value, str):
            yield from _paths(value, path)
        elif _is_path(path) and value and "://" not in value:
            yield path, value


def _is_path(where: str) -> bool:
    if where.startswith("Global."):
        return False
    return PATHS.fullmatch(where) is not None or where.startswith("Infer.infer_imgs")
