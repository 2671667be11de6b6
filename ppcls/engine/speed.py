"""Settings that make a run fast on this machine, from the recipe, the environment and the run to resume."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import nn

from ppcls._paddle import compute_with_threads
from ppcls.arch.conv import use_kernels_alone
from ppcls.config.schema import GlobalSpec, Recipe
from ppcls.cpu import blas, threads
from ppcls.cpu.memory import keep_freed_memory
from ppcls.cpu.processor import available_cores, processor_name
from ppcls.cpu.switches import check_switches
from ppcls.engine.checkpoint import Checkpoint, Progress
from ppcls.job import local_size, world_size
from ppcls.logger import LOGGER


def use_processor(config: Recipe, mode: str) -> None:
    """Prepare this process for computing: threads and memory. The device must be set.

    Args:
        config: the recipe.
        mode: ``train``, ``eval``, ``infer`` or ``export``.

    Raises:
        ConfigError: if an environment variable that switches something off has an unknown value.
    """
    check_switches()
    keep_freed_memory()
    if blas.VARIABLE in os.environ:
        LOGGER.debug("matrix products use %s=%s", blas.VARIABLE, os.environ[blas.VARIABLE])
    if not on_cpu():
        return
    if threads.MISTAKE is not None:
        LOGGER.warning("%s", threads.MISTAKE)
    if threads.CHOSEN is None:
        compute_with(_suggested(config, mode))
    elif threads.threads_in_use() != threads.CHOSEN:  # a list such as 4,2, for which Paddle takes one thread
        compute_with(threads.CHOSEN)


def announce_threads(config: Recipe, resumed: Checkpoint | None) -> None:
    """Set and log the number of threads; a resumed training keeps its number, because results depend on it.

    ``OMP_NUM_THREADS`` takes precedence.

    Args:
        config: the recipe.
        resumed: the checkpoint to resume; None for a new run.
    """
    if not on_cpu():
        return
    before = None if resumed is None else _threads_of(resumed, ahead=config.Global.teacher_ahead)
    chosen = threads.CHOSEN
    suggested = _suggested(config, "train")
    if before is not None and chosen is None:
        compute_with(before)
        if before != suggested:
            LOGGER.info(
                "%s, as when this run was started; on this machine %d would be chosen (OMP_NUM_THREADS=%d), "
                "with results that differ by rounding",
                thread_count_text(before),
                suggested,
                suggested,
            )
            return
    elif before is not None and before != chosen:
        LOGGER.warning(
            "OMP_NUM_THREADS=%d: this run was started with %s, so it does not continue bit by bit",
            chosen,
            thread_count_text(before),
        )
    LOGGER.info("%s on %d cores", thread_count_text(threads.threads_in_use()), available_cores())


def describe_processor() -> dict[str, Any]:
    """Return what a run records about the processor and how it is used."""
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "threads": str(threads.threads_in_use()),
        blas.VARIABLE: os.environ.get(blas.VARIABLE),
        "keeps_freed_memory": keep_freed_memory(),
    }


def with_convolutions_as_set(network: nn.Layer, settings: GlobalSpec) -> nn.Layer:
    """Return a network whose convolutions follow ``Global.fast_small_convs``.

    Args:
        network: any network; layers of other packages are not changed.
        settings: the section ``Global``.
    """
    if not settings.fast_small_convs:
        use_kernels_alone(network)
    return network


def keep_old_convolutions(recorded: MutableMapping[str, Any], settings: GlobalSpec) -> None:
    """Let a run of an older version continue with the same convolutions, so that its results stay exact.

    Args:
        recorded: the config that the run has written.
        settings: the current section ``Global``.
    """
    before = recorded.get("Global")
    if isinstance(before, dict) and "fast_small_convs" not in before:
        before["fast_small_convs"] = False
        if settings.fast_small_convs:
            settings.fast_small_convs = False
            LOGGER.info(
                "Global.fast_small_convs: false, because this run was started by an older version without it"
            )


def on_cpu() -> bool:
    """Tell whether networks run on the CPU."""
    return str(paddle.device.get_device()) == "cpu"


def _suggested(config: Recipe, mode: str) -> int:
    part = {"train": "Train", "eval": "Eval"}.get(mode)
    loading = 0 if part is None else int(config["DataLoader"][part]["loader"]["num_workers"])
    return threads.suggest_threads(available_cores(), local_size(), loading)


def compute_with(number: int) -> None:
    """Let this process compute with a number of threads from now on."""
    compute_with_threads(number)
    os.environ[threads.VARIABLE] = str(number)  # as Paddle itself does; engines of frozen networks read it


def keeps_threads(resumed: Checkpoint) -> bool:
    """Tell whether a resumed run keeps its threads: if it has as many processes as before."""
    return not resumed.progress.meters or len(resumed.progress.meters) == world_size()


@contextmanager
def all_threads(progress: Progress) -> Iterator[None]:
    """Compute with the threads of the teachers too while the training pauses."""
    if not progress.teacher_threads:
        yield
        return
    compute_with(progress.threads + progress.teacher_threads)
    try:
        yield
    finally:
        compute_with(progress.threads)


def _threads_of(resumed: Checkpoint, *, ahead: bool) -> int | None:
    """Return the threads of the start of a run; None if it is resumed with other numbers of processes.

    Args:
        resumed: the checkpoint.
        ahead: frozen networks may run beside the training, with threads of their own.
    """
    progress = resumed.progress
    if not keeps_threads(resumed):
        return None
    if progress.threads:
        return progress.threads + (progress.teacher_threads if ahead else 0)
    file = resumed.where.parent / "environment.json"
    try:  # of an older version: Paddle's number, which was 1 unless the user chose another
        environment = json.loads(file.read_text(encoding="utf-8"))
        return threads.read_choice({threads.VARIABLE: str(environment["threads"])}) or 1
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def thread_count_text(number: int) -> str:
    """Return a number of threads in words."""
    return "1 CPU thread" if number == 1 else f"{number} CPU threads"
