"""Images a second: our loader beside cv2.imdecode alone and Paddle's DataLoader on the same transforms.

Photos of 500x375 pixels (JPEG, quality 90) are decoded, cropped at random to 224, flipped by chance and
normalised. They are made from the photos in the wheel foolbox 3.3.4, which pip downloads into a temporary
folder, or from a folder of your own. The sides run interleaved in one process; printed are medians and the
medians of the ratios of neighbouring measurements. With simplejpeg installed our loader is measured with it,
too.

    python benchmarks/data.py [--photos FOLDER] [--rounds 7] [--images 1280] [--workers 2] [--batch 64]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

from ppcls.cpu.memory import keep_freed_memory
from ppcls.cpu.processor import processor_name
from ppcls.data import Dataset, Loader, build_loader, image_tensor, list_images

PHOTOS = "foolbox==3.3.4"
TRANSFORMS = [
    {"RandCropImage": {"size": 224}},
    {"RandFlipImage": {"flip_code": 1}},
    {"NormalizeImage": {"scale": "1.0/255.0", "order": ""}},
]


def download_photos(folder: Path) -> list[str]:
    """Fetch the wheel with the photos and return their paths."""
    command = [sys.executable, "-m", "pip", "download", PHOTOS, "--no-deps", "-q", "-d", str(folder)]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"pip cannot download {PHOTOS}; without a network give a folder: --photos FOLDER")
    with zipfile.ZipFile(next(folder.glob("foolbox-*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if "/data/imagenet_" in name]
        wheel.extractall(folder, names)
    return [str(folder / name) for name in names]


def make_images(photos: list[str], folder: Path, count: int) -> list[Path]:
    """Write each photo once as a 500x375 JPEG, and a list that names them in turn, `count` lines."""
    files = []
    for number, photo in enumerate(photos):
        picture = cv2.imread(photo)
        if picture is None:
            sys.exit(f"{photo} is no image that OpenCV reads")
        files.append(folder / f"{number}.jpg")
        small = cv2.resize(picture, (500, 375), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(files[-1]), small, [cv2.IMWRITE_JPEG_QUALITY, 90])
    lines = [f"{files[n % len(files)].name} {n % 10}" for n in range(count)]
    (folder / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    return files


class AsPaddleDataset(paddle.io.Dataset):
    """Our samples, prepared by our transforms, for Paddle's DataLoader."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self.dataset.sample(index, 0, 0)
        return image, np.array([label])


def open_loader(folder: Path, workers: int, batch: int, backend: str) -> Loader:
    """Return our loader of the images in `folder`."""
    config = {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": [{"DecodeImage": {"backend": backend}}, *TRANSFORMS],
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": batch, "shuffle": True},
        "loader": {"num_workers": workers},
    }
    return build_loader(config, "Train", seed=0, class_num=10)


def sides(folder: Path, files: list[Path], count: int, workers: int, batch: int) -> dict[str, Any]:
    """Return what is compared: functions that go through `count` images once. Decoding alone comes first."""
    ours = open_loader(folder, workers, batch, "cv2")
    theirs = paddle.io.DataLoader(
        AsPaddleDataset(ours.dataset),
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        use_shared_memory=True,
        persistent_workers=True,
    )
    contents = [file.read_bytes() for file in files]
    pool = ThreadPoolExecutor(workers)

    def decode(number: int) -> Any:
        return cv2.imdecode(np.frombuffer(contents[number % len(contents)], np.uint8), cv2.IMREAD_COLOR)

    def run(loader: Loader) -> None:
        for found in loader.epoch(0):
            image_tensor(found), paddle.to_tensor(found.label)

    functions: dict[str, Any] = {
        f"cv2.imdecode alone, threads: {workers}": lambda: sum(
            image is None for image in pool.map(decode, range(count))
        ),
        f"our loader, threads: {workers}": lambda: run(ours),
    }
    if importlib.util.find_spec("simplejpeg"):
        fast = open_loader(folder, workers, batch, "simplejpeg")
        functions["the same with simplejpeg"] = lambda: run(fast)
    return functions | {f"paddle.io.DataLoader, processes: {workers}": lambda: [None for _ in theirs]}


def measure(functions: dict[str, Callable[[], Any]], rounds: int, count: int) -> dict[str, list[float]]:
    """Return images a second of each function and round; a first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if number:
                rates[name].append(count / (time.perf_counter() - begin))
    return rates


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", help="a folder of photos to use instead of downloading some")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    paddle.device.set_device("cpu")
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = list_images(options.photos) if options.photos else download_photos(folder)
        files = make_images(photos, folder, options.images)
        functions = sides(folder, files, options.images, options.workers, options.batch)
        rates = measure(functions, options.rounds, options.images)
    decoding = next(iter(rates.values()))
    print(processor_name())
    for side, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, decoding, strict=True))
        print(
            f"{side:34s} {statistics.median(values):6.0f} img/s   {min(values):.0f} to {max(values):.0f}   "
            f"{ratio:.2f} of decoding alone"
        )


if __name__ == "__main__":
    main()
