"""What long data cost before and while a run reads them: start, memory, time to find an image, sizes.

    python benchmarks/scale.py [--images 14197122] [--folder DIR]     # measure: some minutes, 5 GB of disk
    python benchmarks/scale.py --tables                               # only compute the tables of sizes

A list of so many images names 10,000 files again and again, so the search for the files is that for 10,000.
The index of shards describes shards of 1 GB whose images are holes (sparse files): what is measured is
finding and reading, without a disk. Each measurement runs in a process of its own, which prints its processor
time, which other work on the machine disturbs less, and its memory. The tables are computed from bytes that
were measured, see ``docs/scale.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ppcls.cpu.processor import processor_name

IMAGES = {"ImageNet-1k": 1_281_167, "ImageNet-21k": 14_197_122}
EPOCHS = 300
IMAGE_BYTES = 110_000  # a file of ImageNet, on average
SMALL_BYTES = 40_000  # the same with a shorter side of 256 pixels, quality 92
TAR_BYTES = 1800  # headers of image and label, and the rest of their blocks
SHARD_BYTES = 10**9
# Bytes for each image and view of 1000 classes, as benchmarks/store.py prints them.
STORED = {
    "sample, k 3": 10,
    "topk, k 3": 16,
    "topk, k 10": 44,
    "all, float16": 2004,
    "all, float16, feature of 2048": 6100,
}
VIEWS = (1, 30, 300)
GPUS = (8, 64)
RATES = (500, 1000, 2500)  # images in a second and GPU
_NAME_SUFFIX = ".JPEG"
_FILES = 10_000
_FOLDERS = 1000


# ---------------------------------------------------------------- what is measured


def memory() -> tuple[float, float]:
    """Return the memory of this process now and at its highest so far, in MB; mapped files not included."""
    pages = Path("/proc/self/statm").read_text().split()
    now = (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGESIZE") / 1e6
    return now, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measured(title: str, work: Callable[[], object], times: int = 1) -> object:
    """Run `work` and print its duration and memory."""
    before = memory()[0]
    begin = time.process_time()
    kept = work()
    passed = time.process_time() - begin
    now, highest = memory()
    unit = f"{passed:.2f} s" if times == 1 else f"{passed / times * 1e6:.1f} µs each"
    print(f"| {title} | {unit} | {now - before:,.0f} MB | {highest:,.0f} MB |", flush=True)
    return kept


def make_list(folder: Path, images: int) -> None:
    """Write a list of `images` lines that name 10,000 files."""
    names = []
    for number in range(_FILES):
        parent = folder / "images" / f"n{number % _FOLDERS:08d}"
        parent.mkdir(parents=True, exist_ok=True)
        name = f"n{number % _FOLDERS:08d}_{number:06d}{_NAME_SUFFIX}"
        (parent / name).touch()
        names.append(f"{parent.name}/{name} {number % _FOLDERS}\n")
    block = "".join(names)
    with (folder / "list.txt").open("w") as stream:
        for _ in range(images // _FILES):
            stream.write(block)
        stream.writelines(names[: images % _FILES])
    time.sleep(4)  # a list is only kept for the next run if its folders have not changed in the last seconds


def read_list(folder: Path, title: str) -> None:
    """Open the list as a run does, and draw from it."""
    from ppcls.data import ImageNetDataset

    dataset = measured(
        title, lambda: ImageNetDataset(str(folder / "images"), str(folder / "list.txt"), class_num=_FOLDERS)
    )
    assert isinstance(dataset, ImageNetDataset)
    places = np.random.default_rng(0).integers(0, len(dataset), 100_000).tolist()
    measured(
        "name and label of an image", lambda: [(dataset.path(p), dataset.label(p)) for p in places], 100_000
    )
    measured("fingerprint", dataset.fingerprint)
    measured("searching for images in a folder of runs", lambda: list(dataset.paths_with("ResNet18")))


def make_index(folder: Path, images: int) -> None:
    """Write the index of `images` images, and shards as sparse files with the headers that are checked."""
    from ppcls.data.shard_index import BLOCK, ROW, Shard, sample_key, shard_name, write_index

    step = BLOCK + -(-IMAGE_BYTES // BLOCK) * BLOCK + 2 * BLOCK  # header and image, header and label
    each = SHARD_BYTES // step
    numbers = np.arange(images)
    rows = np.zeros(images, ROW)
    rows["number"] = numbers
    rows["shard"] = numbers // each
    rows["offset"] = numbers % each * step + BLOCK
    rows["length"] = IMAGE_BYTES
    rows["label"] = numbers % _FOLDERS
    rows["crc32"] = zlib.crc32(bytes(IMAGE_BYTES))
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number in range(-(-images // each)):
        path = folder / shard_name(number)
        first = number * each
        last = min(first + each, images) - 1
        with path.open("wb") as stream:
            for index in (first, last):
                member = tarfile.TarInfo(f"{sample_key(index)}.jpg")
                member.size = IMAGE_BYTES
                stream.seek(int(rows["offset"][index]) - BLOCK)
                stream.write(member.tobuf(tarfile.USTAR_FORMAT))
            size = (last - first + 1) * step + 2 * BLOCK
            stream.truncate(size)
        shards.append(Shard(path, size, last - first + 1))

    def names() -> Iterator[str]:
        for number in range(images):
            yield f"n{number % _FOLDERS:08d}/n{number % _FOLDERS:08d}_{number:08d}{_NAME_SUFFIX}"

    write_index(folder, shards, rows, names(), numbered=True, checksums=True)


def read_index(folder: Path) -> None:
    """Open shards as a run does, and read images at any place."""
    from ppcls.data import ShardDataset

    dataset = measured("opening an index of shards", lambda: ShardDataset(str(folder), class_num=_FOLDERS))
    assert isinstance(dataset, ShardDataset)
    count = 20_000
    places = np.random.default_rng(0).integers(0, len(dataset), count).tolist()
    rows = dataset._index.rows
    measured("finding an image: shard, place, length", lambda: [rows[p].item() for p in places], count)
    measured("reading its bytes and their checksum", lambda: [len(dataset.read(p)) for p in places], count)


def draw_order(images: int) -> None:
    """Cut an epoch into the batches of one process."""
    from ppcls.data import ClassAwareSampler, DistributedBatchSampler, Share

    for processes in GPUS:
        share = Share(images, 1, 0, processes)
        work = partial(DistributedBatchSampler(128, shuffle=True).batches, share, 1)
        measured(f"order and batches of an epoch, one of {processes} processes", work)
    labels = np.arange(images) % _FOLDERS
    share = Share(images, 1, 0, 8, labels=labels)
    aware = ClassAwareSampler(128)
    measured("the same with ClassAwareSampler, one of 8", lambda: aware.batches(share, 1))


def open_store(folder: Path, images: int) -> None:
    """Describe a store of two views, filled by one process and by eight, and open it."""
    from ppcls.teacher.store import Store

    per_shard = (64 << 20) // STORED["topk, k 10"]
    for processes in (1, 8):
        place = folder / str(processes)
        place.mkdir(parents=True)
        (place / "manifest.json").write_text('{"format": 1}')
        for view in (1, 2):
            describe_view(place, view, images, processes, per_shard)
        title = f"opening a store of two views filled by {processes} process{'es' * (processes > 1)}"
        store = measured(title, partial(Store, place))
        assert isinstance(store, Store)
        measured("searching for missing entries of one view", partial(store.missing, 1, images))


def describe_view(
    place: Path, view: int, images: int, processes: int, per_shard: int, batch: int = 128
) -> None:
    """Write the descriptions of the shards of a view; the shards themselves are not opened."""
    for rank in range(processes):
        if processes == 1:
            starts = range(0, images, per_shard)
            shards = [[(start, min(per_shard, images - start))] for start in starts]
        else:
            first = range(rank * batch, images, processes * batch)
            runs = [(start, min(batch, images - start)) for start in first]
            most = per_shard // batch
            shards = [runs[start : start + most] for start in range(0, len(runs), most)]
        for runs in shards:
            stem = f"view-{view:05d}-{runs[0][0]:012d}"
            described = {"file": f"{stem}.npy", "view": view, "runs": runs, "size": 1, "crc32": "00000000"}
            (place / f"{stem}.json").write_text(json.dumps(described))


MEASUREMENTS: dict[str, Callable[[Path, int], None]] = {
    "make_list": lambda folder, images: make_list(folder, images),
    "read_list": lambda folder, images: read_list(folder, "reading and checking a list"),
    "read_list_again": lambda folder, images: read_list(folder, "reading it again, in the next run"),
    "make_index": lambda folder, images: make_index(folder / "shards", images),
    "read_index": lambda folder, images: read_index(folder / "shards"),
    "draw_order": lambda folder, images: draw_order(images),
    "open_store": lambda folder, images: open_store(folder / "store", images),
}


# ---------------------------------------------------------------- tables


def shown(size: float) -> str:
    """Return bytes as text with three digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} TB"


def print_tables() -> None:
    """Print sizes of stores and shards, and what a run reads in a second."""
    print(
        "\n| bytes for each image and view | "
        + " | ".join(f"{n}, {v} view{'s' * (v > 1)}" for n in IMAGES for v in VIEWS)
        + " |"
    )
    print("|---" * (1 + len(IMAGES) * len(VIEWS)) + "|")
    for name, size in STORED.items():
        sizes = [shown(size * count * views) for count in IMAGES.values() for views in VIEWS]
        print(f"| {name}: {size} | " + " | ".join(sizes) + " |")
    print("\n| data | " + " | ".join(f"{name} ({count:,})" for name, count in IMAGES.items()) + " |")
    print("|---" * (1 + len(IMAGES)) + "|")
    rows: dict[str, Callable[[int], str]] = {
        "files or shards as they are, 110 KB an image": lambda n: shown(n * (IMAGE_BYTES + TAR_BYTES)),
        "shards, shorter side 256, 40 KB": lambda n: shown(n * (SMALL_BYTES + TAR_BYTES)),
        "shards of 1 GB (as they are)": lambda n: f"{-(-n * (IMAGE_BYTES + TAR_BYTES) // SHARD_BYTES):,}",
        "shards of 1 GB (256)": lambda n: f"{-(-n * (SMALL_BYTES + TAR_BYTES) // SHARD_BYTES):,}",
        "index of the shards: 36 bytes and the name": lambda n: shown(n * (36 + 33)),
    }
    for name, text in rows.items():
        print(f"| {name} | " + " | ".join(text(count) for count in IMAGES.values()) + " |")
    print(
        "\n| GPUs | images/s of each | images, as they are | images, 256 | topk, k 10 | all, float16 | "
        + " | ".join(f"{EPOCHS} epochs of {name}" for name in IMAGES)
        + " |"
    )
    print("|---" * (6 + len(IMAGES)) + "|")
    for gpus in GPUS:
        for rate in RATES:
            speed = gpus * rate
            read = (IMAGE_BYTES, SMALL_BYTES, STORED["topk, k 10"], STORED["all, float16"])
            cells = [f"{shown(size * speed)}/s" for size in read]
            durations = [f"{EPOCHS * count / speed / 3600:,.0f} h" for count in IMAGES.values()]
            print(f"| {gpus} | {rate:,} | " + " | ".join([*cells, *durations]) + " |")


def main() -> None:
    """Measure everything, or print the tables alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES["ImageNet-21k"])
    parser.add_argument("--folder", type=Path, help="where the data are made; default: a temporary folder")
    parser.add_argument("--tables", action="store_true", help="only compute the tables")
    parser.add_argument("--only", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        MEASUREMENTS[args.only](args.folder, args.images)
        return
    if not args.tables:
        print(f"{args.images:,} images; {processor_name()}, {len(os.sched_getaffinity(0))} cores")
        print(
            "\n| | processor time | memory it keeps | largest memory of the process |\n|---|---|---|---|",
            flush=True,
        )
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            for name in MEASUREMENTS:
                command = [sys.executable, __file__, "--only", name, "--folder", folder]
                environment = {**os.environ, "PPCLS_HOME": folder}
                subprocess.run([*command, "--images", str(args.images)], check=True, env=environment)
    print_tables()


if __name__ == "__main__":
    main()
