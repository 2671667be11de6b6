"""Batches: complete, the same in every process, and equal to those of one process together."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import ClassAwareSampler, DistributedBatchSampler, RASampler, Share
from ppcls.data.rng import batch_rng, order_rng, sample_rng
from ppcls.data.sampler import repeats
from ppcls.errors import ConfigError
from ppcls.registry import SAMPLERS

LENGTH, BATCH, WORLD = st.integers(1, 60), st.integers(1, 9), st.integers(1, 5)
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)
# Every registered sampler that shuffles, by (batch_size, drop_last).
SHUFFLING = st.sampled_from(
    [
        lambda batch, drop=False: DistributedBatchSampler(batch, drop, shuffle=True),
        lambda batch, drop=False: RASampler(batch, drop),
        lambda batch, drop=False: RASampler(batch, drop, num_repeats=5),
        lambda batch, drop=False: ClassAwareSampler(batch, drop),
    ]
)


def plans(sampler, length, world, training, epoch=0, labels=None):
    labels = np.arange(length) % 4 if labels is None else labels
    shares = [Share(length, 7, rank, world, training, labels) for rank in range(world)]
    found = [sampler.batches(share, epoch) for share in shares]
    assert [len(plan) for plan in found] == [sampler.count(share) for share in shares]
    for draws in (draws for plan in found for draws in plan):
        assert draws.index.dtype == draws.repeat.dtype == np.int64
        assert len(draws.index) == len(draws.repeat)
    return found


def keys(plan):
    """What decides the pixels of a sample, in the order of a plan."""
    return [key for draws in plan for key in zip(draws.index.tolist(), draws.repeat.tolist(), strict=True)]


@given(length=LENGTH, batch=BATCH, world=WORLD, shuffle=st.booleans())
def test_evaluation_counts_every_sample_once(length, batch, world, shuffle):
    found = plans(DistributedBatchSampler(batch, shuffle=shuffle), length, world, training=False)
    everything = np.concatenate([draws.index for plan in found for draws in plan])
    assert sorted(everything) == list(range(length))
    shares = [sum(len(draws.index) for draws in plan) for plan in found]
    assert max(shares) - min(shares) <= 1
    assert all(1 <= len(draws.index) <= batch for plan in found for draws in plan)


@given(length=LENGTH, batch=BATCH, world=WORLD, drop_last=st.booleans(), sampler=SHUFFLING)
def test_training_gives_every_process_equal_batches(length, batch, world, drop_last, sampler):
    found = plans(sampler(batch, drop_last), length, world, training=True)
    sizes = [[len(draws.index) for draws in plan] for plan in found]
    assert all(row == sizes[0] for row in sizes)
    count = sum(map(sum, sizes))
    if drop_last:
        assert count == length // (batch * world) * batch * world
    else:
        assert count - length == (-length % world if length % (batch * world) else 0)


@given(length=LENGTH, batch=BATCH, world=WORLD, drop_last=st.booleans(), shuffle=st.booleans())
def test_the_plain_sampler_leaves_out_and_repeats_nothing(length, batch, world, drop_last, shuffle):
    found = plans(DistributedBatchSampler(batch, drop_last, shuffle), length, world, training=True)
    everything = [index for plan in found for index, _ in keys(plan)]
    if drop_last:
        assert len(set(everything)) == len(everything)
    else:
        assert set(everything) == set(range(length))
    assert not any(repeat for plan in found for _, repeat in keys(plan))  # its streams are those of old


@given(batch=BATCH, world=WORLD, steps=st.integers(1, 5), epoch=st.integers(0, 3), sampler=SHUFFLING)
def test_processes_together_see_what_one_sees(batch, world, steps, epoch, sampler):
    length = batch * world * steps
    (alone,) = plans(sampler(batch * world), length, 1, True, epoch)
    together = plans(sampler(batch), length, world, True, epoch)
    for step in range(steps):
        assert keys(plan[step] for plan in together) == keys([alone[step]])


@given(length=LENGTH, batch=BATCH, sampler=SHUFFLING)
def test_no_two_draws_of_an_epoch_share_a_stream(length, batch, sampler):
    (plan,) = plans(sampler(batch), length, 1, True)
    assert len(set(keys(plan))) == len(keys(plan)) == length
    for index, count in Counter(index for index, _ in keys(plan)).items():
        assert {repeat for i, repeat in keys(plan) if i == index} == set(range(count))


@given(order=st.lists(st.integers(0, 9), min_size=1))
def test_repeats_count_what_came_before(order):
    expected = [order[:place].count(value) for place, value in enumerate(order)]
    assert repeats(np.array(order)).tolist() == expected


@given(length=LENGTH, num=st.integers(1, 5), epoch=st.integers(0, 9))
def test_repeated_augmentation_has_each_sample_several_times(length, num, epoch):
    ((draws,),) = plans(RASampler(length, num_repeats=num), length, 1, True, epoch)
    counts = sorted(Counter(draws.index.tolist()).values())
    assert sum(counts) == length  # an epoch's length stays
    assert counts[1:] == [num] * (len(counts) - 1)
    assert len(set(draws.index[:num].tolist())) == 1  # one after the other


def test_repeated_augmentation_reaches_every_sample_over_epochs():
    seen = {
        i for epoch in range(30) for ((d,),) in [plans(RASampler(60), 60, 1, True, epoch)] for i in d.index
    }
    assert seen == set(range(60))


@given(labels=LABELS, epoch=st.integers(0, 3))
def test_classes_and_their_samples_come_equally_often(labels, epoch):
    ((draws,),) = plans(ClassAwareSampler(len(labels)), len(labels), 1, True, epoch, labels)
    classes = np.unique(labels)
    by_class = [Counter(draws.index[labels[draws.index] == c].tolist()) for c in classes]
    assert {sum(c.values()) for c in by_class} <= {
        len(labels) // len(classes),
        -(-len(labels) // len(classes)),
    }
    for c, counts in zip(classes, by_class, strict=True):
        times = [counts[i] for i in np.flatnonzero(labels == c).tolist()]
        assert max(times) - min(times) <= 1


@given(
    labels=LABELS,
    weights=st.lists(st.sampled_from([0.0, 0.1, 1.0, 1.5, 7.0]), min_size=7, max_size=7),
    epoch=st.integers(0, 3),
)
def test_class_weights_give_shares_of_the_epoch(labels, weights, epoch):
    there = set(labels.tolist())
    weights = [w if c in there else 0.0 for c, w in enumerate(weights)]
    if not any(weights):
        weights[int(labels[0])] = 1.0
    sampler = ClassAwareSampler(len(labels), class_weights=weights)
    sampler.check(Share(len(labels), 7, labels=labels))
    ((draws,),) = plans(sampler, len(labels), 1, True, epoch, labels)
    counts = np.bincount(labels[draws.index], minlength=7)
    expected = np.array(weights) / sum(weights) * len(labels)
    assert (np.abs(counts - expected) < 1 + 1e-9).all()
    assert (counts[np.array(weights) == 0] == 0).all()


@given(sampler=SHUFFLING)
def test_order_changes_with_epoch_and_seed_only(sampler):
    labels = np.arange(100) % 4
    order = lambda seed, epoch: tuple(  # noqa: E731
        sampler(100).batches(Share(100, seed, labels=labels), epoch)[0].index.tolist()
    )
    orders = {order(seed, epoch) for seed in range(3) for epoch in range(3) for _ in range(2)}
    assert len(orders) == 9


def test_without_shuffling_the_order_is_that_of_the_list():
    plain = DistributedBatchSampler(100)
    assert plain.batches(Share(100, 1), 5)[0].index.tolist() == list(range(100))
    assert SAMPLERS["BatchSampler"] is DistributedBatchSampler


def test_mistakes_in_the_options():
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        DistributedBatchSampler(0)
    with pytest.raises(ConfigError, match="num_repeats: must be at least 1"):
        RASampler(4, num_repeats=0)
    with pytest.raises(ConfigError, match="shuffle: must be True"):
        RASampler(4, shuffle=False)
    for weights in ([0.0, 0.0], [1.0, -1.0], [], [math.inf, 1.0], [1.0, math.nan]):
        with pytest.raises(ConfigError, match="class_weights: got .*expected finite numbers of at least 0"):
            ClassAwareSampler(4, class_weights=weights)
    share = Share(3, 0, labels=np.array([0, 2, 2]))
    with pytest.raises(ConfigError, match="class_weights: 2 numbers, but the dataset has class 2"):
        ClassAwareSampler(4, class_weights=[1.0, 1.0]).check(share)
    with pytest.raises(ConfigError, match="class 1 has no samples; its weight must be 0"):
        ClassAwareSampler(4, class_weights=[1.0, 1.0, 1.0]).check(share)


def test_a_generator_is_philox_with_seed_and_place_as_its_key():
    """As written in ppcls.data.rng; a resumed run depends on it."""
    for seed in (0, 5, 2**64 - 1):
        what = 0 << 60 | 3 << 40 | 77
        philox = np.random.Philox(counter=2 << 192, key=seed << 64 | what)
        expected = np.random.Generator(philox).integers(0, 2**63, 100)
        np.testing.assert_array_equal(sample_rng(seed, 3, 77, 2).integers(0, 2**63, 100), expected)


def test_generators_of_different_purposes_differ():
    draws = {
        generator.bytes(8)
        for seed in (0, 1, 2**63, 2**64 - 1)
        for epoch in (0, 1, 2)
        for generator in (
            sample_rng(seed, epoch, 0),
            sample_rng(seed, epoch, 0, 1),
            sample_rng(seed, epoch, 0, 2),
            sample_rng(seed, epoch, 1),
            sample_rng(seed, epoch, 1, 1),
            sample_rng(seed, epoch, 10**9),
            batch_rng(seed, epoch, 0),
            batch_rng(seed, epoch, 1),
            order_rng(seed, epoch),
        )
    }
    assert len(draws) == 4 * 3 * 9
    assert sample_rng(3, 2, 1).bytes(8) == sample_rng(3, 2, 1).bytes(8)
    assert sample_rng(3, 2, 1, 4).bytes(8) == sample_rng(3, 2, 1, 4).bytes(8)


def test_streams_are_those_of_earlier_versions():
    """Runs can be repeated with the augmentation they had."""
    assert sample_rng(3, 2, 1).bytes(4).hex() == "eb2d5f09"
    assert sample_rng(3, 2, 1, 0).bytes(4) == sample_rng(3, 2, 1).bytes(4)


def test_neighbouring_samples_are_not_correlated():
    values = np.array([sample_rng(0, 0, index).uniform(size=4) for index in range(4000)])
    assert np.abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.03
    assert values.mean() == pytest.approx(0.5, abs=0.01)


def test_an_order_of_the_wrong_length_is_an_error():
    class Half(DistributedBatchSampler):
        def order(self, share, epoch):
            return np.arange(share.length // 2)

    with pytest.raises(ValueError, match="Half.order gave 4 samples, expected 9"):
        Half(3).batches(Share(9, 0), 0)
