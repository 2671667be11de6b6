"""Check that ``Infer.PostProcess`` fits the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.config.checks.networks import Networks
from ppcls.config.mistakes import Findings
from ppcls.config.nodes import Node
from ppcls.errors import nearest

_PLACE = "Infer.PostProcess"
_OF_SEVERAL = "DistillationPostProcess"
# Options of DistillationPostProcess itself, with their defaults.
_DEFAULTS: Mapping[str, Any] = {"model_name": "Student", "key": None, "func": "Topk"}


def check_postprocess(node: Node | None, networks: Networks | None, findings: Findings) -> Node | None:
    """Check the post-process against the networks.

    Args:
        node: ``Infer.PostProcess``, checked by itself before.
        networks: None if nothing is known of them.
        findings: receives the mistakes.

    Returns:
        the node; for a DistillationPostProcess, the one that it names, so that other code needs no special
        case.
    """
    if not isinstance(node, dict) or findings.mistakes_below(_PLACE):
        return node
    if node.get("name") == _OF_SEVERAL:
        settings = {**_DEFAULTS, **{key: node[key] for key in _DEFAULTS if key in node}}
        if networks is not None:
            _check_network(settings["model_name"], networks, findings)
        node = {"name": settings["func"], **{k: v for k, v in node.items() if k not in {"name", *_DEFAULTS}}}
    if networks is not None and node["name"] == "ThreshOutput":
        _check_two_classes(networks, findings)
    return node


def _check_network(name: str, networks: Networks, findings: Findings) -> None:
    place = f"{_PLACE}.model_name"
    if not networks.several:
        text = (
            f"{_OF_SEVERAL} is for several networks, but Arch is one ({networks.title}); name its func alone"
        )
        findings.error(_PLACE, text)
    elif name not in networks.members:
        known = ", ".join(networks.members)
        near = nearest(name, networks.members)
        text = f"no network {name!r} in Arch.models ({known})"
        findings.error(place, text, value=name, suggestions=near)
    elif name != networks.main:
        text = (
            f"{name!r}, but the network that infers is {networks.main!r}; set Arch.infer_model_name: {name}"
        )
        findings.error(place, text)


def _check_two_classes(networks: Networks, findings: Findings) -> None:
    main = networks.members.get(networks.main)
    if main is not None and main.class_num not in (None, 2):
        text = f"ThreshOutput decides between two classes, but {main.title} has {main.class_num}; use Topk"
        findings.error(_PLACE, text)
