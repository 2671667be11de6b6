"""Differences between the config with which a run was started and the one with which it is resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.config import MAX_NODES_OF_DATA, Recipe, RecipeTree, read_yaml
from ppcls.data import Fingerprint
from ppcls.errors import ConfigError, mask_credentials
from ppcls.logger import LOGGER

# Paths of files, the seed, which a run keeps in any case, what is written beside the run, and what has an
# effect only through the transforms, which are compared themselves; and where teachers run.
QUIET = re.compile(
    r"Global\.(checkpoints|output_dir|run_name|pretrained_model|save_inference_dir|seed|report|teacher_ahead"
    r"|image_size|(mean|std)(\.\d+)?)"
)
# Settings about output, kept files, export and loading speed, which do not change the weights.
HARMLESS = re.compile(
    r"Global\.(print_batch_step|print_mem_info|log_ranks|use_visualdl|use_tensorboard|save_interval|save_steps"
    r"|keep_last|export_\w+|infer_add_softmax)(\.\d+)?|Infer(\..*)?|DataLoader\.\w+\.loader\..*"
)
ABSENT = object()
LONGEST = 200


@dataclass(frozen=True)
class Change:
    """One setting that differs; `was` or `now` is ABSENT if the setting does not exist."""

    key: str
    was: Any
    now: Any

    @property
    def harmless(self) -> bool:
        """Tell whether the trained weights do not depend on it."""
        return HARMLESS.fullmatch(self.key) is not None

    def __str__(self) -> str:
        was, now = (show_setting(value) for value in (self.was, self.now))
        return f"{self.key}: was {was}, is {now}"


def show_setting(value: Any) -> str:
    """Return a setting as text for a message."""
    if value is ABSENT:
        return "not set"
    text = json.dumps(value, ensure_ascii=False, default=str)  # which is also valid YAML
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def find_changes(old: Any, new: Any) -> list[Change]:
    """Return the settings that differ between two resolved configs, without paths and the seed.

    A section or setting that the older config lacks, because the version that wrote it did not know it, and
    that is empty now, is not a change.
    """
    return [
        change
        for change in walk_changes(old, new)
        if not QUIET.fullmatch(change.key) and not _is_new_and_empty(change)
    ]


def _is_new_and_empty(change: Change) -> bool:
    """Tell whether a setting did not exist in the version that wrote the older config, and is empty now."""
    return change.was is ABSENT and change.now in (None, [], {})


def walk_changes(old: Any, new: Any, key: str = "") -> Iterator[Change]:
    """Yield every setting that differs between two resolved configs; `key` is their config path."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            below = f"{key}.{name}" if key else str(name)
            yield from walk_changes(old.get(name, ABSENT), new.get(name, ABSENT), below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from walk_changes(was, now, f"{key}.{number}")
    elif _masked(old) != _masked(new):
        yield Change(key, old, new)


def _masked(value: Any) -> Any:
    """Return a setting as in ``config.yaml``, where passwords in addresses are masked."""
    return mask_credentials(value) if isinstance(value, str) else value


def read_run_config(folder: Path) -> RecipeTree | None:
    """Return the config in the folder of a run; None if it is missing or cannot be read."""
    try:
        found = read_yaml(folder / "config.yaml", MAX_NODES_OF_DATA)
    except ConfigError:
        return None
    return found if isinstance(found, dict) else None


def report_changes(old: RecipeTree, new: Recipe, where: str) -> bool:
    """Log which settings changed since the run was started.

    Args:
        old: the config that the run wrote.
        new: the config of now.
        where: the checkpoint, for the message.

    Returns:
        whether anything changed on which the weights depend.
    """
    changes = find_changes(old, new)
    training = [str(change) for change in changes if not change.harmless]
    rest = [str(change) for change in changes if change.harmless]
    if training:
        LOGGER.warning("%s continues with a changed config:\n  %s", where, "\n  ".join(training))
    if rest:
        LOGGER.info("also changed, without effect on the weights:\n  %s", "\n  ".join(rest))
    return bool(training)


def report_list_changes(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Fingerprint]) -> None:
    """Warn about each list of images that differs from the one in the run to resume.

    Args:
        old: fingerprints in its checkpoint; older checkpoints have none.
        new: fingerprints of now.
    """
    for where, now, how in list_changes(old, new):
        LOGGER.warning("%s: %s changed since the checkpoint was written: it %s", where, now, how)


def list_changes(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Fingerprint]
) -> Iterator[tuple[str, str, str]]:
    """Yield for each list that differs: its config path, its name now (and then), and how it differs."""
    for where, now in new.items():
        if where not in old:
            continue  # the dataset is new, which is reported as a change of the config
        was = Fingerprint(**old[where])
        if was.same_as(now):
            continue
        if was.count != now.count:
            how = f"had {was.count} images, now it has {now.count}"
        else:
            how = f"has {now.count} images as before, but other names, other labels or another order"
        renamed = f" (then {was.name})" if was.name != now.name else ""
        yield where, f"{now.name}{renamed}", how
