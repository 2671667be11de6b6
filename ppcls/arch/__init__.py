"""Networks: backbones, and groups of networks for distillation."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import paddle
from paddle import nn

from ppcls.arch import afd_transforms as afd_transforms  # importing these registers their classes
from ppcls.arch import backbone as backbone
from ppcls.arch import foreign as foreign
from ppcls.arch.base import Network
from ppcls.arch.distillation import AttentionModel, DistillationModel, NetworkGroup
from ppcls.arch.network import build_network, register_network
from ppcls.arch.theseus import TheseusLayer, dotted
from ppcls.config import ArchSpec, plain
from ppcls.config.lazily import built_lazily
from ppcls.registry import BACKBONES

__all__ = [
    "AttentionModel",
    "Backbone",
    "DistillationModel",
    "Network",
    "TheseusLayer",
    "build_empty",
    "build_model",
    "create_model",
    "layer_table",
    "list_models",
    "register_network",
]

Backbone = TheseusLayer  # the base class of a network of your own, beside Loss, Metric and the others

# Registered, but not classifiers on their own.
_PARTS = {"DistillationModel", "AttentionModel", "LinearTransformTeacher", "LinearTransformStudent"}
_PARTS |= {"OnnxModel", "PaddleInferenceModel"}  # these come as files


def create_model(
    name: str,
    *,
    class_num: int = 1000,
    pretrained: bool | str = False,
    use_ssld: bool = False,
    return_patterns: list[str] | str | None = None,
    return_stages: bool | int | list[int] | None = None,
    stop_after: str | None = None,
    freeze_befor: str | None = None,
    **options: Any,
) -> nn.Layer:
    """Build a network by name; see `ppcls.arch.network.register_network` for the options.

    Args:
        name: one of `list_models`.
        class_num: number of classes.
        pretrained: True for the official weights, a path or a URL.
        use_ssld: use the official weights distilled by SSLD.
        return_patterns: layers whose outputs are returned together with the logits.
        return_stages: the same by stage: True (all), an index or a list of indices.
        stop_after: the layer that ends the network.
        freeze_befor: the last layer that does not train.
        **options: the network's own options.

    Raises:
        ConfigError: for an unknown name or option.
        WeightsError: if pretrained weights cannot be obtained or do not fit.
    """
    return build_network(
        {
            "name": name,
            "class_num": class_num,
            "pretrained": pretrained,
            "use_ssld": use_ssld,
            "return_patterns": return_patterns,
            "return_stages": return_stages,
            "stop_after": stop_after,
            "freeze_befor": freeze_befor,
            **options,
        },
        where="create_model",
    )


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of all networks that match a shell pattern such as ``ResNet*``."""
    return sorted(name for name in BACKBONES if name not in _PARTS and fnmatch.fnmatchcase(name, pattern))


def build_model(
    config: Any,
    mode: str = "train",
    *,
    only: Collection[str] | None = None,
    load_pretrained: bool = True,
    normalize: Mapping[str, Sequence[float]] | None = None,
) -> nn.Layer:
    """Build the network that an ``Arch`` node describes.

    Args:
        config: the node, or a whole recipe with a section ``Arch``; plain, OmegaConf or an `ArchSpec`.
        mode: accepted for scripts written for PaddleClas; networks are the same in every mode.
        only: for a DistillationModel, the sub-networks to build for use after training. The others are left
            out together with their weights, and of a chain only the first network is built. None builds all.
        load_pretrained: whether to load the weights of the ``pretrained`` options.
        normalize: ``mean`` and ``std`` of the model's images; needed if one of its networks has its own.

    Raises:
        ConfigError: if the node describes no network.
        WeightsError: if pretrained weights cannot be obtained or do not fit.
    """
    node = config if isinstance(config, ArchSpec) else plain(config)
    if isinstance(node, dict) and "name" not in node and isinstance(node.get("Arch"), dict):
        node = node["Arch"]
    if only is not None:
        node = ArchSpec.read(node).only(only)
    if not load_pretrained:
        node = ArchSpec.read(node).without_weights()
    network = build_network(node.node() if isinstance(node, ArchSpec) else node)
    if normalize is not None and isinstance(network, DistillationModel):
        network.connect_inputs(**normalize)
    return network


def build_empty(arch: ArchSpec, **options: Any) -> nn.Layer:
    """Build networks whose numbers will all come from a file; until then they are zero.

    Random first values take most of the time that a large network needs: Swin-B is built without them in a
    tenth of it (``benchmarks/startup.py``).

    Args:
        arch: the networks; their own weights are not loaded.
        **options: ``only`` and ``normalize`` of :func:`build_model`.

    Raises:
        ConfigError: if the node describes no network.
    """
    if not _is_of_the_package(arch):  # somebody's own network may do anything with its first values
        return build_model(arch, load_pretrained=False, **options)
    with paddle.LazyGuard():
        network = build_model(arch, load_pretrained=False, **options)
    zeros = nn.initializer.Constant(0.0).forward
    for parameter in network.parameters():
        parameter.set_init_func(zeros)
        parameter.initialize()
    return network


def _is_of_the_package(arch: ArchSpec) -> bool:
    """Tell whether all networks are those of ppcls."""
    return BACKBONES[arch.name].__module__.startswith("ppcls.") and all(
        map(_is_of_the_package, arch.children)
    )


def layer_table(arch_config: Any) -> dict[str, set[str]]:
    """Return the layer descriptors of each network of an ``Arch`` node, without memory for parameters.

    Returns:
        for each sub-network by name ("" for a plain network) its descriptors in both spellings.

    Raises:
        ConfigError: if the node describes no network.
    """
    network = built_lazily(lambda: build_model(arch_config, load_pretrained=False))
    parts = {name: network.network(name) for name in network.names} if _is_group(network) else {"": network}
    return {name: _descriptors(part) for name, part in parts.items()}


def _is_group(network: nn.Layer) -> bool:
    return isinstance(network, NetworkGroup)


def _descriptors(network: nn.Layer) -> set[str]:
    if isinstance(network, TheseusLayer):
        names = network.descriptors()
        return {*names, *map(dotted, names)}
    return {name for name, _ in network.named_sublayers()}
