"""Compare threads and processes of the loader (`loader.use_processes`), chain by chain.

The built-in chains decode JPEG photos of 500x375 pixels, crop them to 224 and augment them; OpenCV, Pillow
and NumPy release Python's lock while they work. The last chains add a transform in pure Python, as a plugin
may have one: it holds the lock, so that threads take turns. Both loaders prepare the same batches, in turns
in one process. Printed are medians of images per second, and the median of the ratios of neighbouring
measurements.

    python benchmarks/loader_processes.py [--photos FOLDER] [--rounds 5] [--images 256] [--workers 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import python_transform  # noqa: F401 - registers SlowScratch
from data import make_images

from ppcls.data import build_loader, list_images

PHOTOS = Path(__file__).parents[1] / "tests" / "data" / "photos"
HEAD = [{"DecodeImage": {"to_rgb": True, "channel_first": False}}, {"RandCropImage": {"size": 224}}]
TAIL = [{"RandFlipImage": {"flip_code": 1}}, {"NormalizeImage": {"order": ""}}]
CHAINS: dict[str, list[dict[str, Any]]] = {
    "crop and flip": [],
    "AutoAugment": [{"AutoAugment": None}],
    "RandAugment": [{"RandAugment": None}],
    "TimmAutoAugment": [{"TimmAutoAugment": {"config_str": "rand-m9-mstd0.5-inc1", "img_size": 224}}],
    "ColorJitter": [{"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}}],
    "pure Python, 5 ms": [{"SlowScratch": {"points": 30_000}}],
    "pure Python, 1 ms": [{"SlowScratch": {"points": 6_000}}],
}


def loaders(folder: Path, ops: list[dict[str, Any]], workers: int) -> list[Any]:
    """Return the loader with threads and the one with processes."""
    node = {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": [*HEAD, *ops, *TAIL],
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": 64, "shuffle": True},
    }
    kinds = [{"num_workers": workers, "use_processes": processes} for processes in (False, True)]
    return [build_loader({**node, "loader": kind}, "Train", seed=0, class_num=10) for kind in kinds]


def measure(loader: Any, epoch: int, count: int) -> float:
    """Return images per second over one epoch."""
    begin = time.perf_counter()
    for _ in loader.epoch(epoch):
        pass
    return count / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", default=str(PHOTOS), help="a folder of photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{'chain':20s} {'threads':>9s} {'processes':>9s}   processes / threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(list_images(options.photos), folder, options.images)
        for chain, ops in CHAINS.items():
            both = loaders(folder, ops, options.workers)
            rates: list[list[float]] = [[], []]
            for number in range(options.rounds + 1):  # the first round starts threads and processes
                for loader, found in zip(both, rates, strict=True):
                    rate = measure(loader, number, options.images)
                    if number:
                        found.append(rate)
            for loader in both:
                loader.close()
            ratio = statistics.median(b / a for a, b in zip(*rates, strict=True))
            threads = statistics.median(rates[0])
            processes = statistics.median(rates[1])
            print(f"{chain:20s} {threads:9.0f} {processes:9.0f}   {ratio:.2f}")


if __name__ == "__main__":
    main()
