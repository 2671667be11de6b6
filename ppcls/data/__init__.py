"""Images and labels: list files, transforms, samplers and the loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ppcls.config import plain
from ppcls.config.binding import construct
from ppcls.config.nodes import Options
from ppcls.config.schema import DataLoaderSpec, DataSpec, LoaderSpec
from ppcls.data import batch_ops as batch_ops  # importing it fills the registry
from ppcls.data.batch import Batch, Pixels
from ppcls.data.batches import Batches, create_operators
from ppcls.data.cifar import Cifar10, Cifar100
from ppcls.data.dataset import Dataset, FolderDataset, ImageNetDataset
from ppcls.data.division import Division, divide
from ppcls.data.fingerprint import Fingerprint
from ppcls.data.images import ImageError, Naming, list_images, matching, read_file
from ppcls.data.loader import Loader
from ppcls.data.multi_scale import MultiScaleDataset, MultiScaleSampler
from ppcls.data.postprocess import PostProcess, Topk
from ppcls.data.postprocess_distillation import DistillationPostProcess
from ppcls.data.preprocess import transform
from ppcls.data.sampler import (
    ClassAwareSampler,
    DistributedBatchSampler,
    Draws,
    EpochSampler,
    RASampler,
    Sampler,
    Share,
    ShuffleBufferSampler,
)
from ppcls.data.shard_stream import ShardStreamDataset
from ppcls.data.shards import ShardDataset
from ppcls.data.threshold import ThreshOutput
from ppcls.data.transfer import ahead, image_tensor
from ppcls.data.transforms import BatchTransform, Compose, Transform, build_transforms
from ppcls.data.unlabelled import Endless, JoinedLoader, WithoutLabels
from ppcls.distributed import rank, world_size
from ppcls.errors import ConfigError, DataError, hint, show
from ppcls.logger import LOGGER
from ppcls.registry import BATCH_OPS, DATASETS, POSTPROCESSES, SAMPLERS

__all__ = [
    "BatchTransform",
    "Pixels",
    "PostProcess",
    "Sampler",
    "Transform",
    "Batch",
    "Batches",
    "Cifar10",
    "Cifar100",
    "ClassAwareSampler",
    "Compose",
    "Dataset",
    "DistillationPostProcess",
    "DistributedBatchSampler",
    "Draws",
    "EpochSampler",
    "Fingerprint",
    "FolderDataset",
    "ImageError",
    "ImageNetDataset",
    "JoinedLoader",
    "Loader",
    "MultiScaleDataset",
    "MultiScaleSampler",
    "RASampler",
    "ShardDataset",
    "ShardStreamDataset",
    "Share",
    "ShuffleBufferSampler",
    "ThreshOutput",
    "Topk",
    "ahead",
    "build_dataloader",
    "build_dataset",
    "build_loader",
    "build_postprocess",
    "build_train_loader",
    "build_transforms",
    "create_operators",
    "datasets_of",
    "image_tensor",
    "list_images",
    "matching",
    "read_image",
    "transform",
]


def build_dataset(
    config: Any, mode: str = "Train", class_num: int | None = None, class_names: Sequence[str] | None = None
) -> Dataset:
    """Build ``DataLoader.<mode>.dataset``; its list is checked here.

    Args:
        config: the node, ``{"name": "ImageNetDataset", ...}``.
        mode: ``Train``, ``UnLabelTrain`` or ``Eval``; datasets with two parts, such as CIFAR, give the
            matching one.
        class_num: number of classes of the network; labels must be below it.
        class_names: names of the classes in order, as training or the run has them; None if they are not
            known. Data whose classes have names are ordered by them.

    Raises:
        ConfigError: for unknown names or options.
        DataError: for mistakes in lists and folders, or classes with other names.
    """
    part = "test" if mode == "Eval" else "train"
    where = f"DataLoader.{mode}.dataset"
    known: dict[str, Any] = {} if class_names is None else {"class_names": list(class_names)}
    if mode == "UnLabelTrain":
        known["labelled"] = False
    node = plain(config)
    if isinstance(node, dict) and node.get("class_names", 0) is None:  # null: to be found
        node = {key: value for key, value in node.items() if key != "class_names"}
    dataset: Dataset = construct(DATASETS, node, where, class_num=class_num, mode=part, **known)
    if class_names is not None and dataset.class_names is not None:
        _compare_names(dataset.class_names, list(class_names), f"{where} ({dataset.name})")
    return dataset


def _compare_names(found: list[str], expected: list[str], where: str) -> None:
    """Refuse class names that differ from the expected ones.

    Raises:
        DataError: naming the first one that differs.
    """
    for place in range(max(len(found), len(expected))):
        here, there = (names[place] if place < len(names) else "missing" for names in (found, expected))
        if here != there:
            raise DataError(
                f"{where}: class {place} is {here}, but {there} in training (or in the run that is continued "
                "or evaluated); a label would stand for another class. Both need the same class names in the "
                f"same order{hint(here, expected)}"
            )


def build_train_loader(
    config: DataLoaderSpec | Options,
    seed: int,
    class_num: int | None = None,
    class_names: Sequence[str] | None = None,
    *,
    former: int | None = None,
    update_freq: int = 1,
) -> Loader | JoinedLoader:
    """Build the loader of this process from ``DataLoader.Train`` and, if it is there, ``UnLabelTrain``.

    If the batches are those of another number of processes, ``loader.division`` says how they are divided
    among the processes of now. It is None if they cannot be divided: then the batches are those of now.

    Args:
        config: the section ``DataLoader``, or a map of the same keys.
        seed: seed of the run, the same in every process.
        class_num: number of classes of the network. Labels must be below it; those of unlabelled images are
            read only by a sampler that chooses images by labels.
        class_names: see :func:`build_dataset`; those of the run that is resumed.
        former: the number of processes whose batches are used; by default, of those of now.
        update_freq: number of batches for one step.

    Raises:
        ConfigError, DataError: see :func:`build_loader`.
    """
    labelled = _Source(config["Train"], "Train", seed, class_num, class_names)
    sources = [labelled]
    if config.get("UnLabelTrain"):
        other = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0])  # independent streams
        sources.append(_Source(config["UnLabelTrain"], "UnLabelTrain", other, class_num))
    division = None
    if former not in (None, world_size()):
        division = _divide(sources, former, update_freq)
    steps = labelled.sampler.count(labelled.share(division))
    loaders = [labelled.loader(division), *(source.loader(division, steps) for source in sources[1:])]
    return loaders[0] if len(loaders) == 1 else JoinedLoader(*loaders)


def _divide(sources: Sequence[_Source], former: int, update_freq: int) -> Division | None:
    """Divide the batches of `former` processes among those of now, if they can be divided."""
    share = replace(sources[0].share(), rank=0, world_size=former)
    sizes = [len(draws.index) for draws in sources[0].sampler.batches(share, 1)]
    joined = len(sources) > 1
    division = divide(former, world_size(), update_freq, sizes, all_whole=joined)
    if division is not None and any(source.sampler.batch_size % division.parts for source in sources[1:]):
        return None
    return division


def build_loader(
    config: DataSpec | Options,
    mode: str,
    seed: int,
    class_num: int | None = None,
    steps: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Loader:
    """Build the loader of this process from ``DataLoader.<mode>``.

    Args:
        config: the section, or a map ``{"dataset": {...}, "sampler": {...}, "loader": {...}}``.
        mode: ``Train``, ``UnLabelTrain`` or ``Eval``. In evaluation every sample counts exactly once.
        seed: seed of the run, the same in every process.
        class_num: number of classes of the network; labels must be below it.
        steps: batches per epoch of ``UnLabelTrain``.
        class_names: see :func:`build_dataset`.

    Raises:
        ConfigError: for unknown names or options, or ``drop_last`` in evaluation.
        DataError: for mistakes in lists, or too few samples for one batch.
    """
    return _Source(config, mode, seed, class_num, class_names).loader(steps=steps)


class _Source:
    """Dataset, sampler and options of a loader. For the arguments and errors see :func:`build_loader`."""

    def __init__(
        self,
        config: DataSpec | Options,
        mode: str,
        seed: int,
        class_num: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        where = f"DataLoader.{mode}"
        node = _data_spec(config, where)
        sampler = construct(SAMPLERS, node.sampler, f"{where}.sampler")
        training = mode != "Eval"
        if sampler.drop_last and not training:
            raise ConfigError(
                "evaluation counts every sample; set it to False", path=f"{where}.sampler.drop_last"
            )
        if sampler.training_only and not training:
            raise ConfigError(
                f"{type(sampler).__name__} is for training; evaluation counts every "
                "sample once, with DistributedBatchSampler",
                path=f"{where}.sampler",
            )
        _check_loader(node.loader, f"{where}.loader")
        unlabelled = mode == "UnLabelTrain" or not node.labelled
        dataset = build_dataset(
            node.dataset, mode, None if unlabelled else class_num, None if unlabelled else class_names
        )
        if dataset.is_stream:
            _check_stream(node, dataset, sampler, mode, where)
        self.mixing = [
            construct(BATCH_OPS, op, f"{where}.dataset.batch_transform_ops.{place}", class_num=class_num)
            for place, op in enumerate(dataset.batch_transform_ops)
        ]
        if sampler.needs_labels and not node.labelled:
            text = f"{type(sampler).__name__} chooses images by their labels, which these do not have"
            raise ConfigError(text, path=f"{where}.sampler")
        if unlabelled:
            self.mixing = [WithoutLabels(op) for op in self.mixing]
        labels = np.array([dataset.label(i) for i in range(len(dataset))]) if sampler.needs_labels else None
        if unlabelled and labels is not None:
            _warn_of_labels(labels, class_num, f"{where}.sampler: {type(sampler).__name__}")
        self._share = Share(len(dataset), seed, rank(), world_size(), training, labels)
        sampler.check(self._share)
        if sampler.multi_scale and not dataset.multi_scale:
            raise ConfigError(f"{type(sampler).__name__} needs MultiScaleDataset", path=f"{where}.dataset")
        self.where = where
        self.options = node.loader
        self.sampler = sampler
        self.dataset = dataset

    def share(self, division: Division | None = None) -> Share:
        """Return the part of the samples that belongs to this process, or to a former one."""
        if division is None:
            return self._share
        return replace(self._share, rank=0, world_size=division.former)

    def loader(self, division: Division | None = None, steps: int | None = None) -> Loader:
        """Return the loader.

        Args:
            division: how batches of another number of processes are divided.
            steps: batches per epoch of ``UnLabelTrain``.
        """
        sampler = self.sampler
        if steps is not None:
            if not isinstance(sampler, EpochSampler):
                raise ConfigError(
                    f"{type(sampler).__name__} does not derive from ppcls.data.EpochSampler, whose order is "
                    "needed to go through unlabelled images again and again",
                    path=f"{self.where}.sampler",
                )
            sampler = Endless(sampler, steps)
        return Loader(
            self.dataset,
            sampler,
            self.share(division),
            num_workers=self.options.num_workers,
            timeout=self.options.timeout,
            use_processes=self.options.use_processes,
            batch_ops=self.mixing,
            division=division,
        )


def _warn_of_labels(labels: np.ndarray, class_num: int | None, what: str) -> None:
    """Warn of labels of ``UnLabelTrain`` that are hardly those that a sampler is to choose by."""
    least, most = int(labels.min()), int(labels.max())
    text = f"{what} chooses images by their labels"
    if least == most:
        LOGGER.warning(
            "%s, and all are %d here (anything that is not a whole number counts as 0)", text, most
        )
    elif class_num is not None and most >= class_num:
        LOGGER.warning(
            "%s, which go up to %d, but class_num is %d; each counts as a class", text, most, class_num
        )


def datasets_of(train: Loader | JoinedLoader, evaluation: Loader | None = None) -> dict[str, Dataset]:
    """Return the datasets that a run reads, by config path.

    Args:
        train: what :func:`build_train_loader` returned.
        evaluation: the loader of ``DataLoader.Eval``; None if nothing is evaluated.
    """
    if isinstance(train, JoinedLoader):
        loaders = {"Train": train.labelled, "UnLabelTrain": train.unlabelled}
    else:
        loaders = {"Train": train}
    if evaluation is not None:
        loaders["Eval"] = evaluation
    return {f"DataLoader.{mode}.dataset": loader.dataset for mode, loader in loaders.items()}


def _data_spec(config: DataSpec | Options, where: str) -> DataSpec:
    if isinstance(config, DataSpec):
        return config
    node = plain(config)
    options = node.get("loader") or {}
    known = LoaderSpec()
    for option in options:
        if option not in known:
            raise ConfigError(f"no option {option!r}.{hint(option, known)}", path=f"{where}.loader")
    return DataSpec(dataset=node["dataset"], sampler=node["sampler"], loader=LoaderSpec(**options))


def _check_stream(node: DataSpec, dataset: Dataset, sampler: Sampler, mode: str, where: str) -> None:
    """Raise ConfigError if something needs samples in another order than that of their stream."""
    name = type(dataset).__name__
    if mode != "Train":
        raise ConfigError(
            f"{name} is for DataLoader.Train alone; use ShardDataset here, which makes an index",
            path=f"{where}.dataset",
        )
    if not sampler.in_order:
        raise ConfigError(
            f"{name} reads samples in the order of the shards, and {type(sampler).__name__} draws them "
            "in any order; use ShuffleBufferSampler, DistributedBatchSampler with shuffle: False, or "
            "ShardDataset",
            path=f"{where}.sampler",
        )
    if node.loader.use_processes:
        raise ConfigError(
            f"processes cannot share the stream of {name}; set it to False, or use ShardDataset",
            path=f"{where}.loader.use_processes",
        )


def _check_loader(loader: LoaderSpec, where: str) -> None:
    if loader.num_workers < 0:
        raise ConfigError(f"at least 0, got {loader.num_workers}", path=f"{where}.num_workers")
    if loader.use_processes and not loader.num_workers:
        raise ConfigError("has no effect with num_workers 0; set num_workers", path=f"{where}.use_processes")
    if not loader.timeout >= 0:
        raise ConfigError(f"at least 0, got {loader.timeout}", path=f"{where}.timeout")


def build_dataloader(
    config: Any, mode: str, device: Any = None, use_dali: bool = False, seed: int | None = None
) -> Batches:
    """Build ``DataLoader.<mode>`` as scripts written for PaddleClas use it: it yields ``[images, labels]``.

    Args:
        config: the section ``DataLoader``.
        mode: ``Train`` or ``Eval``.
        device: accepted for old scripts.
        use_dali: accepted for old scripts.
        seed: seed of order and augmentation; None draws one.

    Raises:
        ConfigError, DataError: see :func:`build_loader`.
    """
    section = plain(config)
    if not isinstance(section, dict) or not isinstance(section.get(mode), dict):
        keys = ", ".join(map(str, section)) if isinstance(section, dict) else show(section)
        raise ConfigError(
            f"build_dataloader: expected the section DataLoader of a recipe, with {mode} in it, got {keys}"
        )
    drawn = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    return Batches(build_loader(section[mode], mode, drawn))


def build_postprocess(config: Any, where: str = "Infer.PostProcess") -> Any:
    """Build ``Infer.PostProcess``: a callable ``(probabilities [N, C], file_names) -> [dict, ...]``.

    Args:
        config: ``{"name": "Topk", "topk": 5, ...}``; null gives only the best class.
        where: its config path, for messages.

    Raises:
        ConfigError: for unknown names or options.
        DataError: if the file of class names is missing.
    """
    return construct(POSTPROCESSES, plain(config) or {"name": "Topk"}, where)


def read_image(path: str, transforms: Compose) -> np.ndarray:
    """Read an image file and prepare it for a network.

    Args:
        path: the file.
        transforms: the chain of ``Infer.transforms``.

    Returns:
        float32 [C, H, W].

    Raises:
        ImageError: naming the file, if it cannot be read or decoded.
        DataError: naming the file, if a transform fails on it.
    """
    with Naming(lambda: path):
        return transforms.chw(read_file(path))
