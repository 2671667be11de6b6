"""Transforms under another path that scripts written for PaddleClas import; see `ppcls.data.preprocess`."""

from __future__ import annotations

from typing import Any

from ppcls.data import preprocess


def __getattr__(name: str) -> Any:
    return getattr(preprocess, name)
