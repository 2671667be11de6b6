"""Shapes that a config may leave out: found by one dry forward, or checked against it."""

from __future__ import annotations

import logging

from ppcls.errors import ConfigError

LOGGER = logging.getLogger(__name__)


def found_size(option: str, given: int | None, found: int) -> int:
    """Return `found`, which must equal `given` unless that was left out; then it is logged.

    Args:
        option: ``Loss.option``, for the message.
        given: what the config says.
        found: what the network has.

    Raises:
        ConfigError: if both are there and differ.
    """
    if given is None:
        LOGGER.info("%s: found %d", option, found)
    elif given != found:
        text = f"got {given}, but the network gives {found}; leave it out to have it found"
        raise ConfigError(text, path=option)
    return found


def not_prepared(loss: str, options: str) -> ConfigError:
    """Return the error for using a loss whose shapes are neither given nor found."""
    return ConfigError(
        f"{loss}: {options} are not given; give them, or let one forward find them: "
        "build_loss(config, outputs=model(images))"
    )
