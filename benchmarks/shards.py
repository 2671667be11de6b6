"""Images a second from shards and from files: the same images, transforms and batches.

Crops of the photos of the tests, 32x32 PNG like those of CIFAR, are written once as class folders and once as
shards. The sides run interleaved in one process; printed are medians and the median of the ratios of
neighbouring measurements. `cold` drops everything from the page cache before each measurement, also the
entries of folders (Linux, as root); without these rights, the content of the files alone (posix_fadvise,
after a sync), as far as the system follows.

    python benchmarks/shards.py [--images 50000] [--rounds 5] [--workers 2] [--batch 128] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppcls.cpu.processor import processor_name
from ppcls.data import FolderDataset, build_loader
from ppcls.data.shard_writer import ShardOptions, write_shards

PHOTOS = Path(__file__).parents[1] / "tests" / "data" / "photos"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
TRANSFORMS = [
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"RandCropImage": {"size": 32}},
    {"RandFlipImage": {"flip_code": 1}},
    {"NormalizeImage": {"scale": "1.0/255.0", "order": ""}},
]


def make_images(folder: Path, count: int) -> None:
    """Write `count` crops of photos as 32x32 PNG in ten class folders."""
    photos = [photo for path in sorted(PHOTOS.glob("*.jpg")) if (photo := cv2.imread(str(path))) is not None]
    rng = np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(rng.integers(32, min(photo.shape[:2])))
        y = int(rng.integers(0, photo.shape[0] - side))
        x = int(rng.integers(0, photo.shape[1] - side))
        crop = cv2.resize(photo[y : y + side, x : x + side], (32, 32), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / str(number % 10) / f"{number:05d}.png"), crop)


def loader_of(dataset: dict[str, Any], workers: int, batch: int) -> Any:
    """Return a training loader of one side."""
    config = {
        "dataset": {**dataset, "transform_ops": TRANSFORMS},
        "sampler": {"name": "DistributedBatchSampler", "batch_size": batch, "shuffle": True},
        "loader": {"num_workers": workers},
    }
    return build_loader(config, "Train", 0, 10)


def epoch(loader: Any, number: int) -> float:
    """Return the images per second of one epoch."""
    begin = time.perf_counter()
    images = sum(len(batch.index) for batch in loader.epoch(number))
    return images / (time.perf_counter() - begin)


def reads(dataset: Any, order: np.ndarray) -> float:
    """Return how often a second bytes of an image are read, without decoding, on one thread."""
    begin = time.perf_counter()
    for index in order:
        dataset.read(int(index))
    return len(order) / (time.perf_counter() - begin)


def drop(folder: Path) -> str:
    """Drop the files of a folder from the page cache; return what was dropped."""
    try:
        DROP_CACHES.write_text("3")
        return "the whole page cache, and entries of folders"
    except OSError:
        pass
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
    return "the content of the files"


def compare(
    title: str, measure: Callable[[str, int], float], rounds: int, before: Callable[[], None] | None = None
) -> None:
    """Print medians of both sides and of their ratios; each side begins every other round."""
    found: dict[str, list[float]] = {"files": [], "shards": []}
    for number in range(rounds):
        for side in ("files", "shards") if number % 2 else ("shards", "files"):
            if before is not None:
                before()
            found[side].append(measure(side, number))
    ratios = [shards / files for files, shards in zip(found["files"], found["shards"], strict=True)]
    sides = ", ".join(f"{side} {statistics.median(values):,.0f}/s" for side, values in found.items())
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{title}: {sides}; shards/files {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--folder", help="where to write the images; the disk that is measured")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        run(root, args)
    finally:
        shutil.rmtree(root)


def run(root: Path, args: argparse.Namespace) -> None:
    """Write the images, and measure both sides."""
    make_images(root / "files", args.images)
    begin = time.perf_counter()
    done = write_shards(FolderDataset(str(root / "files")), root / "shards", ShardOptions())
    spent = time.perf_counter() - begin
    print(
        f"{processor_name()}, {os.cpu_count()} cores; {args.images} images of 32x32, {args.workers} workers"
    )
    print(f"written: {done.shards} shards, {done.size / args.images:.0f} bytes per image, {spent:.1f} s")
    places = {"files": root / "files", "shards": root / "shards"}
    loaders = {
        "files": loader_of(
            {"name": "FolderDataset", "image_root": str(places["files"])}, args.workers, args.batch
        ),
        "shards": loader_of(
            {"name": "ShardDataset", "path": str(places["shards"])}, args.workers, args.batch
        ),
    }
    one, other = (next(iter(loaders[side].epoch(1))) for side in loaders)
    assert np.array_equal(one.image, other.image) and np.array_equal(one.label, other.label)  # noqa: PT018
    for side in loaders:
        epoch(loaders[side], 0)
    compare("epochs, cached", lambda side, number: epoch(loaders[side], number + 1), args.rounds)
    order = np.random.default_rng(0).permutation(args.images)
    data = {side: loader.dataset for side, loader in loaders.items()}
    compare("reads, cached, one thread", lambda side, number: reads(data[side], order), args.rounds)
    if hasattr(os, "posix_fadvise"):
        os.sync()
        print(f"cold: dropped is {drop(root)}")

        def forget() -> None:
            drop(root)

        compare("epochs, cold", lambda side, number: epoch(loaders[side], number + 1), args.rounds, forget)
        compare("reads, cold, one thread", lambda side, number: reads(data[side], order), args.rounds, forget)
    for loader in loaders.values():
        loader.close()


if __name__ == "__main__":
    main()
