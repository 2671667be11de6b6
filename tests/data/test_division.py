"""Batches of other processes, divided among those of now: every step keeps its images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ppcls.data import ClassAwareSampler, DistributedBatchSampler, RASampler, Share, build_train_loader
from ppcls.data import loader as loader_module
from ppcls.data.division import divide

COUNT = 22


def draws_of(sampler, share, world):
    return [sampler.batches(replace(share, rank=rank, world_size=world), 2) for rank in range(world)]


def steps_of(plans, update_freq):
    """Return the (sample, repetition) pairs of each step, all processes together."""
    starts = range(0, len(plans[0]), update_freq)
    return [
        sorted(
            pair
            for plan in plans
            for draws in plan[start : start + update_freq]
            for pair in zip(draws.index.tolist(), draws.repeat.tolist(), strict=True)
        )
        for start in starts
    ]


@given(
    kind=st.sampled_from(["plain", "repeated", "classes"]),
    length=st.integers(20, 70),
    batch=st.integers(1, 8),
    former=st.integers(1, 6),
    now=st.integers(1, 6),
    update_freq=st.integers(1, 4),
    drop_last=st.booleans(),
)
def test_every_step_keeps_its_images(kind, length, batch, former, now, update_freq, drop_last):
    sampler = {
        "plain": DistributedBatchSampler(batch, drop_last, shuffle=True),
        "repeated": RASampler(batch, drop_last),
        "classes": ClassAwareSampler(batch, drop_last),
    }[kind]
    share = Share(length, 7, labels=np.arange(length) % 3)
    whole = draws_of(sampler, share, former)
    assume(whole[0])
    sizes = [len(draws.index) for draws in whole[0]]
    division = divide(former, now, update_freq, sizes)
    if former * batch % now and update_freq == 1 and len(sizes) > 1:
        assert division is None
    if former % now == 0:
        assert division is not None
        assert division.parts == 1
    assume(division is not None)
    plans = [
        division.plan(rank, {p: whole[p] for p in division.former_processes(rank)}) for rank in range(now)
    ]
    assert len({tuple(len(draws.index) for draws in plan) for plan in plans}) == 1  # they exchange gradients
    assert [len(plan) for plan in plans] == [len(division)] * now
    found = steps_of(plans, division.accumulated(update_freq))
    expected = steps_of(whole, update_freq)
    assert found[:-1] == expected[:-1]
    assert set(found[-1]) == set(expected[-1])
    if sizes[-1] % division.parts == 0:
        assert found[-1] == expected[-1]  # otherwise parts of the last batch overlap
    for done in range(0, len(sizes) + 1, update_freq):
        if done % division.together == 0:
            assert division.former_batch(division.numbered(done)) == done


@pytest.fixture
def section(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    (tmp_path / "list.txt").write_text("\n".join(f"{n}.png {n % 4}" for n in range(COUNT)))

    def part(batch_size):
        return {
            "dataset": {
                "name": "ImageNetDataset",
                "image_root": str(tmp_path),
                "cls_label_path": str(tmp_path / "list.txt"),
                "transform_ops": [
                    {"DecodeImage": None}, {"RandCropImage": {"size": 8}}, {"NormalizeImage": {"order": ""}}
                ],
                "batch_transform_ops": [{"MixupOperator": {"alpha": 0.8}}],
            },
            "sampler": {"name": "DistributedBatchSampler", "batch_size": batch_size, "shuffle": True},
            "loader": {"num_workers": 0},
        }  # fmt: skip

    return part


def as_process(monkeypatch, rank, world):
    for module in ("ppcls.data", loader_module.__name__):
        monkeypatch.setattr(f"{module}.rank", lambda: rank)
    monkeypatch.setattr("ppcls.data.world_size", lambda: world)


@pytest.mark.parametrize("with_unlabelled", [False, True])
def test_one_process_takes_the_batches_of_two_in_turn(section, monkeypatch, with_unlabelled):
    """With the same augmentation and the same mixing, bit by bit."""
    config = {"Train": section(4)}
    if with_unlabelled:
        config["UnLabelTrain"] = section(2)
    former = []
    for rank in (0, 1):
        as_process(monkeypatch, rank, 2)
        former.append(list(build_train_loader(config, 5, 4).epoch(3)))
    as_process(monkeypatch, 0, 1)
    loader = build_train_loader(config, 5, 4, former=2)
    assert loader.division is not None
    found = list(loader.epoch(3, start_batch=loader.division.numbered(1)))
    expected = [batch for both in zip(*former, strict=True) for batch in both][2:]
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label, other.label)


def test_two_processes_cut_the_batches_of_one(section, monkeypatch):
    config = {"Train": section(4), "UnLabelTrain": section(2)}
    for part in config.values():
        part["dataset"]["batch_transform_ops"] = []
    whole = list(build_train_loader(config, 5, 4).epoch(1))
    parts = []
    for rank in (0, 1):
        as_process(monkeypatch, rank, 2)
        parts.append(list(build_train_loader(config, 5, 4, former=1).epoch(1)))
    for batch, *both in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch.index, np.concatenate([one.index for one in both]))
        np.testing.assert_array_equal(batch.image, np.concatenate([one.image for one in both]))
        np.testing.assert_array_equal(batch.label, np.concatenate([one.label for one in both]))
    as_process(monkeypatch, 0, 3)
    assert build_train_loader(config, 5, 4, former=1).division is None
