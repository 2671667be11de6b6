"""Read all data of a recipe once, without network or weights: ``ppcls check-data``.

Threads read and transform every sample of ``DataLoader.Train``, ``UnLabelTrain`` and ``Eval``, as the first
epoch would. Problems that would stop a training are kept apart from those that are only worth knowing.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

import cv2
import numpy as np

from ppcls.config.schema import DataLoaderSpec, DataSpec
from ppcls.data import Dataset, ImageError, build_loader
from ppcls.data.headers import declared_size, oddities
from ppcls.data.pool import HungError, Note, Pool
from ppcls.data.transforms.decode import DecodeImage
from ppcls.errors import ConfigError, DataError, PpclsError
from ppcls.logger import progress_bar

PARTS = ("Train", "UnLabelTrain", "Eval")
HUGE = 50_000_000  # pixels; decoding takes half a second
_CHUNK = 32
_decode = DecodeImage(reduced=64)


@dataclass
class PartAudit:
    """What was found in one part of the data.

    Attributes:
        part: ``Train``, ``UnLabelTrain`` or ``Eval``.
        source: the list or folder.
        images: number of samples.
        seconds: time that reading took.
        stops: problems that would stop a training, as texts.
        unreadable: reasons by file.
        failed: messages of transforms that failed, by file.
        odd: unusual properties of files: for each kind, the details by file.
        class_images: number of images of each class; empty where labels are not used.
        repeated: files with the same bytes as an earlier one of this part: (file, earlier one).
        contradictions: those of `repeated` whose label is another.
    """

    part: str
    source: str = ""
    images: int = 0
    seconds: float = 0.0
    stops: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    odd: dict[str, dict[str, str]] = field(default_factory=dict)
    class_images: list[int] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    contradictions: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class DataAudit:
    """What was found in all parts.

    Attributes:
        parts: one entry per part, in order.
        leaked: images of ``Eval`` that training sees too, byte for byte: (file, file of training).
        class_names: names of the classes; None if they are not known.
        near: images of ``Eval`` that are nearly the same as one of training: (file, file of training, bits of
            255 in which their hashes differ). :func:`check_data` does not search for them.
        datasets: the parts that could be opened.
        mirrored: what is wrong if images of training are mirrored although classes differ in left and right.
        wrong_names: why those of ``Infer.PostProcess`` would stop a training; None if they would not.
    """

    parts: list[PartAudit]
    leaked: list[tuple[str, str]]
    class_names: list[str] | None = None
    near: list[tuple[str, str, int]] = field(default_factory=list)
    datasets: dict[str, Dataset] = field(default_factory=dict, repr=False)
    mirrored: str | None = None
    wrong_names: str | None = None

    @property
    def stops(self) -> list[str]:
        """Problems that would stop a training, each with the name of its part."""
        stops = [f"{part.part}: {text}" for part in self.parts for text in part.stops]
        return stops if self.wrong_names is None else [*stops, f"Infer.PostProcess: {self.wrong_names}"]


class _Scan:
    """The findings about each sample of a dataset; several threads fill them in."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.digests: list[bytes | None] = [None] * len(dataset)
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.unreadable: dict[int, str] = {}
        self.failed: dict[int, str] = {}
        self.odd: dict[int, dict[str, str]] = {}

    def look(self, start: int, stop: int, note: Note) -> None:
        """Read and transform the samples from `start` to before `stop`."""
        shapes: Counter[tuple[int, ...]] = Counter()
        for index in range(start, stop):
            note(index)
            try:
                image, _ = self.dataset.sample(index, 1, 0)
                content = self.dataset.read(index)
            except ImageError as error:
                self.unreadable[index] = str(error.__cause__ or error)
            except DataError as error:
                cause = error.__cause__
                kind = "" if isinstance(cause, PpclsError) else f"{type(cause).__name__}: "
                self.failed[index] = f"{kind}{cause}" if cause else str(error)
            else:
                shapes[image.shape] += 1
                self._describe(index, content, image)
        for shape, count in shapes.items():
            self.shapes[shape] += count

    def _describe(self, index: int, content: Any, image: np.ndarray) -> None:
        found = {}
        # The view may be a part of one colour; then the whole image decides.
        if all(np.ptp(channel) == 0 for channel in image) and is_constant(content):
            found["constant"] = "all pixels have the same colour"
        if isinstance(content, np.ndarray):
            if found:
                self.odd[index] = found
            self.digests[index] = blake2b(content.tobytes(), digest_size=16).digest()
            return
        self.digests[index] = blake2b(content, digest_size=16).digest()
        found |= oddities(content, self.dataset.path(index))
        width, height = declared_size(content) or (0, 0)
        if 2 * min(width, height) < min(image.shape[1:]):
            found["tiny"] = f"{width} x {height}, less than half of what the network sees"
        if width * height > HUGE:
            found["huge"] = f"{width} x {height}; slow to decode, shrink it beforehand"
        if found:
            self.odd[index] = found


def check_data(data: DataLoaderSpec, class_num: int, eval_names: Sequence[str] | None = None) -> DataAudit:
    """Read everything once.

    Args:
        data: the section ``DataLoader`` of a checked recipe.
        class_num: classes of the network.
        eval_names: names that the classes of ``Eval`` must have; None if they cannot be compared.

    Returns:
        the findings; mistakes in the data are among them, not raised.
    """
    cv2.setNumThreads(1)  # images are the parallel work here
    reports = []
    scans = {}
    for part in PARTS:
        node: DataSpec | None = data[part]
        if node is not None:
            report = PartAudit(part, source=_source(node))
            scan = _check_part(report, node, class_num, eval_names if part == "Eval" else None)
            reports.append(report)
            if scan is not None:
                scans[part] = scan
    seen: dict[bytes, str] = {}
    for part in ("UnLabelTrain", "Train"):
        if part in scans:
            seen |= {d: scans[part].dataset.path(i) for i, d in enumerate(scans[part].digests) if d}
    leaked = []
    if "Eval" in scans:
        path = scans["Eval"].dataset.path
        leaked = [(path(i), seen[d]) for i, d in enumerate(scans["Eval"].digests) if d and d in seen]
    return DataAudit(reports, leaked, datasets={part: scan.dataset for part, scan in scans.items()})


def is_constant(content: Any) -> bool:
    """Tell whether all pixels of an image have the same colour: a lens cap, an empty scan.

    Args:
        content: the bytes of a file that can be decoded, or an array [H, W, C].
    """
    if not isinstance(content, np.ndarray) or content.ndim == 1:
        content = _decode(content, np.random.default_rng(0))
    return bool((content == content[:1, :1]).all())


def _source(node: DataSpec) -> str:
    dataset = node.dataset or {}
    keys = ("cls_label_path", "data_file", "path", "image_root")
    return next((str(dataset[key]) for key in keys if dataset.get(key)), str(dataset.get("name")))


def _check_part(
    report: PartAudit, node: DataSpec, class_num: int, names: Sequence[str] | None
) -> _Scan | None:
    """Fill in the findings of one part; return its images by content, None if its list is wrong."""
    joined = report.part == "UnLabelTrain"
    unlabelled = joined or not node.labelled
    try:
        loader = build_loader(node, report.part, 0, class_num, 1 if joined else None, names)
    except (ConfigError, DataError) as error:
        report.stops.append(str(error))
        return None
    dataset = loader.dataset
    scan = _Scan(dataset)
    report.images = len(dataset)
    begin = time.perf_counter()
    hung = _scan(scan, loader.timeout, report.part)
    report.seconds = time.perf_counter() - begin
    _summarize(report, scan)
    if hung is not None:
        report.stops.append(hung)
    if not unlabelled:
        labels = np.array([dataset.label(index) for index in range(len(dataset))], np.int64)
        report.class_images = np.bincount(labels, minlength=class_num).tolist()
    _find_repeated(report, scan, unlabelled)
    return scan


def _scan(scan: _Scan, timeout: float, title: str) -> str | None:
    """Let threads look at all samples; return a message about a file that hangs, or None."""
    total = len(scan.dataset)
    pool = Pool(min(os.cpu_count() or 1, -(-total // _CHUNK)))
    bar = progress_bar(total, f"check {title}")
    starts = range(0, total, _CHUNK)
    jobs = [pool.submit(partial(scan.look, start, min(start + _CHUNK, total))) for start in starts]
    try:
        for job in jobs:
            pool.wait(job, timeout)
            bar.update(min(_CHUNK, total - bar.n))
    except HungError as error:
        names = ", ".join(scan.dataset.path(index) for index in sorted(set(error.args)))
        return f"no image was finished for {timeout:g} s (loader.timeout); reading hangs at: {names}"
    finally:
        bar.close()
        pool.close()
    return None


def _summarize(report: PartAudit, scan: _Scan) -> None:
    path = scan.dataset.path
    report.unreadable = {path(index): text for index, text in sorted(scan.unreadable.items())}
    report.failed = {path(index): text for index, text in sorted(scan.failed.items())}
    for index, kinds in sorted(scan.odd.items()):
        for kind, detail in kinds.items():
            report.odd.setdefault(kind, {})[path(index)] = detail
    unreadable = len(scan.unreadable)
    if unreadable == report.images:
        report.stops.append("no image can be read")
    elif unreadable and scan.dataset.on_error == "raise":
        verb = "image cannot" if unreadable == 1 else "images cannot"
        report.stops.append(
            f"{unreadable} {verb} be read; replace them, take them out of the data, or set on_error: skip"
        )
    if scan.failed:
        report.stops.append(f"transforms fail on {len(scan.failed)} images")
    if len(scan.shapes) > 1:
        counts = ", ".join(f"{list(shape)}: {count}" for shape, count in scan.shapes.most_common(3))
        report.stops.append(
            f"the transforms give images of {len(scan.shapes)} shapes ({counts}); end the chain with a crop "
            "or resize to a fixed size"
        )


def _find_repeated(report: PartAudit, scan: _Scan, unlabelled: bool) -> None:
    first: dict[bytes, int] = {}
    for index, digest in enumerate(scan.digests):
        if digest is None:
            continue
        earlier = first.setdefault(digest, index)
        if earlier == index:
            continue
        pair = (scan.dataset.path(index), scan.dataset.path(earlier))
        report.repeated.append(pair)
        if not unlabelled and scan.dataset.label(index) != scan.dataset.label(earlier):
            report.contradictions.append(pair)
