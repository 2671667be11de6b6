"""Batches of several image sizes: what a sampler that chooses sizes needs of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.config.mistakes import Findings
from ppcls.registry import DATASETS, SAMPLERS, Registry

_TRAIN, _UNLABELLED = "DataLoader.Train", "DataLoader.UnLabelTrain"


def check_sizes(loaders: Mapping[str, Any], findings: Findings) -> None:
    """Check that a dataset can give the sizes its sampler asks for, and that joined batches have one size.

    Args:
        loaders: the section ``DataLoader``, checked by itself before.
        findings: receives the mistakes.
    """
    for part, place in (("Train", _TRAIN), ("UnLabelTrain", _UNLABELLED)):
        node = loaders[part]
        sampler = _chosen(SAMPLERS, node and node["sampler"])
        if not getattr(sampler, "multi_scale", False):
            continue
        title = node["sampler"]["name"]
        dataset = _chosen(DATASETS, node["dataset"])
        if dataset is not None and not getattr(dataset, "multi_scale", False):
            text = f"{title} chooses the size of images, which {node['dataset']['name']} does not allow"
            findings.error(f"{place}.dataset.name", f"{text}; use MultiScaleDataset")
        if loaders["UnLabelTrain"]:
            text = f"{title} cannot be used beside {_UNLABELLED}: images of a joined batch have one size"
            findings.error(f"{place}.sampler", text)


def _chosen(registry: Registry, node: Any) -> Any:
    name = node.get("name") if isinstance(node, Mapping) else None
    return registry[name] if isinstance(name, str) and name in registry else None
