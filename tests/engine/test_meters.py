"""Averages over an epoch."""

import numpy as np
import paddle
import pytest

from ppcls.engine.meters import Meters
from ppcls.errors import TrainingError


def test_averages_weigh_batches_by_their_size():
    meters = Meters()
    meters.add({"top1": paddle.to_tensor(1.0), "loss": paddle.to_tensor(2.0)}, 3)
    meters.add({"top1": paddle.to_tensor(0.0), "loss": paddle.to_tensor([6.0])}, 1)
    rows = meters.flush()
    assert rows == [{"top1": 1.0, "loss": 2.0}, {"top1": 0.0, "loss": 6.0}]
    assert meters.averages() == {"top1": 0.75, "loss": 3.0}


@pytest.mark.parametrize(("images", "right", "batch"), [(1000, 900, 96), (30, 27, 16), (2048, 1, 100)])
def test_equal_accuracies_are_equal_numbers_however_the_images_are_divided(images, right, batch):
    for seed in range(20):
        hits = np.zeros(images, "float32")
        hits[np.random.default_rng(seed).permutation(images)[:right]] = 1
        meters = Meters()
        for start in range(0, images, batch):
            part = hits[start : start + batch]
            meters.add({"top1": paddle.to_tensor(part).mean()}, len(part))
        meters.flush()
        assert meters.averages() == {"top1": right / images}


def test_small_losses_stay_what_they_are():
    meters = Meters()
    meters.add({"loss": paddle.to_tensor(5e-8)}, 256)
    meters.flush()
    assert meters.averages()["loss"] == pytest.approx(5e-8)


def test_splitting_flushes_and_restoring_changes_nothing():
    values = np.random.default_rng(0).random(20).astype("float32")
    once, split = Meters(), Meters()
    for i, value in enumerate(values):
        once.add({"loss": paddle.to_tensor(value)}, i + 1)
        split.add({"loss": paddle.to_tensor(value)}, i + 1)
        if i % 7 == 0:
            split.flush()
            restored = Meters()
            restored.restore(split.state())
            split = restored
    once.flush()
    split.flush()
    assert once.averages() == split.averages()


def test_an_average_of_nothing_is_an_error():
    with pytest.raises(TrainingError, match="no sample"):
        Meters().averages()
