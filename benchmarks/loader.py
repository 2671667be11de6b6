"""Processor time of the loader beside that of decoding alone, on one core.

Photos of 500x375 pixels (JPEG, quality 90) are read, decoded, cropped at random to 224 and flipped by chance;
the loader hands them out as batches of 8-bit pixels. `+ tensor` adds their normalisation, into a tensor on
the CPU. "By hand" is the shortest loop that does the same work, without checks or messages, for this size
alone. All sides take turns, a batch each, so that other work on the machine disturbs them alike; printed are
medians, and medians of the ratios of neighbouring turns: the time of `cv2.imdecode` alone divided by that of
the side.

    python benchmarks/loader.py [--photos FOLDER] [--turns 40] [--batch 64]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

sys.path.insert(0, str(Path(__file__).parent))

from data import download_photos, make_images, open_loader

from ppcls.cpu.memory import keep_freed_memory
from ppcls.cpu.processor import processor_name
from ppcls.data import Batch, image_tensor, list_images
from ppcls.data.rng import sample_rng
from ppcls.data.transforms.geometry import RandCropImage

WIDTH, HEIGHT = 500, 375
SIZE = 224
DECODING = "cv2.imdecode alone"


def decode_exactly(content: bytes) -> Any:
    """Decode as DecodeImage does by default."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def decode_fast(content: bytes) -> np.ndarray:
    """Decode as DecodeImage does with the backend simplejpeg."""
    import simplejpeg

    pixels: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", fastdct=True, fastupsample=True)
    return pixels


class ByHand:
    """The same work in the shortest loop, which knows the size of the images before it reads them.

    Args:
        files: the images.
        batch: images of a batch.
        decode: decodes the content of a file.
    """

    def __init__(self, files: list[Path], batch: int, decode: Callable[[bytes], np.ndarray]) -> None:
        self.files = [str(file) for file in files]
        self.decode = decode
        self.box = RandCropImage(SIZE).box
        self.levels = np.empty((batch, 3, SIZE, SIZE), np.uint8)
        self.planes = [list(image) for image in self.levels]
        self.small = np.empty((SIZE, SIZE, 3), np.uint8)
        self.number = 0

    def __call__(self) -> None:
        """Prepare a batch."""
        numbers = range(self.number, self.number + len(self.levels))
        self.number = numbers.stop
        contents = []
        choices = []
        for number in numbers:
            with open(self.files[number % len(self.files)], "rb", buffering=0) as file:
                contents.append(file.read())
            rng = sample_rng(0, 0, number)
            choices.append((*self.box(WIDTH, HEIGHT, rng), rng.integers(2)))
        for content, choice, planes in zip(contents, choices, self.planes, strict=True):
            left, top, width, height, flipped = choice
            image = self.decode(content)
            cv2.resize(image[top : top + height, left : left + width], (SIZE, SIZE), dst=self.small)
            if flipped:
                cv2.flip(self.small, 1, dst=self.small)
            cv2.split(self.small, planes)


class Batches:
    """The loader, a batch at a time.

    Args:
        folder: with the images and their list.
        batch: images of a batch.
        backend: of DecodeImage.
    """

    def __init__(self, folder: Path, batch: int, backend: str) -> None:
        self.loader = open_loader(folder, 0, batch, backend)
        self.batches: Iterator[Batch] = iter(())
        self.epoch = 0

    def next(self) -> Batch:
        """Return the next batch of endless epochs."""
        while (batch := next(self.batches, None)) is None:
            self.batches = self.loader.epoch(self.epoch)
            self.epoch += 1
        return batch


def sides(folder: Path, files: list[Path], batch: int) -> dict[str, Callable[[], Any]]:
    """Return what is compared: functions that prepare a batch. Decoding alone comes first."""
    contents = [file.read_bytes() for file in files]
    turn = 0

    def decode_alone() -> None:
        nonlocal turn
        for place in range(turn, turn + batch):
            content = contents[place % len(contents)]
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        turn += batch

    exact = Batches(folder, batch, "cv2")
    found: dict[str, Callable[[], Any]] = {
        DECODING: decode_alone,
        "by hand": ByHand(files, batch, decode_exactly),
        "loader": exact.next,
        "loader + tensor": lambda: image_tensor(exact.next()),
    }
    if importlib.util.find_spec("simplejpeg"):
        fast = Batches(folder, batch, "simplejpeg")
        found |= {
            "simplejpeg by hand": ByHand(files, batch, decode_fast),
            "loader, simplejpeg": fast.next,
            "loader, simplejpeg + tensor": lambda: image_tensor(fast.next()),
        }
    return found


def measure(functions: dict[str, Callable[[], Any]], turns: int, batch: int) -> dict[str, list[float]]:
    """Return microseconds of processor time per image, of each function and turn; two are not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for number in range(turns + 2):
        for name in order:
            begin = time.process_time()
            functions[name]()
            if number >= 2:
                times[name].append((time.process_time() - begin) / batch * 1e6)
        order.append(order.pop(0))  # nobody always follows the same neighbour
    return times


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", help="a folder of photos to use instead of downloading some")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    paddle.device.set_device("cpu")
    cv2.setNumThreads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = list_images(options.photos) if options.photos else download_photos(folder)
        files = make_images(photos, folder, 8 * options.batch)
        times = measure(sides(folder, files, options.batch), options.turns, options.batch)
    print(f"{processor_name()}; OpenCV {cv2.__version__}")
    for side, values in times.items():
        ratios = [a / b for a, b in zip(times[DECODING], values, strict=True)]
        print(
            f"{side:28s} {statistics.median(values):6.0f} µs   from {min(values):5.0f}   "
            f"decoding alone / this: {statistics.median(ratios):.3f}"
        )


if __name__ == "__main__":
    main()
