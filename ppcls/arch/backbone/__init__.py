"""The networks by family. Importing this package registers all; each can be imported from here by name."""

from __future__ import annotations

import importlib
from typing import Any

_families = [
    importlib.import_module(f"{__name__}.{family}")
    for family in ("cifar_resnet", "pplcnet", "resnet", "wide_resnet")
]


def __getattr__(name: str) -> Any:
    for family in _families:
        if not name.startswith("_") and name in vars(family):
            return vars(family)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
