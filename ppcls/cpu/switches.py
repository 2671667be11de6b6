"""Environment variables that switch off settings for speed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ppcls.errors import ConfigError

BLAS = "PPCLS_BLAS"
MALLOC = "PPCLS_MALLOC"


def is_off(name: str, environment: Mapping[str, str]) -> bool:
    """Tell whether a switch is off."""
    return environment.get(name) == "off"


def check_switches(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse unknown values; an empty one counts as not set.

    Raises:
        ConfigError: if a value is unknown; it names the variable, its value and the expected values.
    """
    for name in (BLAS, MALLOC):
        value = environment.get(name) or "auto"
        if value not in ("auto", "off"):
            raise ConfigError(f"{name}={value}: expected auto or off")
