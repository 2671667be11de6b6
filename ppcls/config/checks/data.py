"""The sections of ``DataLoader`` against each other, and what evaluation needs of its own."""

from __future__ import annotations

import os
from collections.abc import Callable

from ppcls.config.checks.networks import Networks
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import DataLoaderSpec, DataSpec
from ppcls.registry import SAMPLERS


def check_data(data: DataLoaderSpec, networks: Networks, mode: str, findings: Findings) -> None:
    """Check that each section is complete, that lists differ, and that evaluation sees every image once.

    Args:
        data: the sections.
        networks: the networks of the recipe, whose classes the labels name.
        mode: the command.
        findings: receives mistakes and warnings.
    """
    train = data.Train
    evaluation = data.Eval
    for name, part in data.parts.items():
        _check_part(part, join("DataLoader", name), findings)
        if name != "UnLabelTrain":
            report = findings.error if mode == "train" else findings.warn  # earlier versions trained it
            _check_class_num(part, join("DataLoader", name, "dataset.class_num"), networks, report)
    if train and evaluation:
        for key, what in (("cls_label_path", "the training list"), ("path", "the training data")):
            places = [_place(part, key) for part in (train, evaluation)]
            if places[0] is not None and places[0] == places[1]:
                findings.warn(
                    f"DataLoader.Eval.dataset.{key}",
                    f"{places[0]} is {what} too: the accuracy will be that on training images",
                )
        _check_relabel(train, evaluation, findings)
    sampler = evaluation.sampler if evaluation else None
    if isinstance(sampler, dict) and sampler.get("drop_last") is True:
        findings.error("DataLoader.Eval.sampler.drop_last", "evaluation counts every image; set it to False")
    name = str(sampler.get("name")) if isinstance(sampler, dict) else ""
    if name in SAMPLERS and SAMPLERS.trait(name, "training_only"):
        text = f"{name} is for training; evaluation counts every image once, with DistributedBatchSampler"
        findings.error("DataLoader.Eval.sampler", text)
    elif isinstance(sampler, dict) and sampler.get("shuffle") is True:
        findings.warn("DataLoader.Eval.sampler.shuffle", "has no effect: evaluation counts every image once")


def _check_relabel(train: DataSpec, evaluation: DataSpec, findings: Findings) -> None:
    """Warn if training and evaluation may number the classes differently."""
    one, other = (_place(part, "relabel") for part in (train, evaluation))
    if one == other or (one and other and os.path.realpath(one) == os.path.realpath(other)):
        return
    if one and other:
        findings.warn(
            "DataLoader.Eval.dataset.relabel",
            f"{other}, but that of DataLoader.Train.dataset is {one}; with other labels in it, the "
            "classes of both would have other numbers: name one list in both",
        )
        return
    part, missing, file = ("Train", "Eval", one) if one else ("Eval", "Train", other)
    findings.warn(
        f"DataLoader.{part}.dataset.relabel",
        f"{file}, but DataLoader.{missing}.dataset has none: its labels must have the new numbers already",
    )


def _check_part(part: DataSpec, path: str, findings: Findings) -> None:
    for node in ("dataset", "sampler"):
        if part[node] is None:
            findings.error(join(path, node), "missing")
    place = join(path, "sampler", "batch_size")
    size = part.sampler.get("batch_size") if isinstance(part.sampler, dict) else None
    # Samplers of the package check it themselves, a sampler of a plug-in may not.
    if isinstance(size, int) and size < 1 and not findings.mistakes_below(join(path, "sampler")):
        findings.error(place, f"expected 1 or more, got {size}", value=size, expected="1 or more")


def _check_class_num(part: DataSpec, path: str, networks: Networks, report: Callable[..., None]) -> None:
    """Report labels that the network cannot have; it may have more classes than the data."""
    main = networks.members.get(networks.main)
    given = part.dataset.get("class_num") if isinstance(part.dataset, dict) else None
    if main is not None and main.class_num and isinstance(given, int) and given > main.class_num:
        report(path, f"{given}, but {main.title} ({main.path}) has {main.class_num} classes; leave it out")


def _place(part: DataSpec, key: str) -> str | None:
    dataset = part.dataset
    path = dataset.get(key) if isinstance(dataset, dict) else None
    return os.path.normpath(path) if isinstance(path, str) else None
