"""Batches: complete, the same in every process, and equal to those of one process together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import DistributedBatchSampler, Share
from ppcls.data.rng import batch_rng, order_rng, sample_rng
from ppcls.errors import ConfigError

LENGTH, BATCH, WORLD = st.integers(1, 60), st.integers(1, 9), st.integers(1, 5)


def plans(sampler, length, world, training, epoch=0):
    shares = [Share(length, 7, rank, world, training) for rank in range(world)]
    found = [sampler.batches(share, epoch) for share in shares]
    assert [len(plan) for plan in found] == [sampler.count(share) for share in shares]
    return found


@given(length=LENGTH, batch=BATCH, world=WORLD, shuffle=st.booleans())
def test_evaluation_counts_every_sample_once(length, batch, world, shuffle):
    found = plans(DistributedBatchSampler(batch, shuffle=shuffle), length, world, training=False)
    everything = np.concatenate([b for plan in found for b in plan])
    assert sorted(everything) == list(range(length))
    shares = [sum(map(len, plan)) for plan in found]
    assert max(shares) - min(shares) <= 1
    assert all(1 <= len(b) <= batch for plan in found for b in plan)


@given(length=LENGTH, batch=BATCH, world=WORLD, drop_last=st.booleans(), shuffle=st.booleans())
def test_training_gives_every_process_equal_batches(length, batch, world, drop_last, shuffle):
    sampler = DistributedBatchSampler(batch, drop_last, shuffle)
    found = plans(sampler, length, world, training=True)
    sizes = [[len(b) for b in plan] for plan in found]
    assert all(row == sizes[0] for row in sizes)
    everything = [int(i) for plan in found for b in plan for i in b]
    if drop_last:
        assert len(set(everything)) == len(everything) == length // (batch * world) * batch * world
    else:
        assert set(everything) == set(range(length))
        assert len(everything) - length == -length % world if length % (batch * world) else True
        assert len(everything) - length < world


@given(batch=BATCH, world=WORLD, steps=st.integers(1, 5), epoch=st.integers(0, 3))
def test_processes_together_see_what_one_sees(batch, world, steps, epoch):
    length = batch * world * steps
    (alone,) = plans(DistributedBatchSampler(batch * world, shuffle=True), length, 1, True, epoch)
    together = plans(DistributedBatchSampler(batch, shuffle=True), length, world, True, epoch)
    for step in range(steps):
        assert np.array_equal(np.concatenate([plan[step] for plan in together]), alone[step])


def test_order_changes_with_epoch_and_seed_only():
    sampler = DistributedBatchSampler(100, shuffle=True)
    order = lambda seed, epoch: tuple(sampler.batches(Share(100, seed), epoch)[0].tolist())  # noqa: E731
    orders = {order(seed, epoch) for seed in range(3) for epoch in range(3) for _ in range(2)}
    assert len(orders) == 9
    plain = DistributedBatchSampler(100)
    assert plain.batches(Share(100, 1), 5)[0].tolist() == list(range(100))


def test_batch_size_must_be_positive():
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        DistributedBatchSampler(0)


def test_generators_of_different_purposes_differ():
    draws = {
        generator.bytes(8)
        for seed in (0, 1, 2**63, 2**64 - 1)
        for epoch in (0, 1, 2)
        for generator in (
            sample_rng(seed, epoch, 0),
            sample_rng(seed, epoch, 1),
            sample_rng(seed, epoch, 10**9),
            batch_rng(seed, epoch, 0),
            batch_rng(seed, epoch, 1),
            order_rng(seed, epoch),
        )
    }
    assert len(draws) == 4 * 3 * 6
    assert sample_rng(3, 2, 1).bytes(8) == sample_rng(3, 2, 1).bytes(8)


def test_neighbouring_samples_are_not_correlated():
    values = np.array([sample_rng(0, 0, index).uniform(size=4) for index in range(4000)])
    assert np.abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.03
    assert values.mean() == pytest.approx(0.5, abs=0.01)
