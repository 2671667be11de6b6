"""The processes of a training compare recipes, versions and lists before they start.

Otherwise they would train the same weights in different ways, or fail much later with an obscure error.
Settings that may differ between machines, such as paths of files and how they are read, are not compared.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

import ppcls
from ppcls import distributed
from ppcls.config import Recipe, plain
from ppcls.data import Fingerprint
from ppcls.engine.checkpoint.changes import Change, show_setting, walk_changes
from ppcls.errors import ConfigError

# Settings that may differ between machines: the weights do not depend on them, and no process waits for
# another because of them.
OF_A_MACHINE = re.compile(
    r"Global\.(output_dir|run_name|device|print_batch_step|print_mem_info|log_ranks|use_visualdl|use_tensorboard"
    r"|save_inference_dir|export_\w+|infer_add_softmax)(\.\d+)?|Infer(\..*)?|DataLoader\.\w+\.loader\..*"
)
# Paths of files; only whether a path is given must be the same, and lists are compared by their content.
PATHS = re.compile(
    r"Global\.(checkpoints|pretrained_model)|Global\.plugins\.\d+|.*\.(image_root|cls_label_path|data_file|pretrained|class_map"
    r"|class_maps\.\w+|class_id_map_file|(\w+_)?(path|file|dir|root))(\.\d+)?|.*\.(relabel|class_names)"
)
AUTO = "auto"
_MOST = 20  # largest number of lines of a message


def start_alike(config: Recipe) -> None:
    """Connect to the other processes and check that all have the same recipe and versions.

    Args:
        config: the resolved config.

    Raises:
        ConfigError: naming every difference, with its value in process 0 and in the other.
        TrainingError: if a process does not start.
    """
    distributed.start(describe_process(config), require_alike)


def require_alike(notes: list[Any]) -> None:
    """Compare the results of :func:`describe_process` of all processes, in order of rank.

    Raises:
        ConfigError: naming every difference.
    """
    _raise_if_any(
        [*_lines(notes, _recipe_differences), *_lines(notes, _version_differences)],
        "the processes of this training were not started alike",
        "Start all with the same recipe, the same -o and the same installation",
    )


def require_same_lists(lists: Mapping[str, Fingerprint]) -> None:
    """Check that all processes read the same lists, in the same order; paths may differ.

    Args:
        lists: fingerprints by the config path of the dataset.

    Raises:
        ConfigError: naming the list, its path, and its size in process 0 and in the other.
    """
    if distributed.world_size() == 1:
        return
    distributed.wait_for_all()  # reading lists may take long
    notes = distributed.gather({path: found.as_dict() for path, found in lists.items()})
    _raise_if_any(
        _lines(notes, _list_differences),
        "the processes of this training read different lists",
        "Copy the lists of one machine to all, or name a shared folder",
    )


def require_same_weights(model: nn.Layer) -> None:
    """Check that all processes have the same weights: each reads the file on its own machine.

    Raises:
        ConfigError: if they differ.
    """
    if distributed.world_size() == 1:
        return
    digest = 0
    for name, tensor in sorted(model.state_dict().items()):
        digest = zlib.crc32(tensor.numpy().tobytes(), zlib.crc32(name.encode(), digest))
    distributed.wait_for_all()  # reading weights may take long
    notes = distributed.gather(digest)
    others = [str(number) for number, note in enumerate(notes) if note != notes[0]]
    if others:
        raise ConfigError(
            f"the weights of process {', '.join(others)} differ from those of process 0. "
            "Global.pretrained_model, Global.checkpoints and every `pretrained` have to name the same file, "
            "or an equal copy, on each machine"
        )


def describe_process(config: Recipe) -> dict[str, Any]:
    """Return the facts that must be the same in all processes: recipe, kind of device, versions."""
    return {
        "recipe": plain(config),
        "versions": {
            "ppcls": f"{ppcls.__version__} (code {_code()})",
            "paddle": paddle.__version__,
            "numpy": np.__version__,
            "device": paddle.device.get_device().partition(":")[0],
        },
    }


@cache
def _code() -> str:
    """Return a hash of the source code of ppcls: a checkout may change without its version."""
    root = Path(ppcls.__file__).parent
    digest = hashlib.blake2b(digest_size=4)
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _raise_if_any(lines: list[str], what: str, remedy: str) -> None:
    if lines:
        more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        raise ConfigError(f"{what}:\n  " + "\n  ".join([*lines[:_MOST], *more]) + f"\n{remedy}")


def _lines(notes: list[Any], compare: Callable[[Any, Any], Iterable[tuple[str, str]]]) -> list[str]:
    """Return one line per difference from process 0, with all processes that have it."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, note in enumerate(notes[1:], 1):
        for difference in compare(notes[0], note):
            found.setdefault(difference, []).append(number)
    return [
        f"{main} in process 0, {other} in process {', '.join(map(str, numbers))}"
        for (main, other), numbers in found.items()
    ]


def _recipe_differences(main: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for change in walk_changes(main["recipe"], other["recipe"]):
        if not _may_differ(change):
            yield f"{change.key}: {show_setting(change.was)}", show_setting(change.now)


def _may_differ(change: Change) -> bool:
    if OF_A_MACHINE.fullmatch(change.key):
        return True
    values = (change.was, change.now)
    paths = PATHS.fullmatch(change.key) is not None and all(isinstance(value, str) for value in values)
    return paths and AUTO not in values


def _version_differences(main: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, version in main["versions"].items():
        theirs = other["versions"][name]
        if theirs != version:
            yield f"{name}: {version}", theirs


def _list_differences(main: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, note in main.items():
        ours = Fingerprint(**note)
        theirs = Fingerprint(**other[path])
        if not ours.same_as(theirs):
            hint = "" if ours.count != theirs.count else " with other names, labels or another order"
            yield f"{path}: {ours.count} images ({ours.name})", f"{theirs.count}{hint} ({theirs.name})"
