"""What `ppcls init` sees in a user's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import ConfigError, DataError, show
from ppcls.project.looking import equal_groups, look_at_both, near_pairs
from ppcls.project.sources import Part, Source, find_source, require_outside
from ppcls.project.split import stratified_split

DEFAULT_VAL = 0.2
_SHOWN = 5
# From this ratio on between the most frequent and the rarest class, a note says so.
_UNBALANCED = 10.0


@dataclass
class DataSummary:
    """The data of a project, and what was seen in them.

    Attributes:
        source: what the data are.
        train: images of training.
        val: images of validation.
        class_names: names by class.
        counts: images of each class, of training and of validation, int64 [2, C].
        size: median of width and height of the images that were looked at.
        looked_at: number of images that were decoded, of training and of validation.
        gray: share of images without colours.
        unreadable: reasons, by file, of the images that were looked at and cannot be read.
        equal: pairs of files (validation, training) with the same bytes.
        near: (file of validation, file of training, differing bits of 255) of images nearly the same.
        notes: sentences about what else is worth knowing.
        named: whether the class names are those of the data.
    """

    source: Source
    train: Part
    val: Part
    class_names: list[str]
    counts: np.ndarray
    size: tuple[int, int]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    looked_at: tuple[int, int]
    gray: float
    unreadable: dict[str, str] = field(default_factory=dict)
    equal: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    named: bool = True

    @property
    def class_num(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def short_side(self) -> int:
        """The shorter side of an image of median size."""
        return min(self.size)

    def describe(self) -> str:
        """Return the findings as lines of text."""
        counts = self.counts.sum(axis=0)
        rarest, commonest = int(counts.argmin()), int(counts.argmax())
        names = ", ".join(self.class_names[:_SHOWN])
        more = f" and {self.class_num - _SHOWN} more" if self.class_num > _SHOWN else ""
        (low_w, low_h), (high_w, high_h) = self.sizes
        looked = sum(self.looked_at)
        total = len(self.train) + len(self.val)
        of_all = "all" if looked == total else f"{looked} of {total}"
        size = f"{self.size[0]} x {self.size[1]} pixels"
        if (low_w, low_h) != (high_w, high_h):
            size += f" in the middle, from {low_w} x {low_h} to {high_w} x {high_h}"
        colours = "no colours" if self.gray == 1 else "colours"
        if 0 < self.gray < 1:
            colours += f", {self.gray:.0%} of them gray"
        spread = f"{counts[rarest]} images each"
        if counts[rarest] < counts[commonest]:
            spread = (
                f"from {counts[rarest]} images ({self.class_names[rarest]}) to {counts[commonest]} "
                f"({self.class_names[commonest]})"
            )
        lines = [
            f"{self.source.kind}: {len(self.train)} images to train on, {len(self.val)} to validate with",
            f"{self.class_num} classes ({names}{more}); {spread}",
            f"images ({of_all} looked at): {size}; {colours}",
        ]
        if self.unreadable:
            lines.append(
                f"cannot be read: {len(self.unreadable)} of the images looked at; replace or remove such "
                "files before training (`ppcls check-data` finds all), or set on_error: skip in the datasets"
            )
            lines += [f"  {file}: {why}" for file, why in list(self.unreadable.items())[:_SHOWN]]
        if self.equal:
            lines.append(f"in both parts, byte for byte: {len(self.equal)}")
            lines += [f"  {one} = {other}" for one, other in self.equal[:_SHOWN]]
        if self.near:
            lines.append(
                f"nearly the same as an image to train on: {len(self.near)} of {self.looked_at[1]} images to "
                "validate with; accuracies will look better than they are"
            )
            lines += [f"  {one} ~ {other}" for one, other, _ in self.near[:_SHOWN]]
        return "\n".join([*lines, *self.notes])


def inspect_data(
    path: str | Path,
    *,
    val: float = DEFAULT_VAL,
    seed: int = 0,
    image_root: str | Path | None = None,
    out: str | Path | None = None,
) -> DataSummary:
    """Find out what a folder, list or shards hold, and split them if they have no part for validation.

    Args:
        path: a folder of class folders, with or without parts such as ``train`` and ``val``; a list file with
            one line ``path label`` per image, or a folder that holds lists of both parts; or shards.
        val: share of each class that is set aside for validation, if the data have no such part.
        seed: of this split.
        image_root: folder that the paths in a list start from; by default that of the list.
        out: folder of the project to write, if there will be one; it is checked before images are read.

    Raises:
        ConfigError: for a share that is none, or if `out` lies among class folders.
        DataError: if the data cannot be trained on; the message says what was expected.
    """
    check_split(val, seed)
    source = find_source(path, image_root)
    if out is not None:
        require_outside(source, out)
    if source.val is not None and val != DEFAULT_VAL:
        source.notes.append(f"val {val:g} has no effect, because the data have a part for validation.")
    train, held = parts_of(source, val, seed)
    labels = [part.labels for part in (train, held)]
    count = max(int(part.max()) for part in labels) + 1
    names = source.class_names or [str(number) for number in range(count)]
    if len(names) < 2:
        raise DataError(f"{path}: only one class, {names[0]!r}; a classifier needs two classes or more")
    seen, other = look_at_both(train, held, seed)
    assert other is not None
    sizes = np.concatenate([seen.sizes, other.sizes])
    if not len(sizes):
        reason = next(iter(seen.unreadable.values()), "")
        raise DataError(f"{path}: none of the images looked at can be read; the first one: {reason}")
    middle = np.median(sizes, axis=0).astype(int).tolist()
    smallest, largest = (
        sizes[sizes.prod(axis=1).argmin()].tolist(),
        sizes[sizes.prod(axis=1).argmax()].tolist(),
    )
    summary = DataSummary(
        source,
        train,
        held,
        names,
        np.stack([np.bincount(part, minlength=len(names)) for part in labels]),
        (middle[0], middle[1]),
        ((smallest[0], smallest[1]), (largest[0], largest[1])),
        (len(seen.places) + len(seen.unreadable), len(other.places) + len(other.unreadable)),
        (seen.gray + other.gray) / len(sizes),
        {**seen.unreadable, **other.unreadable},
        named=source.class_names is not None,
    )
    if train.dataset is not held.dataset:  # a split keeps equal images together
        joined = _Joined(train, held)
        groups = equal_groups(joined, range(len(joined)))
        summary.equal = _in_both(groups, joined)
        source.notes += _two_labels(groups, joined.label, joined.path)
    byte_equal = {one for one, _ in summary.equal}
    summary.near = [pair for pair in near_pairs(train, held, seen, other) if pair[0] not in byte_equal]
    summary.notes = [*source.notes, *_notes(summary)]
    return summary


def check_split(val: float, seed: int) -> None:
    """Refuse a share of validation that is none, and a negative seed.

    Raises:
        ConfigError: if the share is not above 0 and below 1, or the seed is below 0.
    """
    is_number = isinstance(val, int | float)
    if not is_number or not 0 < val < 1:
        shown = f"{val:g}" if is_number else show(val)
        raise ConfigError(f"val: expected a share between 0 and 1, such as 0.2, got {shown}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"seed: expected a whole number of 0 or more, got {seed}")


def parts_of(source: Source, share: float, seed: int) -> tuple[Part, Part]:
    """Return both parts of the data; a part for validation that they lack is drawn.

    Raises:
        DataError: if there is no image to spare for validation.
    """
    if source.val is not None:
        return source.train, source.val
    dataset = source.train.dataset
    labels = source.train.labels
    equal = equal_groups(dataset, source.train.indices.tolist())
    split = stratified_split(labels, share, seed, equal)
    if not len(split.val):
        raise DataError(
            f"{source.root}: no class has two images or more, so there is nothing to validate with; add "
            "images, or give a folder val beside train"
        )
    source.notes += _two_labels(equal, dataset.label, dataset.path)
    if split.lacking:
        names = source.class_names or [str(number) for number in range(labels.max() + 1)]
        some = ", ".join(names[number] for number in split.lacking[:_SHOWN])
        source.notes.append(
            f"{len(split.lacking)} of the classes have a single image, which is for training; validation has "
            f"none of them: {some}."
        )
    return Part(dataset, split.train), Part(dataset, split.val)


def _in_both(groups: Sequence[Sequence[int]], joined: _Joined) -> list[tuple[str, str]]:
    """Return pairs of files (validation, training) with the same bytes."""
    pairs = []
    first = len(joined.train)
    for group in groups:
        if group[0] < first:
            pairs += [(joined.path(index), joined.path(group[0])) for index in group if index >= first]
    return pairs


def _two_labels(
    groups: Sequence[Sequence[int]], label: Callable[[int], int], path: Callable[[int], str]
) -> list[str]:
    """Return a sentence about equal images with different classes; none if there are none."""
    wrong = [group for group in groups if len({label(index) for index in group}) > 1]
    if not wrong:
        return []
    one = wrong[0][0]
    other = next(index for index in wrong[0] if label(index) != label(one))
    which = "image is" if len(wrong) == 1 else "images are"
    return [f"{len(wrong)} {which} in several classes, such as {path(one)} = {path(other)}."]


class _Joined:
    """Both parts as one sequence of files, training first."""

    def __init__(self, train: Part, val: Part) -> None:
        self.train = train
        self.val = val

    def __len__(self) -> int:
        return len(self.train) + len(self.val)

    def _at(self, index: int) -> tuple[Part, int]:
        inside = index < len(self.train)
        return (self.train, index) if inside else (self.val, index - len(self.train))

    def path(self, index: int) -> str:
        part, place = self._at(index)
        return part.path(place)

    def label(self, index: int) -> int:
        part, place = self._at(index)
        return part.dataset.label(int(part.indices[place]))

    def read(self, index: int) -> Any:
        part, place = self._at(index)
        return part.dataset.read(int(part.indices[place]))


def _notes(summary: DataSummary) -> list[str]:
    notes = []
    counts = summary.counts.sum(axis=0)
    present = counts[counts > 0]
    if len(present) and present.max() >= _UNBALANCED * present.min():
        notes.append(
            f"The classes are unbalanced ({present.max()} : {present.min()}); look at accuracies by class. "
            'The page "Samplers" of the documentation has a sampler that balances them.'
        )
    fewest = int(summary.counts[0].min())
    if fewest < 10:
        notes.append(
            f"Some classes have few images to train on ({fewest}); expect little, and begin with networks "
            "that were trained on ImageNet."
        )
    if not summary.named:
        notes.append(
            "The data have numbers as classes; write their names into class_names.txt of the project."
        )
    return notes
