"""Build networks without memory for their parameters."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TypeVar

from ppcls.errors import ConfigError, PpclsError

_Built = TypeVar("_Built")


def built_lazily(build: Callable[[], _Built]) -> _Built:
    """Return the network that `build` builds, under ``paddle.LazyGuard`` where this works.

    The constructor of somebody's own network may read its parameters, for example to find a size by a forward
    pass. Under LazyGuard they have no memory, for which Paddle raises RuntimeError; such a network is built
    once more with memory.
    """
    paddle = importlib.import_module("paddle")
    try:
        with paddle.LazyGuard():
            return build()
    except (PpclsError, RuntimeError) as error:
        cause: BaseException = error
        while isinstance(cause, PpclsError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, RuntimeError):
            raise
    return build()


def require_dynamic_mode() -> None:
    """Refuse Paddle in static mode, in which no network can be built for a check of its recipe.

    Raises:
        ConfigError: saying how to leave it.
    """
    paddle = sys.modules.get("paddle")  # what was not imported was not switched either
    if paddle is not None and not paddle.in_dynamic_mode():
        raise ConfigError("Paddle is in static mode; call paddle.disable_static() first")
