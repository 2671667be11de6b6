"""Batches with and without labels: their order, their streams, and that it never matters who makes them."""

from __future__ import annotations

import logging
import threading
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import same_batches

from ppcls.data import DistributedBatchSampler, RASampler, Share, build_dataset, build_train_loader
from ppcls.data.unlabelled import Endless, labelled_rows
from ppcls.errors import DataError

SMALL = st.integers(1, 9)
CROP = [{"DecodeImage": None}, {"RandCropImage": {"size": 16}}, {"RandFlipImage": None}]


def stream(sampler, length, steps, epochs, world=1):
    """Samples and repetitions of some epochs, all processes together, batch by batch."""
    batches = []
    for epoch in range(1, epochs + 1):
        plans = [
            Endless(sampler, steps).batches(Share(length, 7, rank, world), epoch) for rank in range(world)
        ]
        assert all(len(plan) == steps for plan in plans)
        for parts in zip(*plans, strict=True):
            assert all(len(part.index) == sampler.batch_size for part in parts)
            batches.append(
                [
                    pair
                    for part in parts
                    for pair in zip(part.index.tolist(), part.repeat.tolist(), strict=True)
                ]
            )
    return batches


@given(length=st.integers(1, 30), batch=SMALL, steps=SMALL, epochs=st.integers(1, 4))
def test_the_list_is_gone_through_pass_after_pass(length, batch, steps, epochs):
    batches = stream(DistributedBatchSampler(batch, shuffle=True), length, steps, epochs)
    everything = [index for part in batches for index, _ in part]
    for start in range(0, len(everything) - length + 1, length):
        assert sorted(everything[start : start + length]) == list(range(length))
    for epoch in range(epochs):
        seen = [key for part in batches[epoch * steps : (epoch + 1) * steps] for key in part]
        assert len(set(seen)) == len(seen)  # no stream serves twice
        assert max(Counter(i for i, _ in seen).values()) <= -(-len(seen) // length) + 1


@given(length=st.integers(1, 30), batch=SMALL, steps=SMALL, world=st.integers(2, 4))
def test_unlabelled_images_do_not_depend_on_the_processes(length, batch, steps, world):
    for kind in (lambda b: DistributedBatchSampler(b, shuffle=True), RASampler):
        assert stream(kind(batch), length, steps, 2, world) == stream(kind(batch * world), length, steps, 2)


@given(labelled=SMALL, unlabelled=SMALL, world=st.integers(1, 4))
def test_rows_of_processes_stand_as_in_one(labelled, unlabelled, world):
    rows = labelled_rows(labelled, unlabelled)
    assert (rows.sum(), len(rows)) == (labelled, labelled + unlabelled)
    assert np.array_equal(np.tile(rows, world), labelled_rows(labelled * world, unlabelled * world))


@pytest.fixture
def folder(tmp_path):
    """14 labelled and 9 unlabelled images; labels of the second list are nonsense."""
    rng = np.random.default_rng(0)
    for number in range(23):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{n}.png {n % 5}\n" for n in range(14)))
    (tmp_path / "unlabelled.txt").write_text("".join(f"{n}.png 21840\n" for n in range(14, 23)))
    return tmp_path


def nodes(folder, workers=2, batch=4, more=6, drop_last=False, sampler="DistributedBatchSampler", **second):
    def part(name, size, options):
        return {
            "dataset": {
                "name": "ImageNetDataset",
                "image_root": str(folder),
                "cls_label_path": str(folder / name),
                "transform_ops": [*CROP, {"NormalizeImage": {"order": ""}}],
                **options,
            },
            "sampler": {"name": sampler, "batch_size": size, "drop_last": drop_last},
            "loader": {"num_workers": workers},
        }

    return {"Train": part("list.txt", batch, {}), "UnLabelTrain": part("unlabelled.txt", more, second)}


def run(config, epoch=1, start=0, seed=5):
    loader = build_train_loader(config, seed=seed, class_num=5)
    try:
        assert loader.first_image().shape == (3, 16, 16)
        return list(loader.epoch(epoch, start))
    finally:
        loader.close()


def test_labels_belong_to_the_labelled_rows(folder):
    config = nodes(folder)
    loader = build_train_loader(config, seed=5, class_num=5)
    batches = list(loader.epoch(1))
    assert [len(batch.index) for batch in batches] == [10, 10, 10, 8]  # 14 = 4 + 4 + 4 + 2, and 6 each
    for batch in batches:
        known = batch.index[batch.labelled]
        assert (known < 14).all()
        assert (np.delete(batch.index, batch.labelled) >= 14).all()
        assert batch.label.ravel().tolist() == (known % 5).tolist()
        for row in batch.labelled:
            image, _ = loader.dataset.sample(int(batch.index[row]), 1, 5)
            np.testing.assert_array_equal(batch.image[row], image)
        assert [loader.path(int(i)) for i in batch.index] == [str(folder / f"{i}.png") for i in batch.index]
    unlabelled = [i for batch in batches for i in np.delete(batch.index, batch.labelled)]
    assert sorted(unlabelled[:9]) == sorted(unlabelled[9:18]) == list(range(14, 23))
    loader.close()


@pytest.mark.parametrize("sampler", ["DistributedBatchSampler", "RASampler", "ClassAwareSampler"])
def test_threads_and_resuming_change_nothing(folder, sampler):
    alone = run(nodes(folder, workers=0, sampler=sampler), epoch=2)
    assert same_batches(alone, run(nodes(folder, workers=3, sampler=sampler), epoch=2))
    assert same_batches(alone[3:], run(nodes(folder, sampler=sampler), epoch=2, start=3))
    assert not same_batches(alone, run(nodes(folder, sampler=sampler), epoch=3))


@pytest.mark.parametrize("sampler", ["DistributedBatchSampler", "RASampler", "ClassAwareSampler"])
def test_repeated_samples_are_augmented_differently(folder, sampler):
    (folder / "list.txt").write_text("3.png 0\n" * 8)
    batches = run(nodes(folder, batch=8, sampler=sampler))
    images = batches[0].image[batches[0].labelled]
    assert len({image.tobytes() for image in images}) >= 6  # of eight crops and flips


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ("0 1 2 3 4 0 0 0 0", None),
        ("0 0 0 0 0 0 0 0 0", "all are 0 here"),
        ("cat dog cat dog cat dog cat dog cat", "all are 0 here"),
        ("0 1 2 3 4 5 0 0 0", "go up to 5, but class_num is 5"),
    ],
)
@pytest.mark.parametrize("sampler", ["DistributedBatchSampler", "ClassAwareSampler"])
def test_only_a_sampler_by_labels_reads_them(folder, caplog, labels, warning, sampler):
    lines = [f"{number}.png {label}\n" for number, label in enumerate(labels.split(), 14)]
    (folder / "unlabelled.txt").write_text("".join(lines))
    with caplog.at_level(logging.WARNING, "ppcls"):
        batches = run(nodes(folder, sampler=sampler))
    assert all(batch.label.max() < 5 for batch in batches)
    texts = [record.getMessage() for record in caplog.records if "UnLabelTrain" in record.getMessage()]
    assert len(texts) == (sampler == "ClassAwareSampler" and warning is not None)
    assert all(warning in text for text in texts)


def test_two_processes_see_what_one_sees(folder, monkeypatch):
    alone = run(nodes(folder, batch=4, more=6, drop_last=True))
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
        parts.append(run(nodes(folder, batch=2, more=3, drop_last=True)))
    for whole, first, second in zip(alone, *parts, strict=True):
        np.testing.assert_array_equal(whole.image, np.concatenate([first.image, second.image]))
        np.testing.assert_array_equal(whole.index, np.concatenate([first.index, second.index]))
        np.testing.assert_array_equal(whole.label, np.concatenate([first.label, second.label]))
        np.testing.assert_array_equal(
            whole.labelled, np.concatenate([first.labelled, second.labelled + len(first.index)])
        )


def test_a_list_smaller_than_a_batch_is_repeated(folder):
    (folder / "unlabelled.txt").write_text("20.png 0\n21.png 0\n")
    batch = run(nodes(folder, more=6, drop_last=True))[0]
    assert Counter(np.delete(batch.index, batch.labelled).tolist()) == {14: 3, 15: 3}


def test_images_must_be_alike(folder):
    config = nodes(folder, transform_ops=[{"DecodeImage": None}, {"CropImage": {"size": 18}}])
    loader = build_train_loader(config, seed=5, class_num=5)
    with pytest.raises(DataError, match=r"UnLabelTrain.dataset gives images \(3, 18, 18\).*must end alike"):
        loader.first_image()
    with pytest.raises(DataError, match="must end alike"):
        next(loader.epoch(1))
    loader.close()


def test_threads_last_for_the_run_and_no_batch_is_dropped_on_any_platform(folder, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    loader = build_train_loader({"Train": nodes(folder)["Train"]}, seed=5, class_num=5)
    names = []
    for epoch in (1, 2, 3):
        batches = list(loader.epoch(epoch))
        assert sorted(i for batch in batches for i in batch.index) == list(range(14))
        assert len(batches[-1].index) == 2
        names.append({t.ident for t in threading.enumerate() if t.name.startswith("ppcls-loader")})
    assert len(names[0]) == 2
    assert names[0] == names[1] == names[2]
    loader.close()


def test_batch_transforms_never_see_labels_that_are_none(folder, monkeypatch):
    from ppcls.registry import BATCH_OPS

    def op():
        def spoil(image, label, rng):
            assert label.max() < 5
            return image + 1000, label + 3

        return spoil

    monkeypatch.setitem(BATCH_OPS._items, "Spoil", op)
    plain, spoilt = run(nodes(folder)), run(nodes(folder, batch_transform_ops=[{"Spoil": None}]))
    for a, b in zip(plain, spoilt, strict=True):
        np.testing.assert_array_equal(a.label, b.label)
        np.testing.assert_array_equal(a.image[a.labelled], b.image[b.labelled])
        assert np.delete(b.image, b.labelled, axis=0).min() > 500


@pytest.mark.parametrize("name", ["FolderDataset", "ImageNetDataset"])
def test_flat_folders_and_bare_paths_are_enough(tmp_path, name):
    folder = tmp_path / "pool"
    (folder / "deep").mkdir(parents=True)
    for place, path in enumerate(["a b.PNG", "c.png", "deep/d.png"]):
        cv2.imwrite(str(folder / path), np.full((8, 8, 3), place, np.uint8))
    (tmp_path / "list.txt").write_text("a b.PNG\nc.png -1\ndeep/d.png cat\n")
    options = {"image_root": str(folder)}
    if name == "ImageNetDataset":
        options["cls_label_path"] = str(tmp_path / "list.txt")
    dataset = build_dataset({"name": name, **options}, "UnLabelTrain")
    assert sorted(dataset.path(index) for index in range(3)) == [
        str(folder / path) for path in ("a b.PNG", "c.png", "deep/d.png")
    ]
    with pytest.raises(DataError):
        build_dataset({"name": name, **options}, "Train", 2)
