"""Batches of several image sizes: what a sampler that chooses sizes needs of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.config.mistakes import Findings
from ppcls.config.schema import DataLoaderSpec
from ppcls.registry import DATASETS, SAMPLERS, Registry

_TRAIN, _UNLABELLED = "DataLoader.Train", "DataLoader.UnLabelTrain"


def check_multi_scale(data: DataLoaderSpec, findings: Findings) -> None:
    """Check that a dataset can give the sizes its sampler asks for, and that joined batches have one size.

    Args:
        data: the section ``DataLoader``, checked by itself before.
        findings: receives the mistakes.
    """
    for part, place in (("Train", _TRAIN), ("UnLabelTrain", _UNLABELLED)):
        node = data.parts.get(part)
        if node is None or not _can(SAMPLERS, node.sampler):
            continue
        title = (node.sampler or {})["name"]
        if _can(DATASETS, node.dataset) is False:
            name = (node.dataset or {})["name"]
            text = f"{title} chooses the size of images, which {name} does not allow"
            findings.error(f"{place}.dataset.name", f"{text}; use MultiScaleDataset")
        if data.UnLabelTrain:
            text = f"{title} cannot be used beside {_UNLABELLED}: images of a joined batch have one size"
            findings.error(f"{place}.sampler", text)


def _can(registry: Registry, node: Any) -> bool | None:
    """Tell whether what a node names has images of several sizes; None if it names nothing."""
    name = node.get("name") if isinstance(node, Mapping) else None
    if not isinstance(name, str) or name not in registry:
        return None
    return bool(registry.trait(name, "multi_scale"))
