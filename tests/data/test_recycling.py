"""Arrays of batches are filled again only when nobody can see them."""

from __future__ import annotations

import gc
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from ppcls.data import build_loader
from ppcls.data.recycling import Recycler

FLOAT = np.dtype(np.float32)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize(
    "hold",
    [
        lambda array: array,
        lambda array: array[1:, :2],
        lambda array: array.reshape(-1)[::3],
        lambda array: array.T.view(np.int32),
        lambda array: memoryview(array),
        lambda array: np.from_dlpack(array),
        lambda array: [{"deep": array[0]}],
        lambda array: iter(array),
    ],
    ids=["itself", "slice", "flat", "other type", "memoryview", "dlpack", "inside", "iterator"],
)
def test_an_array_is_not_filled_again_while_it_can_be_seen(hold) -> None:
    recycler = Recycler()
    first = recycler.take((3, 4), FLOAT)
    place = address(first)
    held = hold(first)
    del first
    second = recycler.take((3, 4), FLOAT)
    assert address(second) != place
    del held
    gc.collect()
    assert address(recycler.take((3, 4), FLOAT)) == place


def test_arrays_of_other_shapes_and_types_are_not_mixed_up() -> None:
    recycler = Recycler()
    for shape, dtype in (((2, 3), FLOAT), ((3, 2), FLOAT), ((2, 3), np.dtype(np.uint8)), ((2, 3), FLOAT)):
        found = recycler.take(shape, dtype)
        assert (found.shape, found.dtype) == (shape, dtype)


def test_a_forgotten_array_stays_with_its_holder() -> None:
    recycler = Recycler()
    held = recycler.take((2,), FLOAT)
    held[:] = 7
    recycler.clear()
    recycler.take((2,), FLOAT)[:] = 1
    assert held.tolist() == [7, 7]


def loader(folder: Path, workers: int):
    rng = np.random.default_rng(0)
    for number in range(12):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
    (folder / "list.txt").write_text("\n".join(f"{number}.png {number % 3}" for number in range(12)))
    config = {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": [
                {"DecodeImage": None},
                {"RandCropImage": {"size": 6}},
                {"NormalizeImage": {"order": ""}},
            ],
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": 2, "shuffle": True},
        "loader": {"num_workers": workers},
    }
    return build_loader(config, "Train", seed=0, class_num=3)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("keep", ["batch", "view", "tensor", "nothing"])
def test_batches_that_are_kept_do_not_change(tmp_path: Path, workers: int, keep: str) -> None:
    with_arrays = loader(tmp_path, workers)
    kept, copies = [], []
    for epoch in range(3):
        for batch in with_arrays.epoch(epoch):
            copies.append(batch.image.copy())
            kinds = {"batch": batch, "view": batch.image[:, 1:], "tensor": paddle.to_tensor(batch.image)}
            kept.append(kinds.get(keep))
            del batch, kinds
    with_arrays.close()
    for held, copy in zip(kept, copies, strict=True):
        if keep == "batch":
            np.testing.assert_array_equal(held.image, copy)
        elif keep == "view":
            np.testing.assert_array_equal(held, copy[:, 1:])
        elif keep == "tensor":
            np.testing.assert_array_equal(held.numpy(), copy)
    again = loader(tmp_path, 0)
    expected = [batch.image for epoch in range(3) for batch in again.epoch(epoch)]
    np.testing.assert_array_equal(copies, expected)


def test_batches_that_are_dropped_are_filled_again(tmp_path: Path) -> None:
    places = set()
    for batch in loader(tmp_path, 0).epoch(0):
        places.add(address(batch.image))
    assert len(places) <= 2
