"""How a resumed run forms its batches: as before, also with another number of processes, or in a new way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ppcls.config import Recipe, plain
from ppcls.data import JoinedLoader, Loader
from ppcls.data.division import Division
from ppcls.distributed import world_size
from ppcls.engine.checkpoint import Checkpoint
from ppcls.engine.checkpoint.changes import read_run_config
from ppcls.logger import LOGGER

# Entries of Progress.batches besides the batch sizes by part of the data.
PROCESSES = "processes"
UPDATE_FREQ = "update_freq"
_TRAIN = "Train"
SIZES = ("batch_size", "first_bs")  # options of samplers: images of one process in a batch


@dataclass(frozen=True)
class Course:
    """Where a run begins, and how its batches make steps.

    Attributes:
        batches: see :class:`~ppcls.engine.checkpoint.states.Progress`.
        update_freq: number of batches of this process for one step.
        batch: number of batches of this process that are done in the current epoch.
        other: the batches are not those of the run so far, so an epoch may have another number of steps.
    """

    batches: dict[str, int]
    update_freq: int
    batch: int = 0
    other: bool = False


def former_processes(config: Recipe, resumed: Checkpoint | None) -> int:
    """Return the number of processes whose batches a run uses: those that it was started with.

    If the user changed batch size or accumulation, the batches are those of the processes of now.
    """
    if resumed is None:
        return world_size()
    before = batches_before(config, resumed)
    if {**before, PROCESSES: world_size()} != batches_now(config):
        return world_size()
    return before[PROCESSES]


def batches_now(config: Recipe) -> dict[str, int]:
    """Return what forms the batches of a recipe: processes, accumulation and batch sizes."""
    return {PROCESSES: world_size(), **_settings(plain(config))}


def batches_before(config: Recipe, resumed: Checkpoint) -> dict[str, int]:
    """Return what formed the batches of the run to resume, as :func:`batches_now`."""
    progress = resumed.progress
    if progress.batches:
        return dict(progress.batches)
    # A checkpoint of an older version: its config says it, if it is still there.
    recorded = _settings(read_run_config(resumed.where.parent) or {})
    return {**batches_now(config), **recorded, PROCESSES: len(progress.meters) or world_size()}


def _settings(config: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    settings = config.get("Global")
    if isinstance(settings, dict):
        found[UPDATE_FREQ] = settings.get(UPDATE_FREQ, 1)
    parts = config.get("DataLoader")
    for part, node in parts.items() if isinstance(parts, dict) else ():
        sampler = node.get("sampler") if isinstance(node, dict) and part != "Eval" else None
        sizes = (
            [sampler[option] for option in SIZES if option in sampler] if isinstance(sampler, dict) else []
        )
        if sizes and isinstance(sizes[0], int):
            found[part] = sizes[0]
    return found


def set_course(config: Recipe, resumed: Checkpoint | None, loader: Loader | JoinedLoader) -> Course:
    """Find out where a run begins; log once how it continues with other processes or other batches.

    Args:
        config: the recipe.
        resumed: the checkpoint to resume.
        loader: batches for training.
    """
    update_freq = config.Global.update_freq
    now = batches_now(config)
    if resumed is None:
        return Course(now, update_freq)
    before = batches_before(config, resumed)
    done = resumed.progress.batch
    division = loader.division
    if division is not None:
        batches = {**now, PROCESSES: division.former}
        course = Course(batches, division.accumulated(update_freq), division.numbered(done))
        _log_processes(resumed, _in_turn(division, course))
        return course
    if before == now:
        _log_processes(resumed, "")
        return Course(now, update_freq, done)
    return _other_batches(resumed, before, now, len(loader))


def _other_batches(
    resumed: Checkpoint, before: Mapping[str, int], now: dict[str, int], batches: int
) -> Course:
    """Go on at the same image of the epoch, at the beginning of a step."""
    was, is_now = (each[PROCESSES] * each.get(_TRAIN, 1) for each in (before, now))
    update_freq = now[UPDATE_FREQ]
    images = resumed.progress.batch * was
    batch = min(images // is_now, batches)
    if batch < batches:
        batch = batch - batch % update_freq
    again = max(images - batch * is_now, 0)
    steps = was * before[UPDATE_FREQ], is_now * update_freq
    text = f"a step now has {steps[1]} images, {_product(now)}; before, it had {steps[0]}, {_product(before)}"
    if steps[0] == steps[1]:
        text = f"a step still has {steps[1]} images, {_product(now)} instead of {_product(before)}"
    else:
        text += ". The learning rate is not scaled"
        if before[PROCESSES] != now[PROCESSES]:
            text += f"; choose a batch_size and update_freq with {steps[0]} images if the steps should stay"
    if again:
        text += f". {again} images of epoch {resumed.progress.epoch} are used a second time"
    LOGGER.warning(
        "%s: %s. The order of the images and the place in the learning-rate schedule stay; the run is not "
        "continued bit by bit",
        resumed.where,
        text,
    )
    return Course(now, update_freq, batch, other=True)


def _product(batches: Mapping[str, int]) -> str:
    accumulated = f" x update_freq {batches[UPDATE_FREQ]}" if batches[UPDATE_FREQ] > 1 else ""
    size = batches.get(_TRAIN)
    processes = _counted(batches[PROCESSES], "process", "processes")
    return f"{processes} x {'batch_size' if size is None else size}{accumulated}"


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _in_turn(division: Division, course: Course) -> str:
    """Describe how a step is divided among the processes of now."""
    size = course.batches.get(_TRAIN)
    former = _counted(course.batches[UPDATE_FREQ], "batch", "batches")
    now = _counted(course.update_freq, "batch", "batches")
    if size is not None:
        former += f" of {size} images"
        now += f" of {size // division.parts} images"
    return (
        f"every step keeps its images: {now} in each process instead of {former} in each of "
        f"{_counted(division.former, 'process', 'processes')}"
    )


def _log_processes(resumed: Checkpoint, text: str) -> None:
    """Warn if another number of processes wrote the checkpoint; otherwise log `text`."""
    writers = len(resumed.progress.meters)
    if writers and writers != world_size():
        LOGGER.warning(
            "%s was written by %s, this run has %d%s. The order of the images and the learning rate continue "
            "as before, but not bit by bit: sums are rounded differently, and BatchNorm sees other batches",
            resumed.where,
            _counted(writers, "process", "processes"),
            world_size(),
            f": {text}" if text else "",
        )
    elif text:
        LOGGER.info("%s: as before, %s", resumed.where, text)
