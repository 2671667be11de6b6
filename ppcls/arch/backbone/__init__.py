"""The networks by family. Importing this package registers them; each can be imported from here by name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

# Every module here is a family, so that adding a family is adding a file.
_families = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def __getattr__(name: str) -> Any:
    for family in _families:
        if not name.startswith("_") and name in vars(family):
            return vars(family)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
