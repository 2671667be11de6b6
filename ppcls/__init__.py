"""Knowledge distillation for image classification on PaddlePaddle, driven by YAML files.

``import ppcls`` is cheap: Paddle is imported when a network is first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ppcls.cpu import threads as _threads  # noqa: F401 - reads a variable before Paddle writes it
from ppcls.cpu.blas import fast_blas as _fast_blas
from ppcls.errors import PADDLE_MISSING

if TYPE_CHECKING:
    from ppcls.api import compare, distill, train
    from ppcls.arch import create_model, list_models
    from ppcls.engine.hooks import Hook

__version__ = "0.2.0"
__all__ = ["Hook", "__version__", "compare", "create_model", "distill", "list_models", "train"]

_fast_blas()  # here, because whoever uses Paddle by way of ppcls passes here before its first product

# What needs Paddle, and the package it comes from.
_LATE = {
    "compare": "ppcls.api",
    "create_model": "ppcls.arch",
    "distill": "ppcls.api",
    "list_models": "ppcls.arch",
    "train": "ppcls.api",
    "Hook": "ppcls.engine.hooks",
}


def __dir__() -> list[str]:
    """Return the public names, for completion; modules that were imported by chance are not among them."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'ppcls' has no attribute {name!r}")
    try:
        package = importlib.import_module(_LATE[name])
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        raise ModuleNotFoundError(PADDLE_MISSING, name="paddle") from None
    return getattr(package, name)
