"""Make the Fashion-MNIST files of this project from the four official idx files.

    python dataset/prepare_fashion_mnist.py SOURCE                # dataset/fashion_mnist.tar.xz, for the demo
    python dataset/prepare_fashion_mnist.py SOURCE --full FOLDER  # the other training images, as PNG files

`SOURCE` holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
``t10k-labels-idx1-ubyte`` (with or without ``.gz``), or is the unpacked Debian package:

    apt-get download dataset-fashion-mnist; dpkg-deb -x dataset-fashion-mnist_*.deb SOURCE

Each class is put into a fixed order, that of the SHA-256 of the image's official number, and cut into parts:

    part        images   from               list file
    labelled     1,000   official training  train_list.txt
    unlabelled  10,000   official training  train_list_unlabel.txt (every label written as 0)
    tune         2,000   official training  tune_list.txt     (only with --full)
    teacher     47,000   official training  teacher_list.txt  (only with --full)
    val          2,000   official test      val_list.txt

No image is in two parts. The same source gives the same pixels and lists everywhere, and the same archive
byte for byte with the same versions of Pillow, zlib and liblzma.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import lzma
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
TRAIN_PARTS = {"labelled": 1_000, "unlabelled": 10_000, "tune": 2_000, "teacher": 47_000}
VAL_IMAGES = 2_000
DEBIAN_FOLDER = "usr/share/datasets/fashion-mnist"
ARCHIVE = Path(__file__).with_name("fashion_mnist.tar.xz")
NOTICE = """\
These images and labels are a part of Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist,
re-encoded as PNG files without change of a pixel.

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction, including
without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read one idx file of unsigned bytes, gzipped or not: images [N, 28, 28] or labels [N].

    Raises:
        ValueError: the file is not an idx file of bytes, or is cut short.
        FileNotFoundError: neither spelling of the file exists.
    """
    path = folder / name
    data = path.read_bytes() if path.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * rank + int(np.prod(shape)):
        raise ValueError(f"{folder / name}: not a complete idx file of unsigned bytes")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def fixed_order(indices: np.ndarray, source: str) -> np.ndarray:
    """Order official image numbers by the SHA-256 of ``source/number``: the same for every NumPy version."""
    return np.array(sorted(indices, key=lambda i: hashlib.sha256(f"{source}/{i}".encode()).digest()))


def split(labels: np.ndarray, sizes: dict[str, int], source: str) -> dict[str, np.ndarray]:
    """Cut the images of each class into balanced parts; returns sorted official numbers by part."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in sizes}
    for label in range(len(CLASSES)):
        order = fixed_order(np.flatnonzero(labels == label), source)
        start = 0
        for name, size in sizes.items():
            parts[name].append(order[start : start + size // len(CLASSES)])
            start += size // len(CLASSES)
    return {name: np.sort(np.concatenate(chunks)) for name, chunks in parts.items()}


def png(pixels: np.ndarray) -> bytes:
    """Encode one grey image [H, W] as a small PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def part_files(source: str, images: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yield (``source/number.png``, file contents) of one part."""
    for number in numbers:
        yield f"{source}/{number:05d}.png", png(images[number])


def list_file(source: str, numbers: np.ndarray, labels: np.ndarray | None) -> str:
    """Return the lines ``path label`` of one part; label 0 throughout where the labels are withheld."""
    return "".join(f"{source}/{n:05d}.png {0 if labels is None else labels[n]}\n" for n in numbers)


def embedded_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the embedded set: texts first, then the images of its three parts."""
    train, train_labels = (
        read_idx(folder, "train-images-idx3-ubyte"),
        read_idx(folder, "train-labels-idx1-ubyte"),
    )
    test, test_labels = read_idx(folder, "t10k-images-idx3-ubyte"), read_idx(folder, "t10k-labels-idx1-ubyte")
    parts = split(train_labels, TRAIN_PARTS, "train")
    val = split(test_labels, {"val": VAL_IMAGES}, "val")["val"]
    labelled = list_file("train", parts["labelled"], train_labels)
    unlabelled = list_file("train", parts["unlabelled"], None)
    texts = {
        "LICENSE.txt": NOTICE,
        "label_list.txt": "".join(f"{i} {name}\n" for i, name in enumerate(CLASSES)),
        "train_list.txt": labelled,
        "train_list_unlabel.txt": unlabelled,
        "train_list_all.txt": labelled + unlabelled,
        "val_list.txt": list_file("val", val, test_labels),
    }
    for name, text in texts.items():
        yield name, text.encode()
    yield from part_files("train", train, np.sort(np.concatenate([parts["labelled"], parts["unlabelled"]])))
    yield from part_files("val", test, val)


def rest_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the parts that are not embedded: the teacher's part and the tuning part."""
    images, labels = read_idx(folder, "train-images-idx3-ubyte"), read_idx(folder, "train-labels-idx1-ubyte")
    parts = split(labels, TRAIN_PARTS, "train")
    for name in ("teacher", "tune"):
        yield f"{name}_list.txt", list_file("train", parts[name], labels).encode()
        yield from part_files("train", images, parts[name])


def write_archive(files: Iterator[tuple[str, bytes]], archive: Path) -> None:
    """Write the files below ``fashion_mnist/`` into a .tar.xz with neutral headers (no dates, no owners)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(f"fashion_mnist/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    archive.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def write_folder(files: Iterator[tuple[str, bytes]], folder: Path) -> None:
    """Write the files below `folder`."""
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of the idx files, or the unpacked Debian package")
    parser.add_argument(
        "--archive", type=Path, default=ARCHIVE, help="archive to write (default: %(default)s)"
    )
    parser.add_argument(
        "--full", type=Path, metavar="FOLDER", help="write the teacher and tune parts here instead"
    )
    options = parser.parse_args(arguments)
    source = options.source
    if (source / DEBIAN_FOLDER).is_dir():
        source = source / DEBIAN_FOLDER
    try:
        if options.full:
            write_folder(rest_files(source), options.full)
        else:
            write_archive(embedded_files(source), options.archive)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    target = options.full or options.archive
    print(f"wrote {target}" + ("" if options.full else f" ({target.stat().st_size / 1e6:.2f} MB)"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
