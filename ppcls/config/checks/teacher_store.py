"""Check the section ``TeacherStore``: what must be there for outputs of teachers to be stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import DataSpec, Recipe, TeacherStoreSpec
from ppcls.errors import ConfigError
from ppcls.registry import LOSSES, SAMPLERS

_PLACE = "TeacherStore"
_SOFT = ("DistillationKLDivLoss", "DistillationCELoss")  # they take the teacher's probabilities
_BEST = ("DistillationHardLoss",)  # it takes the teacher's best class
# Options that let a loss look at features, which are stored as they are.
_KEYS = ("key", "t_key", "teacher_keys", "teacher_keepkeys")
_OF_FEATURES = ("AFDLoss",)


def check_teacher_store(recipe: Recipe, mode: str, findings: Findings) -> None:
    """Check that there is something to store, and that every batch of a view has the same images again."""
    spec = recipe.TeacherStore
    if spec is None:
        return
    misread = findings.mistakes_below(f"{_PLACE}.path") or any(m.path == _PLACE for m in findings.mistakes)
    if not spec.path and not misread:
        findings.error(f"{_PLACE}.path", "missing: the folder of the store")
    if mode != "train":
        return
    if spec.views is not None and spec.views > recipe.Global.epochs:
        text = f"{spec.views}, but the run has {recipe.Global.epochs} epochs and fills no more than these"
        findings.warn(f"{_PLACE}.views", text)
    if recipe.Global.seed is None:
        text = "null, but the images of a store are those of its seed; give a number"
        findings.error("Global.seed", text)
    _check_kept(recipe, spec, findings)
    for part, data in recipe.DataLoader.parts.items():
        if part != "Eval":
            _check_data(data, f"DataLoader.{part}", findings)


def _check_data(data: DataSpec, path: str, findings: Findings) -> None:
    if (data.dataset or {}).get("on_error") == "skip":
        text = (
            "skip, but a batch that lacks images cannot be stored; `ppcls check-data` finds those to take out"
        )
        findings.error(join(path, "dataset.on_error"), text)
    name = (data.sampler or {}).get("name")
    if isinstance(name, str) and name in SAMPLERS and SAMPLERS.trait(name, "multi_scale"):
        text = f"{name} changes the size of images from batch to batch, which {_PLACE} does not allow"
        findings.error(join(path, "sampler.name"), text)


def _check_kept(recipe: Recipe, spec: TeacherStoreSpec, findings: Findings) -> None:
    """Check that the losses can work with the logits that are kept."""
    if spec.logits == "all":
        if spec.k is not None:
            findings.error(f"{_PLACE}.k", f"{spec.k}, but all logits are kept; set logits: topk or sample")
        return
    if spec.k is None:
        findings.error(f"{_PLACE}.k", f"missing: how many classes {spec.logits} keeps")
    try:
        frozen = {network.title for network in recipe.arch.walk() if network.frozen and network.title}
        frozen |= {child.title for child in recipe.arch.children if child.head.frozen}
        frozen |= recipe.arch.ensembles.keys()
        for name in recipe.arch.ensembles:
            text = f"needs the logits of all classes of its networks, and {_PLACE}.logits is {spec.logits}"
            findings.error(f"Arch.ensembles.{name}", text)
    except ConfigError:
        return  # reported where Arch is checked
    for index, node in enumerate(recipe.Loss.Train or []):
        for name, options in node.items() if isinstance(node, Mapping) else ():
            if name in LOSSES and isinstance(options, Mapping) and frozen & set(_texts(options)):
                _check_loss(name, options, spec.logits, f"Loss.Train.{index}.{name}", findings)


def _check_loss(name: str, options: Mapping[str, Any], kept: str, path: str, findings: Findings) -> None:
    keys = {text for option in _KEYS for text in _texts(options.get(option))}
    if name in _OF_FEATURES or (keys and "logits" not in keys):
        return
    if name not in (*_SOFT, *(_BEST if kept == "topk" else ())):
        text = f"needs the logits of all classes, and {_PLACE}.logits is {kept}; set it to all"
        findings.error(path, text)
        return
    for option in ("standardize", "class_map"):
        if options.get(option):
            findings.error(
                join(path, option), f"needs the logits of all classes, not {_PLACE}.logits: {kept}"
            )
    temperature = options.get("temperature", 4.0 if name == "DistillationKLDivLoss" else 1.0)
    if temperature == 1:
        return
    if kept == "sample":
        text = f"{temperature}, but classes drawn by the teacher's probabilities serve temperature 1 alone"
        findings.error(join(path, "temperature"), text)
    elif name in _SOFT:
        text = (
            f"{temperature}: approximate, because {_PLACE}.logits: topk shares the rest of the probability "
            "evenly among the other classes, which counts for more above 1"
        )
        findings.warn(join(path, "temperature"), text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
