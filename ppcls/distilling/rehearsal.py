"""Try trainings that wait for another one, so that hours of training are not followed by a mistake."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ppcls.config import Recipe
from ppcls.distilling.steps import Step
from ppcls.engine import Engine
from ppcls.engine.start.trial import try_out
from ppcls.errors import PpclsError
from ppcls.logger import LOGGER
from ppcls.report.runs import is_run


def rehearse(steps: Sequence[Step]) -> None:
    """Build every training that has to wait for another, and run its first batch; nothing is written.

    Official weights are downloaded here. A teacher that is not trained yet answers with random weights.

    Raises:
        PpclsError: naming the recipe and its mistake.
    """
    waiting = [step for step in steps if not step.is_finished]
    for number, step in enumerate(waiting[1:], 1):
        if is_run(step.folder):
            continue  # it began before, so all this has succeeded
        try:
            with _errors_alone():
                _try(_without_weights_to_come(step.config, [other.folder for other in waiting[:number]]))
        except PpclsError as error:
            raise type(error)(f"{step.recipe}: {error}") from error
        finally:
            gc.collect()


def _try(config: Recipe) -> None:
    run = Engine(config, "train").build_run()
    try:
        try_out(run)
    finally:
        run.parts.loader.close()


def _without_weights_to_come(config: Recipe, folders: Collection[Path]) -> Recipe:
    """Return a copy of a recipe without the weights that trainings in `folders` have yet to write."""
    config = copy.deepcopy(config)
    config.Global.check_teacher = False  # which would evaluate it on all images
    arch = config.arch
    there = [
        network.title
        for network in arch.children
        if not isinstance(network.pretrained, str) or Path(network.pretrained).parent not in folders
    ]
    if len(there) < len(arch.children):
        config.Arch = arch.without_weights(keep=there).node()
    return config


@contextlib.contextmanager
def _errors_alone() -> Iterator[None]:
    """Log only errors: the training itself will give its warnings."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
