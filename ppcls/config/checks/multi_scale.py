"""Check batches of several image sizes: a sampler that chooses sizes needs a suitable dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.config.mistakes import Findings
from ppcls.config.schema import DataLoaderSpec
from ppcls.registry import DATASETS, SAMPLERS, Registry

_TRAIN = "DataLoader.Train"
_UNLABELLED = "DataLoader.UnLabelTrain"


def check_multi_scale(data: DataLoaderSpec, findings: Findings) -> None:
    """Check that a dataset can give the sizes of its sampler, and that joined batches have one size.

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
    """Tell whether the component of a node supports several image sizes; None if it does not exist."""
    name = node.get("name") if isinstance(node, Mapping) else None
    if not isinstance(name, str) or name not in registry:
        return None
    return bool(registry.trait(name, "multi_scale"))
