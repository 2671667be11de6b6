"""Measure outputs of frozen networks on the training images before the first step, for losses that need it.

The images are those of ``DataLoader.Train`` as an evaluation prepares them, so without augmentation; or, if
the outputs of the networks are stored, those of the first stored epoch. Every process measures its share, and
all of them join the shares in the same order, so the results are equal bit by bit. The losses keep them as
buffers, which belong to checkpoints: a resumed run measures nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls import distributed
from ppcls.config import Recipe
from ppcls.config.checks.transform_chains import EVALUATION, transform_chains
from ppcls.data import (
    DistributedBatchSampler,
    Draws,
    JoinedLoader,
    Loader,
    Share,
    ahead,
    build_dataset,
    image_tensor,
)
from ppcls.engine.evaluation.evaluate import evaluating
from ppcls.engine.start.run_data import RunData
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER, progress_bar
from ppcls.loss.combined import CombinedLoss
from ppcls.loss.measured import Measurement
from ppcls.teacher import StoredOutputs
from ppcls.teacher.store import INDEX

_ROWS = 1024  # rows of a store that are read at a time
_FIRST = 1  # the view of a store that is measured
_STORE = "TeacherStore"


def measure_teachers(
    config: Recipe,
    data: RunData,
    model: Any,
    loss: CombinedLoss,
    stored: StoredOutputs | None,
    casting: Mapping[str, Any],
) -> None:
    """Measure what the losses want to know of frozen networks.

    Args:
        config: the recipe; its seed is set.
        data: the open data.
        model: the networks with their weights.
        loss: the training loss, prepared.
        stored: the store of their outputs, if there is one.
        casting: options of ``paddle.amp.auto_cast`` in evaluations.

    Raises:
        ConfigError: if something cannot be measured; the message says why, and what to do.
    """
    wanted = loss.measurements()
    for one in wanted:
        fixed = model.logits_never_change if one.needs_all_logits else model.never_changes
        if not fixed(one.network):
            raise ConfigError(
                f"{one.loss}: the {one.what} are measured before the first step, but the outputs of "
                f"{one.network} change while the run trains; freeze it (Arch.freeze_params_list, in its "
                "frozen_mode eval)"
            )
    for most in dict.fromkeys(one.most for one in wanted):  # each number of images once
        _measure([one for one in wanted if one.most == most], config, data, model, stored, casting)


def _measure(
    wanted: Sequence[Measurement],
    config: Recipe,
    data: RunData,
    model: Any,
    stored: StoredOutputs | None,
    casting: Mapping[str, Any],
) -> None:
    begin = time.perf_counter()
    if stored is None:
        source = "the training images without augmentation"
        outputs = _answers(wanted, config, data, model, casting)
    else:
        source = f"the first epoch in {stored.store.folder}"
        outputs = _stored_answers(wanted, data.loader, model, stored)
    images = 0
    for count, found in outputs:
        images += count
        for one in wanted:
            rows = one.rows(found[one.network])
            if not np.isfinite(rows).all():
                raise ConfigError(
                    f"{one.loss}: outputs of {one.network} for training images are not finite, so its "
                    f"{one.what} cannot be measured; its weights may be broken"
                )
            one.moments.add(rows)
    distributed.wait_for_all()  # one process may be slower than the time limit of a collective
    images = sum(distributed.gather(images))
    if not images:
        raise ConfigError(f"{wanted[0].loss}: there are no images to measure the {wanted[0].what} on")
    for one in wanted:
        parts = distributed.gather(one.moments)
        whole = parts[0]
        for part in parts[1:]:
            whole.join(part)
        one.finish(whole)
        seconds = time.perf_counter() - begin
        text = "%s: %s from the outputs of %s for %d images (%s), measured in %.1f s"
        LOGGER.info(text, one.loss, one.what, one.network, images, source, seconds)


def _answers(
    wanted: Sequence[Measurement], config: Recipe, data: RunData, model: nn.Layer, casting: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of images of a batch and the outputs of the networks for it, for this process."""
    names = list(dict.fromkeys(one.network for one in wanted))
    loader = _plain_loader(config, data, wanted[0])
    bar = progress_bar(len(loader), "teachers")
    try:
        with evaluating(model), paddle.no_grad(), paddle.amp.auto_cast(**casting):
            for batch in ahead(loader.epoch(0)):
                image = image_tensor(batch)
                yield len(batch.index), {name: model.run(name, image) for name in names}
                bar.update()
    finally:
        bar.close()
        loader.close()


def _plain_loader(config: Recipe, data: RunData, wanted: Measurement) -> Loader:
    """Return a loader of the training images as an evaluation prepares them, each image once.

    Raises:
        ConfigError: if the recipe does not say how, or the images cannot be numbered.
    """
    train = config.DataLoader.Train
    transforms = transform_chains(config).get(EVALUATION)
    if train is None or not transforms:
        raise ConfigError(
            f"missing: {wanted.loss} measures {wanted.what} on the training images as an evaluation prepares "
            "them, and this says how",
            path=EVALUATION,
        )
    if _labelled(data.loader).dataset.is_stream:
        raise ConfigError(
            f"{wanted.loss} measures {wanted.what} on the training images before the first step, which needs "
            "their list; use ShardDataset, which makes an index of the same shards",
            path="DataLoader.Train.dataset",
        )
    node = {key: value for key, value in (train.dataset or {}).items() if key != "batch_transform_ops"}
    node["transform_ops"] = transforms
    names = data.class_names if _labelled(data.loader).dataset.class_names is not None else None
    dataset = build_dataset(node, "Train", config.arch.main.class_count, names)
    evaluation = config.DataLoader.Eval
    size = ((evaluation or train).sampler or {}).get("batch_size") or 64
    share = Share(
        len(dataset),
        seed=config.Global.seed or 0,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        training=False,
    )
    sampler = _Spread(int(size), wanted.most)
    loader = train.loader
    return Loader(dataset, sampler, share, num_workers=loader.num_workers, timeout=loader.timeout)


class _Spread(DistributedBatchSampler):
    """All samples in order, or some that are spread evenly over the list."""

    def __init__(self, batch_size: int, most: int | None) -> None:
        super().__init__(batch_size)
        self.most = most

    def count(self, share: Share) -> int:
        """Return the number of batches."""
        return super().count(self._of_chosen(share))

    def batches(self, share: Share, epoch: int) -> list[Draws]:
        """Return the samples of each batch of this process."""
        chosen = np.unique(np.linspace(0, share.length - 1, self._of_chosen(share).length).astype(np.int64))
        batches = super().batches(self._of_chosen(share), epoch)
        return [Draws(chosen[draws.index], draws.repeat) for draws in batches]

    def _of_chosen(self, share: Share) -> Share:
        return replace(share, length=share.length if self.most is None else min(self.most, share.length))


def _stored_answers(
    wanted: Sequence[Measurement], loader: Loader | JoinedLoader, model: Any, stored: StoredOutputs
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield numbers of images and the stored outputs for them, for this process's share of the first epoch.

    Images without labels are left out.

    Raises:
        ConfigError: if the store lacks some, or does not have the logits of all classes.
    """
    folder = stored.store.folder
    rows = stored.places.rows
    if stored.columns is None or any(distributed.gather(stored.store.missing(_FIRST, rows))):
        raise ConfigError(
            f"{wanted[0].loss} needs the outputs of the first epoch before the first step, and {folder} does "
            "not have all of them; fill it with `ppcls teacher store`",
            path=f"{_STORE}.path",
        )
    if any(one.needs_all_logits for one in wanted) and stored.plan.keeping.logits != "all":
        raise ConfigError(
            f"{stored.plan.keeping.logits}, but {wanted[0].loss} measures the logits of all classes; set all",
            path=f"{_STORE}.logits",
        )
    labelled = len(_labelled(loader).dataset)
    names = list(dict.fromkeys(one.network for one in wanted))
    places = {member: _stored_name(member, stored) for name in names for member in model.members(name)}
    first, last = np.linspace(0, rows, distributed.world_size() + 1).astype(int)[
        [distributed.rank(), distributed.rank() + 1]
    ]
    step = 1 if wanted[0].most is None else max(rows // wanted[0].most, 1)
    for start in range(int(first), int(last), _ROWS):
        records = stored.store.read(_FIRST, start, min(_ROWS, int(last) - start))
        position = np.arange(start, start + len(records))
        records = records[(records[INDEX] < labelled) & (position % step == 0)]
        if len(records):
            found = {member: stored.columns.decode(records, there) for member, there in places.items()}
            with evaluating(model):  # all teachers of an ensemble
                combined = {name: model.combine(name, found) for name in names}
            yield len(records), combined


def _stored_name(network: str, stored: StoredOutputs) -> str:
    """Return the name in the store of a network, or of the first network of a chain."""
    return next(name for name in stored.plan.networks if name == network or name.startswith(f"{network}."))


def _labelled(loader: Loader | JoinedLoader) -> Loader:
    return loader.labelled if isinstance(loader, JoinedLoader) else loader
