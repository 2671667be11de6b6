"""Batches of several image sizes: what they hold, against a count in NumPy, and what a run sees of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.data import MultiScaleDataset, MultiScaleSampler, Share, build_loader
from ppcls.errors import ConfigError

NORMALIZE = {"NormalizeImage": {"scale": 1 / 255, "mean": [0, 0, 0], "std": [1, 1, 1], "order": ""}}
CHAIN = [{"DecodeImage": None}, {"RandCropImage": {"size": 224, "interpolation": "bicubic"}}, NORMALIZE]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(23):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (40, 50, 3), np.uint8))
        lines.append(f"{number}.png {number % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def loader_node(images: Path, **sampler: object) -> dict[str, object]:
    dataset = {
        "name": "MultiScaleDataset",
        "image_root": str(images),
        "cls_label_path": str(images / "list.txt"),
        "transform_ops": CHAIN,
    }
    chosen = {"name": "MultiScaleSampler", "scales": [16, 32, [32, 24]], "first_bs": 6, "divided_factor": 8}
    return {"dataset": dataset, "sampler": {**chosen, **sampler}, "loader": {"num_workers": 2}}


def test_the_published_batch_sizes():
    """500 images of 160 x 160 fill what 125 images of 320 x 320 fill."""
    sampler = MultiScaleSampler([160, 192, 224, 288, 320], 500)
    assert sampler.choices == [
        ((160, 160), 500),
        ((192, 192), 347),
        ((224, 224), 255),
        ((288, 288), 154),
        ((320, 320), 125),
    ]
    assert MultiScaleSampler([[170, 100], 9000], 3).choices == [((160, 96), 3), ((8992, 8992), 1)]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 300),
    scales=st.lists(st.integers(8, 64), min_size=1, max_size=4),
    first_bs=st.integers(1, 20),
    world=st.integers(1, 3),
    seed=st.integers(0, 99),
    drop_last=st.booleans(),
)
def test_an_epoch_has_every_sample_once_and_one_size_a_batch(
    length, scales, first_bs, world, seed, drop_last
):
    sampler = MultiScaleSampler(scales, first_bs, divided_factor=8, drop_last=drop_last)
    full = {
        (side // 8 * 8,) * 2: max(int(first_bs * scales[0] ** 2 / (side // 8 * 8) ** 2), 1) for side in scales
    }
    shares = [Share(length, seed, rank, world) for rank in range(world)]
    counts = {sampler.count(share) for share in shares}
    assert len(counts) == 1
    for epoch in (1, 2):
        plans = [sampler.batches(share, epoch) for share in shares]
        assert {len(plan) for plan in plans} == counts
        seen: list[int] = []
        for number, parts in enumerate(zip(*plans, strict=True)):
            assert len({part.size for part in parts}) == 1
            assert len({len(part.index) for part in parts}) == 1
            images, size = len(parts[0].index), parts[0].size
            assert images == full[size] if number < len(plans[0]) - 1 or drop_last else images <= full[size]
            assert images > 0
            seen += [int(i) for part in parts for i in part.index]
        once, counted = np.unique(seen, return_counts=True)
        assert drop_last or len(once) == length
        assert len(seen) - len(once) < world
        assert not len(counted) or counted.max() <= 1 + (len(seen) - len(once))
        again = sampler.batches(shares[-1], epoch)
        assert [(d.size, d.index.tolist()) for d in again] == [(d.size, d.index.tolist()) for d in plans[-1]]


@pytest.mark.parametrize(("length", "batches"), [(4, 2), (5, 2), (3, 1), (6, 3)])
def test_only_a_batch_that_is_not_full_is_dropped(length, batches):
    share = Share(length, 0)
    assert MultiScaleSampler([8], 2, 8, drop_last=True).count(share) == batches
    assert MultiScaleSampler([8], 2, 8).count(share) == -(-length // 2)
    drawn = MultiScaleSampler([8], 2, 8, drop_last=True).batches(share, 1)
    assert [len(draws.index) for draws in drawn] == [2] * batches


def test_epochs_differ_in_the_order_of_sizes_and_samples_but_not_in_length():
    sampler, share = MultiScaleSampler([32, 64], 4), Share(500, 1)
    first, second = sampler.batches(share, 1), sampler.batches(share, 2)
    assert len(first) == len(second) == sampler.count(share)
    assert [d.size for d in first] != [d.size for d in second]
    assert sorted(d.size for d in first) == sorted(d.size for d in second)
    assert first[0].index.tolist() != second[0].index.tolist()
    other = MultiScaleSampler([32, 64], 4, seed=5)
    assert [d.size for d in other.batches(share, 1)] != [d.size for d in first]
    assert [d.index.tolist() for d in other.batches(share, 1)] == [
        d.index.tolist() for d in MultiScaleSampler([32, 64], 4).batches(Share(500, 5), 1)
    ]
    assert MultiScaleSampler([32, 64], 4, seed="None").seed is None
    sizes = [d.size for d in MultiScaleSampler([8, 8, 16], 1, 8).batches(Share(3000, 0), 1)]
    assert sizes.count((8, 8)) / len(sizes) == pytest.approx(2 / 3, abs=0.05)


def test_the_loader_gives_batches_of_the_sizes(images):
    loader = build_loader(loader_node(images), "Train", seed=1, class_num=3)
    plan = loader.sampler.batches(loader.share, 1)
    batches = list(loader.epoch(1))
    assert len(batches) == len(loader) == len(plan)
    assert len({draws.size for draws in plan}) > 1
    for draws, batch in zip(plan, batches, strict=True):
        width, height = draws.size
        assert batch.image.shape == (len(draws.index), 3, height, width)
        assert batch.index.tolist() == draws.index.tolist()
    assert loader.first_image().shape == (3, 224, 224)  # as the chain is written
    middle = list(loader.epoch(1, start_batch=1))[0]
    np.testing.assert_array_equal(middle.image, batches[1].image)
    processes = build_loader(
        {**loader_node(images), "loader": {"num_workers": 1, "use_processes": True}}, "Train", 1, 3
    )
    np.testing.assert_array_equal(next(processes.epoch(1)).image, batches[0].image)
    processes.close()
    loader.close()


def test_a_list_may_have_no_labels(images):
    (images / "paths.txt").write_text("".join(f"{number}.png\n" for number in range(23)), encoding="utf-8")
    node = loader_node(images)
    node["dataset"] |= {"cls_label_path": str(images / "paths.txt"), "labelled": False}
    loader = build_loader(node, "Train", seed=1, class_num=3)
    assert sum(len(batch.index) for batch in loader.epoch(1)) == 23
    loader.close()
    del node["dataset"]["labelled"]
    node["sampler"] = {"name": "BatchSampler", "batch_size": 5}
    unlabelled = build_loader(node, "UnLabelTrain", seed=1, class_num=3, steps=2)
    assert [len(batch.index) for batch in unlabelled.epoch(1)] == [5, 5]
    unlabelled.close()


def test_the_size_replaces_that_of_every_sized_transform(images):
    def chain(*ops):
        return MultiScaleDataset(str(images), str(images / "list.txt"), list(ops)).chain((48, 32)).ops

    resize, crop = chain(
        {"ResizeImage": {"resize_short": 256, "backend": "pil"}}, {"CropImage": {"size": 224}}
    )
    assert (resize.size, resize.resize_short) == ((48, 32), None)
    assert resize.resample.backend == "pil"
    assert (crop.width, crop.height) == (48, 32)
    decode, flip, last = chain({"DecodeImage": None}, {"RandFlipImage": None}, CHAIN[1])
    assert type(flip).__name__ == "RandFlipImage"
    assert last.size == (48, 32)
    assert last.resample.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first_bs": 0}, "first_bs: expected 1 or more"),
        ({"divided_factor": 0}, "divided_factor: expected 1 or more"),
        ({"is_training": False}, "is_training: only True"),
        ({"scales": []}, "at least one size"),
        ({"scales": [7]}, "7 x 7 is less than divided_factor, 8"),
        ({"scales": [[16, 8, 8]]}, r"numbers or \[width, height\]"),
        ({"scales": [0]}, "of 1 or more"),
    ],
)
def test_mistakes(images, options, words):
    with pytest.raises(ConfigError, match=words):
        build_loader(loader_node(images, **options), "Train", 0, 3)


def test_only_a_dataset_of_several_sizes_goes_with_the_sampler(images):
    node = loader_node(images)
    node["dataset"]["name"] = "ImageNetDataset"
    with pytest.raises(ConfigError, match="MultiScaleSampler needs MultiScaleDataset"):
        build_loader(node, "Train", 0, 3)
    with pytest.raises(ConfigError, match="training"):
        build_loader(loader_node(images), "Eval", 0, 3)
    node = loader_node(images)
    node["dataset"]["transform_ops"] = [{"DecodeImage": None}]
    with pytest.raises(ConfigError, match="needs one of RandCropImage"):
        build_loader(node, "Train", 0, 3)
    plain = build_loader(
        {**loader_node(images), "sampler": {"name": "BatchSampler", "batch_size": 5}}, "Eval", 0
    )
    assert next(plain.epoch(0)).image.shape == (5, 3, 224, 224)
    with pytest.raises(ConfigError, match="only MultiScaleDataset"):
        super(MultiScaleDataset, plain.dataset).chain((8, 8))
    plain.close()
