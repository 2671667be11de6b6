"""Finding the tensor a loss works on among the outputs of several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddle import Tensor

from ppcls.errors import ConfigError, hint


def logits_of(output: Tensor | Mapping[str, Any], loss: str) -> Tensor:
    """Return the logits of one network from its output: a tensor, or a mapping with the key ``logits``."""
    return select(output, None, loss, "the network")


def select(output: Tensor | Mapping[str, Any], key: str | None, loss: str, network: str) -> Any:
    """Return ``output[key]`` of one network; without a key, its logits.

    Raises:
        ConfigError: if the network has no such output; the message lists the outputs that it has.
    """
    wanted = key or "logits"
    if not isinstance(output, Mapping):
        if wanted == "logits":
            return output
        raise ConfigError(
            f"{loss}: {network} returns only logits, expected the key {wanted!r}; add it to the network's "
            "return_patterns"
        )
    if wanted not in output:
        raise ConfigError(
            f"{loss}: {network} returns no {wanted!r}, only {_listing(output)}.{hint(wanted, output)}"
        )
    return output[wanted]


def _listing(outputs: Mapping[str, Any]) -> str:
    return ", ".join(map(str, outputs))


def network_output(outputs: Tensor | Mapping[str, Any], network: str, loss: str) -> Any:
    """Return the output of one sub-network, or the sub-network itself from a map of these.

    Raises:
        ConfigError: if there is no such sub-network.
    """
    if not isinstance(outputs, Mapping):
        raise ConfigError(f"{loss}: expected the outputs of several networks by name, got a single output")
    if network not in outputs:
        near = hint(network, outputs)
        raise ConfigError(f"{loss}: no sub-network {network!r} in the outputs ({_listing(outputs)}).{near}")
    return outputs[network]


def check_pairs(loss: str, pairs: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return the pairs as tuples.

    Raises:
        ConfigError: if the list is empty, or an entry is not a pair of names, or is listed twice.
    """
    where = f"{loss}.model_name_pairs"
    if not pairs or isinstance(pairs, str):
        raise ConfigError(f'got {pairs!r}, expected a list such as [["Student", "Teacher"]]', path=where)
    found: list[tuple[str, str]] = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(n, str) for n in pair):
            raise ConfigError(
                f'got {pair!r}, expected two names such as ["Student", "Teacher"]', path=f"{where}.{i}"
            )
        if tuple(pair) in found:
            raise ConfigError(f"{list(pair)} is listed twice", path=f"{where}.{i}")
        found.append((pair[0], pair[1]))
    return found
