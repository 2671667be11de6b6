"""The mining of SSLD: find the images of a pool without labels for which a teacher is confident.

    for every image of the pool:
        left out if it cannot be read
        left out if it is a near-duplicate of an image of DataLoader.Eval
        class and probability from the teacher      -> left out below the threshold
    of every class, the most probable

Cui et al. (arXiv 2103.05959) remove duplicates by matching SIFT features; here a perceptual hash is used
(:mod:`ppcls.data.near_duplicates`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import nn

from ppcls.config import ArchSpec, Recipe, complete_config
from ppcls.config.schema import DataLoaderSpec, DataSpec
from ppcls.data import Batch, Dataset, DistributedBatchSampler, Loader, Share, build_dataset, list_images
from ppcls.data.dataset import ImageNetDataset
from ppcls.data.lists import class_mapping, label_names, path_in_list
from ppcls.data.near_duplicates import HashIndex, perceptual_hash
from ppcls.data.postprocess import check_scores
from ppcls.engine import build
from ppcls.engine.engine import Engine
from ppcls.engine.run_class_names import check_teachers, class_names, data_class_names, names_to_record
from ppcls.engine.speed import with_convolutions_as_set
from ppcls.errors import ConfigError, DataError, hint
from ppcls.files import FileSet, require_writable
from ppcls.logger import LOGGER, progress_bar
from ppcls.loss.class_map import class_map_of
from ppcls.teacher import running_frozen


@dataclass(frozen=True)
class Mining:
    """The options of mining.

    Attributes:
        pool: a folder, or a list with one path per line; see :func:`ppcls.data.list_images`.
        output: list to write; counts and names go to ``<output>.json``.
        top_k: number of images to keep per class; None keeps all.
        threshold: smallest probability of the class.
        network: the teacher; by default the frozen network of the recipe.
        label: column of labels: the ``teacher``'s class, or ``zero`` as in lists of unlabelled images.
        image_root: folder that paths in the list start from; by default that of the training list.
        distance: largest Hamming distance of 255-bit hashes of near-duplicates.
    """

    pool: str
    output: str
    top_k: int | None = None
    threshold: float = 0.0
    network: str | None = None
    label: Literal["teacher", "zero"] = "teacher"
    image_root: str | None = None
    distance: int = 50


@dataclass
class MiningCounts:
    """The results of mining.

    Attributes:
        images: number of images in the pool.
        unreadable: reasons by file.
        duplicates: file, similar validation image, Hamming distance.
        foreign: number of images whose class the student does not have (``class_map``).
        below: number of images below the threshold.
        beyond: number of images above it, but not among the first `top_k` of their class.
        kept: number of images in the list.
        classes: number of images in the list by class, without empty classes.
    """

    images: int
    unreadable: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, str, int]] = field(default_factory=list)
    foreign: int = 0
    below: int = 0
    beyond: int = 0
    kept: int = 0
    classes: dict[int, int] = field(default_factory=dict)

    def render(self) -> str:
        """Return the counts as text."""
        rows = {
            "images in the pool": self.images,
            "cannot be read": len(self.unreadable),
            "near-duplicates of validation images": len(self.duplicates),
            "of a class the student does not have": self.foreign,
            "below the threshold": self.below,
            "not among the first of their class": self.beyond,
            "kept": self.kept,
        }
        counts = sorted(self.classes.values())
        spread = f" ({len(counts)} classes, {counts[0]} to {counts[-1]} images each)" if counts else ""
        return "\n".join(f"{count:>10}  {text}" for text, count in rows.items()) + spread


@dataclass
class _Found:
    """Images that may be kept: position in the pool, class, probability."""

    place: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)


class _Pool(Dataset):
    """Images without labels."""

    def __init__(self, source: str, transform_ops: list[Any] | None) -> None:
        super().__init__(source, transform_ops, None, "skip")
        self._paths = list_images(source)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self._paths[index]

    def label(self, index: int) -> int:
        """Return 0."""
        return 0


class _Hashed(Dataset):
    """Another dataset whose images are hashed while they are read."""

    def __init__(self, base: Dataset) -> None:
        self._base = base
        self._hashes = dict[int, np.ndarray]()
        self.name = base.name
        self.transforms = base.transforms
        self.on_error = base.on_error

    def __len__(self) -> int:
        return len(self._base)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self._base.path(index)

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return self._base.label(index)

    def read(self, index: int) -> Any:
        """Return the input of the first transform."""
        content = self._base.read(index)
        self._hashes[index] = perceptual_hash(content)
        return content

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return the hashes of a batch, int8 [N, BITS], and remove them."""
        return np.stack([self._hashes.pop(int(i)) for i in index])


def mine(config: Recipe, options: Mining) -> MiningCounts:
    """Write a list of the images of a pool for which a teacher is confident.

    Args:
        config: the result of :func:`ppcls.config.load_config`, with ``DataLoader.Eval``.
        options: the options.

    Raises:
        ConfigError: for options that do not fit, or a teacher without weights.
        DataError: if images of the pool lie outside the root, or none is left.
    """
    _check(options)
    recipe = complete_config(config, "eval")
    evaluation = recipe.DataLoader.Eval
    if evaluation is None or evaluation.dataset is None:
        raise ConfigError("DataLoader.Eval: missing; mine needs it")
    pool = _Pool(options.pool, evaluation.dataset.get("transform_ops"))
    root, delimiter, listed = _list_form(recipe.DataLoader, options)
    names = _below(root, pool)
    require_writable(Path(options.output).resolve().parent, "--output")
    if not options.output or Path(options.output).is_dir():
        raise ConfigError(f"--output: expected a file to write, got {options.output or 'an empty path'}")
    engine = Engine(recipe, "eval")
    name = _teacher(engine.arch, options.network)
    known = data_class_names(recipe, None)
    check_teachers(recipe, names_to_record(recipe, known, engine.class_num))
    teacher = _network(engine, name)
    class_map = class_map_of(recipe.Loss, recipe.arch, name)
    if listed is not None and len(listed) < engine.class_num:
        raise ConfigError(
            f"the training list has labels of {len(listed)} classes, and the network has {engine.class_num}, "
            "so mined images of the others would have no label"
        )
    held_out = _Hashed(build_dataset(evaluation.dataset, "Eval"))
    index, places = _hash_all(held_out, evaluation)
    report = MiningCounts(len(pool))
    found = _Found()
    with running_frozen(
        teacher, name or engine.arch.name, engine.answering(name or None), len(pool)
    ) as answer:
        for batch, hashes in _read(_Hashed(pool), evaluation, "pool", report):
            distance, nearest = index.nearest(hashes)
            fresh = distance > options.distance
            for row in np.flatnonzero(~fresh):
                twin = held_out.path(int(places[nearest[row]]))
                report.duplicates.append((pool.path(int(batch.index[row])), twin, int(distance[row])))
            if fresh.any():
                probabilities = _probabilities(answer, batch.image[fresh])
                check_scores(probabilities, [pool.path(int(place)) for place in batch.index[fresh]])
                _check_classes(probabilities.shape[1], engine.class_num, class_map, options)
                _judge(batch.index[fresh], probabilities, class_map, options.threshold, report, found)
    kept = _select(found, options.top_k, report)
    if not kept:
        raise DataError(f"{options.pool}: no image is left, nothing was written\n{report.render()}")
    classes = found.label if options.label == "teacher" else [0] * len(found.label)
    column = classes if listed is None else [listed[number] for number in classes]
    shown = class_names(recipe, engine.class_num, known).names
    summary = {"options": asdict(options), **asdict(report), "class_names": shown}
    _write(
        Path(options.output),
        "".join(f"{names[found.place[i]]}{delimiter}{column[i]}\n" for i in kept),
        json.dumps(summary, indent=1, ensure_ascii=False),
    )
    return report


def _write(path: Path, text: str, summary: str) -> None:
    """Write both the list and its counts, or neither."""
    beside = f"{path.name}.json"
    try:
        with FileSet(path.parent, path.name, (beside, path.name)).replacing() as folder:
            (folder / path.name).write_text(text, "utf-8")
            (folder / beside).write_text(summary, "utf-8", "backslashreplace")
    except OSError as error:
        raise ConfigError(f"--output: cannot write {path}: {error.strerror or error}") from error


def _check(options: Mining) -> None:
    if options.top_k is not None and options.top_k < 1:
        raise ConfigError(f"--top-k: expected at least 1, got {options.top_k}")
    if not 0 <= options.threshold <= 1:
        raise ConfigError(f"--threshold: expected a probability from 0 to 1, got {options.threshold}")
    if options.distance < 0:
        raise ConfigError(f"--distance: expected at least 0, got {options.distance}")


def _list_form(data: DataLoaderSpec, options: Mining) -> tuple[str, str, Sequence[int | str] | None]:
    """Return root and delimiter of the training list, whose form the new list has, and its labels by class.

    These are None if they are the numbers of the classes.
    """
    part = data.Train or data.Eval
    dataset = part.dataset if part is not None and part.dataset is not None else {}
    root = options.image_root or dataset.get("image_root")
    if not root:
        raise ConfigError("--image-root: the recipe names none; give the folder that paths start from")
    listed = _listed_labels(dataset)
    delimiter = dataset.get("delimiter")
    if not delimiter:  # the last tab of a line, otherwise its last blank
        delimiter = "\t" if any(" " in str(label) for label in listed or ()) else " "
    return str(root), delimiter, listed


def _listed_labels(dataset: Mapping[str, Any]) -> Sequence[int | str] | None:
    delimiter, path = dataset.get("delimiter"), dataset.get("cls_label_path")
    if dataset.get("relabel"):
        return sorted(class_mapping(str(dataset["relabel"]), delimiter))
    if path is None:
        return None
    return label_names(str(path), delimiter, ImageNetDataset.find_class_names(dataset))


def _below(root: str, pool: Dataset) -> list[str]:
    """Return the paths of the pool, relative to `root`."""
    folder = os.path.abspath(root)
    names = []
    for index in range(len(pool)):
        name = os.path.relpath(os.path.abspath(pool.path(index)), folder)
        if name.startswith(os.pardir + os.sep):
            raise DataError(
                f"{pool.path(index)} does not lie below {root}, where paths of the training list start; "
                "move the pool there, or give a common folder with --image-root"
            )
        names.append(path_in_list(name))
    return names


def _teacher(arch: ArchSpec, asked: str | None) -> str:
    """Return the name of the teacher; ``""`` for a single network."""
    if not arch.children:
        if asked is not None:
            raise ConfigError(f"--network: {arch.name} is one network, there is no {asked!r} in it")
        return ""
    if asked is not None:
        if asked not in arch.names:
            raise ConfigError(f"--network: there is no {asked!r} in Arch.models.{hint(asked, arch.names)}")
        return asked
    frozen = [network.title for network in arch.children if network.frozen]
    if len(frozen) != 1:
        names = ", ".join(arch.names)
        raise ConfigError(f"--network: {len(frozen)} networks are frozen; choose one of {names}")
    return frozen[0]


def _network(engine: Engine, name: str) -> nn.Layer:
    """Return the teacher with weights, in eval mode."""
    weights = engine.globals.pretrained_model
    normalize = build.normalization(engine.config, "eval")
    model = build.build_trained_model(engine.arch, {name} if name else None, weights, "mining", normalize)
    with_convolutions_as_set(model, engine.globals)
    return model.infer_network(name) if name else model


def _check_classes(theirs: int, ours: int, class_map: Sequence[int] | None, options: Mining) -> None:
    if class_map is None and theirs != ours and options.label == "teacher":
        raise ConfigError(
            f"the teacher has {theirs} classes and the student {ours}; name a class_map in the loss of "
            "Loss.Train that compares them, or write no classes with --label zero"
        )


def _read(
    dataset: _Hashed, evaluation: DataSpec, title: str, report: MiningCounts | None = None
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield the batches of a dataset with their hashes; record unreadable images."""
    batch_size = int((evaluation.sampler or {})["batch_size"])
    loader = Loader(
        dataset,
        DistributedBatchSampler(batch_size),
        Share(len(dataset), seed=0, training=False),
        num_workers=evaluation.loader.num_workers,
        timeout=evaluation.loader.timeout,
    )
    bar = progress_bar(len(loader), title)
    try:
        for batch in loader.epoch(0):
            yield batch, dataset.take(batch.index)
            bar.update()
    finally:
        loader.close()
        bar.close()
    if report is not None:
        report.unreadable = {dataset.path(i): text for i, text in sorted(loader.skipped.items())}


def _hash_all(dataset: _Hashed, evaluation: DataSpec) -> tuple[HashIndex, np.ndarray]:
    """Return the hashes of the validation images, and the position of each in its dataset."""
    found = [(batch.index, hashes) for batch, hashes in _read(dataset, evaluation, "validation images")]
    LOGGER.info("%s: %d images, of which the list will hold no near-duplicates", dataset.name, len(dataset))
    return HashIndex(np.concatenate([h for _, h in found])), np.concatenate([i for i, _ in found])


def _probabilities(network: Callable[[paddle.Tensor], Any], images: np.ndarray) -> np.ndarray:
    """Return class probabilities, float32 [N, C]."""
    with paddle.no_grad():
        outputs = network(paddle.to_tensor(images))
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
        return np.asarray(nn.functional.softmax(logits.astype("float32"), axis=-1).numpy())


def _judge(
    index: np.ndarray,
    probabilities: np.ndarray,
    class_map: Sequence[int] | None,
    threshold: float,
    report: MiningCounts,
    found: _Found,
) -> None:
    """Add the images of a batch that reach the threshold to `found`, count the others."""
    ours = {c: c for c in range(probabilities.shape[1])}
    if class_map is not None:
        ours = {theirs: mine for mine, theirs in reversed(list(enumerate(class_map)))}
    for place, row in zip(index.tolist(), probabilities, strict=True):
        best = int(row.argmax())
        if best not in ours:
            report.foreign += 1
        elif row[best] < threshold:
            report.below += 1
        else:
            found.place.append(place)
            found.label.append(ours[best])
            found.probability.append(float(row[best]))


def _select(found: _Found, top_k: int | None, report: MiningCounts) -> list[int]:
    """Return the indices to keep: by class, the most probable first, ties in order of the pool."""
    labels = np.array(found.label, np.int64)
    order = np.lexsort((np.array(found.place), -np.array(found.probability), labels))
    kept: list[int] = []
    for label in np.unique(labels):
        members = order[labels[order] == label][:top_k].tolist()
        report.classes[int(label)] = len(members)
        kept += members
    report.kept = len(kept)
    report.beyond = len(labels) - len(kept)
    return kept
