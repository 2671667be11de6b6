"""Look at some images of two parts: sizes, colours, damage, and images that occur twice."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import cv2
import numpy as np

from ppcls.data import ImageError
from ppcls.data.headers import declared_size
from ppcls.data.near_duplicates import HashIndex, perceptual_hash
from ppcls.data.transforms.decode import DecodeImage
from ppcls.project.sources import Part

# How far the hashes of two images may differ, of 255 bits, to be called nearly the same. Pairs of test and
# training images of CIFAR-10 are the same picture up to 60 bits, but outlines on a plain ground, as in
# Fashion-MNIST, already collide from 34 bits on. `ppcls mine` rather leaves out too much, from 50 bits on.
NEAR = 30
_MOST_TRAIN = 18_000
_MOST_VAL = 2_000
_FEWEST = 200
# What is decoded altogether, in pixels; large JPEG files are decoded at a part of their size.
_PIXELS = 200e6
_SHRUNK_TO = 256
_TRIAL = 64
_CHUNK = 16
# Files of equal size are read to find equal ones, at most so many bytes altogether.
_BYTES = 2_000_000_000
_decode = DecodeImage(reduced=_SHRUNK_TO)
_unused = np.random.default_rng(0)


@dataclass
class Look:
    """What was seen of one part.

    Attributes:
        sizes: width and height of the images that were looked at, int64 [M, 2].
        gray: how many of them have no colours.
        unreadable: reasons, by file.
        places: the places in the part of those with a hash, int64 [K].
        hashes: int8 [K, 255].
    """

    sizes: np.ndarray
    gray: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hashes: np.ndarray = field(default_factory=lambda: np.zeros((0, 255), np.int8))


def look_at(part: Part, most: int, seed: int) -> Look:
    """Decode up to `most` images of a part, drawn with a seed; fewer if they are large."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(part))
    cv2.setNumThreads(1)  # images are the parallel work here
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:

        def some(places: Sequence[int]) -> list[Any]:
            chunks = [places[start : start + _CHUNK] for start in range(0, len(places), _CHUNK)]
            found = pool.map(lambda chunk: [_look_at_one(part, place) for place in chunk], chunks)
            return [row for rows in found for row in rows]

        rows = some(order[:_TRIAL].tolist())
        cost = np.mean([row[4] for row in rows]) if rows else 0.0
        budget = int(max(_PIXELS / max(cost, 1.0), _FEWEST))
        rows += some(order[_TRIAL : min(most, budget)].tolist())
    seen = [row for row in rows if row[1] is None]
    return Look(
        np.array([row[2] for row in seen], np.int64).reshape(-1, 2),
        sum(row[3] for row in seen),
        {part.path(row[0]): row[1] for row in sorted(rows, key=lambda row: row[0]) if row[1] is not None},
        np.array([row[0] for row in seen], np.int64),
        np.array([row[5] for row in seen], np.int8).reshape(-1, 255),
    )


def _look_at_one(part: Part, place: int) -> tuple[int, str | None, tuple[int, int], bool, int, Any]:
    """Return place, problem, size, whether it has no colours, pixels that were decoded, hash."""
    try:
        content = part.dataset.read(int(part.indices[place]))
        pixels = content if getattr(content, "ndim", 1) == 3 else _decode(content, _unused)
    except ImageError as error:
        return place, str(error), (0, 0), False, 0, None
    size = declared_size(content) if isinstance(content, bytes | memoryview) else None
    height, width, depth = pixels.shape
    gray = depth == 1 or bool(
        (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all()
    )
    return place, None, size or (width, height), gray, height * width, perceptual_hash(pixels)


def look_at_both(train: Part, val: Part | None, seed: int) -> tuple[Look, Look | None]:
    """Look at both parts, see :func:`look_at`."""
    held = None if val is None else look_at(val, _MOST_VAL, seed)
    return look_at(train, _MOST_TRAIN, seed), held


def near_pairs(train: Part, val: Part, seen: Look, held: Look) -> list[tuple[str, str, int]]:
    """Return the looked-at images of `val` that are nearly the same as one of `train`.

    Returns:
        (file of validation, file of training, bits that differ), the most similar first. Images without
        any structure, such as plain areas, are left out, because all of them have equal hashes.
    """
    if not len(seen.hashes) or not len(held.hashes):
        return []
    index = HashIndex(seen.hashes)
    pairs = []
    for start in range(0, len(held.hashes), 500):
        block = held.hashes[start : start + 500]
        distances, which = index.nearest(block)
        for offset in np.flatnonzero(distances <= NEAR).tolist():
            if abs(int(block[offset].astype(np.int64).sum())) > 250:
                continue
            mine = val.path(int(held.places[start + offset]))
            pairs.append((mine, train.path(int(seen.places[which[offset]])), int(distances[offset])))
    return sorted(pairs, key=lambda pair: (pair[2], pair[0]))


class Files(Protocol):
    """Files by number, such as those of a dataset."""

    def path(self, index: int) -> str:
        """Return the path of a file."""

    def read(self, index: int) -> Any:
        """Return its content."""


def equal_groups(dataset: Files, indices: Sequence[int]) -> list[list[int]]:
    """Return groups of samples with the same bytes.

    Only files that have the same size are read, and no more than 2 GB of them.

    Returns:
        groups of two or more of `indices`, in ascending order.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for index in indices:
        size = _size(dataset, index)
        if size:
            by_size[size].append(index)
    budget = _BYTES
    groups = []
    for size, members in sorted(by_size.items()):
        if len(members) < 2:
            continue
        budget -= size * len(members)
        if budget < 0:
            break
        equal: dict[bytes, list[int]] = defaultdict(list)
        for index in members:
            equal[_digest(dataset, index)].append(index)
        groups += [group for key, group in equal.items() if key and len(group) > 1]
    return sorted(groups)


def _size(dataset: Files, index: int) -> int:
    try:
        return os.stat(dataset.path(index)).st_size
    except (OSError, ValueError):
        return 0  # of a shard, or a file that cannot be read


def _digest(dataset: Files, index: int) -> bytes:
    try:
        return blake2b(dataset.read(index), digest_size=16).digest()
    except ImageError:
        return b""
