"""What makes a run fast on this machine, as its recipe, its environment and the run to resume say."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from paddle import nn

from ppcls.arch.conv import use_kernels_alone
from ppcls.config.schema import GlobalSpec
from ppcls.logger import LOGGER


def with_convolutions_as_set(network: nn.Layer, settings: GlobalSpec) -> nn.Layer:
    """Return a network whose convolutions follow ``Global.fast_small_convs``.

    Args:
        network: any; layers that are not ours stay as they are.
        settings: the section ``Global``.
    """
    if not settings.fast_small_convs:
        use_kernels_alone(network)
    return network


def keep_old_convolutions(recorded: MutableMapping[str, Any], settings: GlobalSpec) -> None:
    """Let a run that an older version began go on with the convolutions of then, so that it stays exact.

    Args:
        recorded: the config that the run wrote.
        settings: the section ``Global`` of now.
    """
    before = recorded.get("Global")
    if isinstance(before, dict) and "fast_small_convs" not in before:
        before["fast_small_convs"] = False
        if settings.fast_small_convs:
            settings.fast_small_convs = False
            LOGGER.info(
                "Global.fast_small_convs: false, because an older version, without it, began this run"
            )
