"""Shapes that a config may leave out: found by one dry forward, or checked against it."""

from __future__ import annotations

import logging

from ppcls.errors import ConfigError

LOGGER = logging.getLogger(__name__)


def found_size(option: str, given: int | None, found: int) -> int:
    """Return `found`. It must equal `given`; if that was left out, `found` is logged.

    Args:
        option: ``Loss.option``, for the message.
        given: the number in the config; None if it was left out.
        found: the number of the network.

    Raises:
        ConfigError: if both are known and differ.
    """
    if given is None:
        LOGGER.info("%s: found %d", option, found)
    elif given != found:
        text = f"got {given}, but the network has {found}; without this option it is found by a dry forward"
        raise ConfigError(text, path=option)
    return found


def not_prepared(loss: str, options: str) -> ConfigError:
    """Return the error of a loss that is used although its shapes are neither given nor found."""
    return ConfigError(
        f"{loss}: {options} are missing; set them, or let one forward find them: "
        "build_loss(config, outputs=model(images))"
    )
