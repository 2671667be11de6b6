"""Check that training has the effect that the recipe asks for.

Each network must be frozen or have a loss. A loss without effect, and an output that no loss uses, are
reported.
"""

from __future__ import annotations

import re
from typing import Any

from ppcls.config.checks.networks import Network, Networks
from ppcls.config.checks.uses import Use, members_of
from ppcls.config.mistakes import Findings, join
from ppcls.registry import LOSSES

_UNUSED = "no loss of Loss.Train looks at it"


def check_training(losses: Any, uses: list[Use], networks: Networks, mode: str, findings: Findings) -> None:
    """Check the training losses.

    Args:
        losses: ``Loss.Train``.
        uses: what each of them names.
        networks: the networks of the recipe.
        mode: the command.
        findings: receives mistakes and warnings.
    """
    weights = [
        options.get("weight", 1.0)
        for node in (losses if isinstance(losses, list) else ())
        if isinstance(node, dict)
        for options in node.values()
        if isinstance(options, dict)
    ]
    if weights and all(weight == 0 for weight in weights):
        findings.error("Loss.Train", "every weight is 0: nothing would train")
    for use in uses:
        if use.options.get("weight") == 0 and any(weights):
            findings.warn(join(use.path, "weight"), f"0: {use.name} has no effect")
    if networks.several:
        _check_frozen(uses, networks, findings)
        _check_unused(uses, networks, mode, findings)
    else:
        _warn_unused_taps(networks.members[""], set(), findings)


def _check_frozen(uses: list[Use], networks: Networks, findings: Findings) -> None:
    for use in uses:
        named = members_of(use.names, networks) if use.names else members_of({networks.main}, networks)
        if named and all(network.frozen for network in named):
            titles = ", ".join(sorted(use.names or {networks.main}))
            findings.error(use.path, f"trains nothing: {titles} is frozen (Arch.freeze_params_list)")
            continue
        for path, (first, second) in use.pairs:
            members = networks.members
            if (
                first in members
                and second in members
                and members[first].frozen
                and not members[second].frozen
            ):
                text = f"{first} is frozen and {second} trains; the network that learns comes first in a pair"
                findings.warn(path, text)


def _check_unused(uses: list[Use], networks: Networks, mode: str, findings: Findings) -> None:
    """Report networks and taps that no training loss looks at."""
    names = {name for use in uses for name in (use.names or {networks.main})}
    taught = {name for use in uses for name in _taught(use, networks)}
    ensembles = networks.arch.ensembles
    for name, network in networks.members.items():
        picked = {key for use in uses for _, key, owners in use.keys if name in owners}
        _warn_unused_taps(network, picked, findings)
        used = name in names or any(name in members and o in names for o, members in ensembles.items())
        if network.frozen:
            if not used:
                findings.warn(network.path, f"runs at every step, but {_UNUSED}")
        elif name not in taught and (mode == "train" or not used):  # earlier versions trained such a recipe
            found = "the losses of Loss.Train only compare others with it" if used else _UNUSED
            text = f"{found}, so it would not train; add a loss or freeze it (Arch.freeze_params_list)"
            findings.error(network.path, text)


def _taught(use: Use, networks: Networks) -> set[str]:
    """Return the networks that a loss sends gradient to, unless they are frozen."""
    if not use.names:
        return {networks.main}
    if not LOSSES.own_trait(use.name, "one_way"):
        return use.names
    return {name for _, name in use.alone} | {first for _, (first, _) in use.pairs}


def _warn_unused_taps(network: Network, picked: set[str], findings: Findings) -> None:
    unused = [tap for tap in network.taps if tap not in picked and tap not in network.reads]
    if unused:
        place = re.sub(r"\.\d+$", "", network.taps[unused[0]])
        findings.warn(place, f"no loss of Loss.Train uses {', '.join(unused)}")
