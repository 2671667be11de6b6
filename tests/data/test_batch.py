"""Batches of 8-bit pixels: the values of networks are those of the transforms, bit by bit, on every way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls.data import Batch, Loader, Transform, build_loader, image_tensor, transfer
from ppcls.data.rng import SampleNumbers, sample_rng
from ppcls.errors import DataError
from ppcls.registry import TRANSFORMS

COUNT = 10
NORMALIZE = {"NormalizeImage": {"order": ""}}
HEAD = [{"DecodeImage": None}, {"RandCropImage": {"size": [14, 16]}}, {"RandFlipImage": None}]


@TRANSFORMS.register()
class FloatsAtTimes(Transform):
    """Gives some images as floats, which are normalised by arithmetic and not by looking up."""

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        return image.astype(np.float32) if rng.integers(2) else image


@TRANSFORMS.register()
class Backwards(Transform):
    """Gives a view that goes backwards through the memory of an image."""

    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        return image[::-1, ::-1, ::-1]


@TRANSFORMS.register()
class Doubled(Transform):
    def __call__(self, image: Any, rng: np.random.Generator) -> Any:
        return image * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of different sizes and list.txt."""
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    (tmp_path / "list.txt").write_text("\n".join(f"{n}.png {n % 3}" for n in range(COUNT)))
    return tmp_path


def loader(folder: Path, ops: list[Any], mixing: list[Any] | None = None, **options: Any) -> Loader:
    config = {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": ops,
            "batch_transform_ops": mixing,
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": 4, "shuffle": True},
        "loader": {"num_workers": 0, **options},
    }
    return build_loader(config, "Train", seed=3, class_num=3)


def batches_of(loader: Loader) -> list[Batch]:
    found = list(loader.epoch(1))
    loader.close()
    return found


def ending(*more: Any, **options: Any) -> list[Any]:
    """Return a chain that ends in a normalisation, except for what follows."""
    return [*HEAD, {"NormalizeImage": {"order": "", **options}}, *more]


ERASE = {"RandomErasing": {"EPSILON": 1, "mode": "pixel"}}
GRAY = {"mean": [0.5], "std": [0.2]}
# Chains, and whether batches hold 8-bit pixels; None: as the first image decides.
CHAINS: dict[str, tuple[list[Any], bool | None]] = {
    "usual": (ending(), True),
    "with ToCHWImage": (ending({"ToCHWImage": None}), True),
    "gray": ([{"DecodeImage": {"channels": 1}}, *ending(**GRAY)[1:]], True),
    "one mean": (ending(**GRAY), True),
    "more channels": (ending(channel_num=4), True),
    "half": (ending(output_fp16=True), True),
    "half, more channels": (ending(output_fp16=True, channel_num=5), True),
    "no scale": (ending(scale=1, mean=[1, 2, 3], std=[7, 8, 9]), True),
    "view": ([*HEAD, {"Backwards": None}, NORMALIZE], True),
    "policy": ([*HEAD, {"RandAugment": None}, NORMALIZE], True),
    "erased before": ([*HEAD, ERASE, NORMALIZE], True),
    "channels first": ([*HEAD, {"ToCHWImage": None}, {"NormalizeImage": {"order": "chw"}}], False),
    "erased after": (ending(ERASE), False),
    "plug-in after": (ending({"ToCHWImage": None}, {"Doubled": None}), False),
    "not normalised": ([*HEAD, {"ToCHWImage": None}], False),
    "floats": ([*HEAD, {"Doubled": None}, {"FloatsAtTimes": None}, NORMALIZE], None),
}


@pytest.mark.parametrize("name", CHAINS)
def test_images_are_those_of_the_transforms(folder: Path, name: str) -> None:
    ops, in_pixels = CHAINS[name]
    own = loader(folder, ops, num_workers=3)
    for by_tensor in (False, True):
        for batch in batches_of(own):
            if in_pixels is not None:
                assert (batch.pixels is not None) == in_pixels
            expected = np.stack([own.dataset.sample(int(index), 1, 3)[0] for index in batch.index])
            tensor = image_tensor(batch) if by_tensor else None
            if batch.pixels is not None:
                assert batch.pixels.levels.dtype == np.uint8
                assert batch.pixels.shape == expected.shape
                on_device = transfer.normalise_on_device(paddle.to_tensor(batch.pixels.levels), batch.pixels)
                np.testing.assert_array_equal(on_device.numpy(), expected)
            found = batch.image if tensor is None else tensor.numpy()
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize(
    "ops",
    [
        HEAD[1:],
        [{"RandCropImage": {"size": 9, "interpolation": "random"}}, {"RandomRotation": None}, HEAD[2]],
        [{"ResizeImage": {"resize_short": 24}}, {"CropImage": {"size": [23, 47]}}, HEAD[2]],
        [{"CropImage": {"size": [18, 38]}}, HEAD[2]],  # too large, had the images not been turned
    ],
)
def test_images_that_are_turned_when_they_are_decoded(tmp_path: Path, backend: str, ops: list[Any]) -> None:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        exif = Image.Exif()
        exif[0x0112] = 6
        pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg", exif=exif)
    (tmp_path / "list.txt").write_text("\n".join(f"{n}.jpg 0" for n in range(COUNT)))
    own = loader(tmp_path, [{"DecodeImage": {"backend": backend}}, *ops, NORMALIZE])
    for batch in batches_of(own):
        expected = np.stack([own.dataset.sample(int(index), 1, 3)[0] for index in batch.index])
        np.testing.assert_array_equal(batch.image, expected)


def test_an_image_too_small_for_a_crop_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"0.png \(sample 0\): CropImage: the image is 30x20, smaller than"):
        batches_of(loader(folder, [HEAD[0], {"CropImage": {"size": [30, 21]}}, NORMALIZE]))


def test_transforms_of_batches_get_normalised_images(folder: Path) -> None:
    plain = batches_of(loader(folder, [*HEAD, NORMALIZE]))
    nothing = [{"OpSampler": {"MixupOperator": {"prob": 0}}}]
    for batch, mixed in zip(plain, batches_of(loader(folder, [*HEAD, NORMALIZE], nothing)), strict=True):
        assert mixed.pixels is None
        np.testing.assert_array_equal(mixed.image, batch.image)


def test_a_tensor_is_made_once_and_follows_changes_of_the_array(folder: Path) -> None:
    batch = batches_of(loader(folder, [*HEAD, NORMALIZE]))[0]
    tensor = image_tensor(batch)
    assert image_tensor(batch) is tensor
    before = tensor.numpy().copy()
    batch.image[0] = 7
    assert (image_tensor(batch).numpy()[0] == 7).all()
    np.testing.assert_array_equal(image_tensor(batch).numpy()[1:], before[1:])
    batch.image = before + 1
    np.testing.assert_array_equal(image_tensor(batch).numpy(), before + 1)
    np.testing.assert_array_equal(tensor.numpy(), before)


def test_an_image_of_another_shape_is_named_in_a_batch_of_pixels(folder: Path) -> None:
    for ops in ([{"DecodeImage": None}], [{"DecodeImage": None}, {"FloatsAtTimes": None}]):
        with pytest.raises(DataError, match=r"\d.png \(sample \d\): the transforms give an image of shape"):
            batches_of(loader(folder, [*ops, NORMALIZE]))


def test_the_batches_of_a_cpu_are_not_changed_on_their_way() -> None:
    batches = iter([1, 2])
    assert transfer.ahead(batches) is batches  # type: ignore[comparison-overlap, arg-type]


class FakeCopies:
    """Notes what is asked of a GPU."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def send(self, batch: int) -> FakeCopies.Sent:
        self.notes.append(f"send {batch}")
        return self.Sent(batch, self.notes)

    class Sent:
        def __init__(self, batch: int, notes: list[str]) -> None:
            self.batch = batch
            self.notes = notes

        def arrived(self) -> int:
            self.notes.append(f"use {self.batch}")
            return self.batch

        def wait(self) -> None:
            self.notes.append(f"free {self.batch}")


def numbers(count: int, notes: list[str]) -> Iterator[int]:
    try:
        yield from range(count)
    finally:
        notes.append("closed")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_batches_are_sent_one_ahead_and_their_memory_is_kept(count: int) -> None:
    copies = FakeCopies()
    notes = copies.notes
    found = []
    for batch in transfer.copied_ahead(numbers(count, notes), copies):  # type: ignore[arg-type]
        found.append(batch)
        assert f"send {min(found[-1] + 1, count - 1)}" in notes  # type: ignore[operator]
        assert not {f"free {batch}", f"free {batch + 1}"} & set(notes)  # type: ignore[operator]
    assert found == list(range(count))
    assert [note for note in notes if note.startswith("send")] == [f"send {n}" for n in range(count)]
    assert sorted(note for note in notes if note.startswith("free")) == [f"free {n}" for n in range(count)]
    assert notes.count("closed") == 1


def test_a_consumer_that_leaves_early_ends_the_epoch() -> None:
    copies = FakeCopies()
    batches = transfer.copied_ahead(numbers(9, copies.notes), copies)  # type: ignore[arg-type]
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert copies.notes[-1] == "closed"
    assert {"free 0", "free 1"} <= set(copies.notes)


def test_borrowed_numbers_are_those_of_the_sample() -> None:
    def some(rng: np.random.Generator) -> list[float]:
        return [rng.random(), float(rng.integers(1 << 40)), float(rng.integers(7)), float(rng.integers(7))]

    for what in [(0, 0, 0), (2**63 + 5, 3, 2**39), (7, 2**19, 11), (1, 2, 3, 4)]:
        numbers = SampleNumbers(*what)
        expected = some(sample_rng(*what))
        assert some(numbers.generator()) == expected
        for _ in range(2):
            rng = numbers.borrow()
            assert some(rng) == expected
            rng.integers(3)  # half of a number that was drawn is left over
