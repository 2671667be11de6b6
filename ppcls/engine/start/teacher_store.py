"""The store of teacher outputs of a run: opened, verified and compared with the recipe before the start."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ppcls import distributed
from ppcls.config import ArchSpec, Recipe
from ppcls.config.schema import TeacherStoreSpec
from ppcls.data import JoinedLoader, Loader, datasets_of
from ppcls.engine.evaluation.measures import Measures
from ppcls.engine.start.store_contents import compare, describe
from ppcls.errors import ConfigError, DataError
from ppcls.files import require_possible
from ppcls.logger import LOGGER
from ppcls.loss import build_loss
from ppcls.random_numbers import random_numbers_as_before
from ppcls.teacher import StoredOutputs
from ppcls.teacher.columns import Keeping
from ppcls.teacher.store import Store
from ppcls.teacher.stored import Places, Plan, listed, shown
from ppcls.weights import find_file, read_params

_PLACE = "TeacherStore"


@dataclass(frozen=True)
class OpenStore:
    """The store of a run.

    Attributes:
        outputs: gives and takes the outputs.
        leaves_out: the frozen networks are not needed, because all their outputs are stored.
        needs_weights: a loss reads their weights before the first step all the same.
    """

    outputs: StoredOutputs
    leaves_out: bool
    needs_weights: bool


def open_store(config: Recipe, loader: Loader | JoinedLoader, *, filling: bool = False) -> OpenStore | None:
    """Open the store that a recipe names; None if it names none.

    Args:
        config: the recipe; its seed is set.
        loader: batches for training.
        filling: fill the store without training; whatever `fill` says.

    Raises:
        ConfigError: if the store was made for something else; the difference is named.
        DataError: if it is damaged.
    """
    spec = config.TeacherStore
    if spec is None:
        return None
    folder = Path(os.path.expanduser(str(spec.path)))
    require_possible(folder, f"{_PLACE}.path")
    store = Store(folder)
    stored = stored_networks(config.arch)
    if not stored:
        raise ConfigError("no network of Arch is frozen, so there is nothing to store", path=_PLACE)
    if store.manifest is None and spec.fill == "never" and not filling:
        raise ConfigError(
            f"there is no store in {folder}; fill it with `ppcls teacher store`, or set fill: auto",
            path=f"{_PLACE}.path",
        )
    _check_start(config, stored)
    for path, dataset in datasets_of(loader).items():
        if dataset.is_stream:
            raise ConfigError(
                f"a store of outputs needs the list of images, which {type(dataset).__name__} does not have; "
                "use ShardDataset, which makes an index of the same shards",
                path=path,
            )
    places = places_of(loader)
    views = _views(spec, store, config.Global.epochs)
    made_of = describe(config, loader, stored)
    networks = tuple(network.prefix[:-1] for network in stored)
    keeping = Keeping(spec.precision, spec.features, spec.logits, spec.k or 0)
    plan = Plan(views, keeping, filling or spec.fill == "auto", networks, made_of)
    if store.manifest is not None:
        compare(store, made_of, places, folder)
    outputs = StoredOutputs(store, plan, places)
    _verify(outputs)
    if not all(distributed.gather(outputs.complete)):
        outputs.complete = False
    if not (outputs.complete or plan.fill):
        view, runs = next((view, runs) for view, runs in outputs.missing().items() if runs)
        raise ConfigError(
            f"{folder} is not complete: view {view} lacks positions {listed(runs)}; fill it with "
            "`ppcls teacher store`, or set fill: auto",
            path=_PLACE,
        )
    with random_numbers_as_before():
        asked = config.Global.eval_during_train and bool(_asked_in_evaluations(config, networks))
        reads = build_loss(
            config.Loss.Train or [], main=config.arch.main_name, where="Loss.Train"
        ).reads_networks
    if filling:
        complete = sum(not runs for runs in outputs.missing().values())
        LOGGER.info("%s: %d of %d views are complete", folder, complete, views)
    else:
        _log(outputs, asked, config.Global.epochs)
    return OpenStore(outputs, outputs.complete and not asked and not filling, reads)


def stored_networks(arch: ArchSpec) -> list[ArchSpec]:
    """Return the networks whose answers are stored: those that are frozen in eval mode.

    Raises:
        ConfigError: for a frozen network whose answers change, or that starts from random weights.
    """
    found: list[ArchSpec] = []
    for index, child in enumerate(arch.children):
        if child.frozen:
            mode = arch.options.get("frozen_mode", "eval")
            if (mode.get(child.title, "eval") if isinstance(mode, Mapping) else mode) == "train":
                raise ConfigError(
                    f"{child.title} has frozen_mode: train, so its answers change from step to step "
                    "and cannot be stored",
                    path=f"{arch.path}.frozen_mode",
                )
            if arch.is_chain and index:
                continue
            if not child.has_own_weights:
                raise ConfigError(
                    "needs the option `pretrained`: outputs of random weights are of no use to another run",
                    path=child.path,
                )
            found.append(child)
        else:
            found += stored_networks(child)
    return found


def _check_start(config: Recipe, stored: list[ArchSpec]) -> None:
    """Refuse weights of these networks that come from elsewhere than their option `pretrained`."""
    weights = config.Global.pretrained_model
    if not weights or config.Global.checkpoints not in (None, "", "auto"):
        return
    path = find_file(weights, "Global.pretrained_model")
    prefixes = tuple(network.prefix for network in stored)
    if any(name.startswith(prefixes) for name in read_params(path)):
        raise ConfigError(
            f"{path} has weights of {prefixes[0][:-1]}; with a store, give them by the option "
            "`pretrained` of the network alone",
            path="Global.pretrained_model",
        )


def places_of(loader: Loader | JoinedLoader) -> Places:
    """Return where the batches of this process are in a view."""
    parts = [loader.labelled, loader.unlabelled] if isinstance(loader, JoinedLoader) else [loader]
    lengths = [[len(draws.index) for draws in part.sampler.batches(part.share, 1)] for part in parts]
    sizes = tuple(sum(together) for together in zip(*lengths, strict=True))
    return Places(sizes, distributed.rank(), parts[0].share.world_size, loader.division)


def _views(spec: TeacherStoreSpec, store: Store, epochs: int) -> int:
    there = None if store.manifest is None else store.manifest.get("views")
    if isinstance(there, int) and spec.views not in (None, there):
        raise ConfigError(
            f"{spec.views}, but the store in {store.folder} has {there}; leave it out", path=f"{_PLACE}.views"
        )
    return int(there or spec.views or epochs)


def _verify(outputs: StoredOutputs) -> None:
    """Read all shards, each in one of the processes."""
    shards = outputs.store.shards
    if not shards or outputs.columns is None:
        return
    begin = time.perf_counter()
    part = slice(distributed.rank(), None, distributed.world_size())
    found: list[list[str]] = distributed.gather(outputs.store.verify(outputs.columns.dtype, part))
    problems = [problem for each in found for problem in each]
    if problems:
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        text = "\n  ".join(problems[:5])
        raise DataError(f"{_PLACE}.path: {outputs.store.folder} is damaged:\n  {text}{more}")
    LOGGER.info(
        "%s: %d shards, %s, as their checksums say; checked in %.1f s",
        outputs.store.folder,
        len(shards),
        shown(sum(shard.size for shard in shards)),
        time.perf_counter() - begin,
    )


def _asked_in_evaluations(config: Recipe, networks: tuple[str, ...]) -> set[str]:
    """Return the frozen networks that losses or metrics of evaluations name."""
    measured = config.arch.members(Measures(config, config.arch.main_name).networks)
    return {name.partition(".")[0] for name in networks} & measured


def _log(outputs: StoredOutputs, asked: bool, epochs: int) -> None:
    names = ", ".join(outputs.plan.networks)
    views = outputs.plan.views
    if views < epochs:
        LOGGER.info(
            "%s has views for %d epochs; later epochs use their images and outputs again in turn",
            outputs.store.folder,
            views,
        )
    if not outputs.complete:
        LOGGER.info(
            "%s is not complete: missing outputs of %s are computed and stored", outputs.store.folder, names
        )
    elif asked:
        LOGGER.info("%s: complete; %s is built for evaluations, which name it", outputs.store.folder, names)
    else:
        LOGGER.info(
            "%s: complete; %s is not built, so check_teacher and eval_agreement are left out",
            outputs.store.folder,
            names,
        )
