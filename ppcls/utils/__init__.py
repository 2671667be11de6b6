"""Modules with the names that scripts written for PaddleClas import."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("config", "logger", "save_load")


def __getattr__(name: str) -> Any:
    if name in _MODULES:  # `save_load` imports Paddle
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("init_model", "save_model"):
        return getattr(importlib.import_module(f"{__name__}.save_load"), name)
    if name == "get_config":
        return importlib.import_module(f"{__name__}.config").get_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
