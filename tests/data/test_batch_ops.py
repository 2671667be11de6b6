"""Mixing of images and labels: exact shares, distributions, and the loader's generators."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import build_loader
from ppcls.data.batch_ops import CutmixOperator, MixupOperator, OpSampler, label_probabilities
from ppcls.errors import ConfigError

RNG = np.random.default_rng
CLASSES = 6
SAMPLER = {"MixupOperator": {"alpha": 0.8, "prob": 0.5}, "CutmixOperator": {"alpha": 1.0, "prob": 0.3}}


def batch(n: int = 6, height: int = 12, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Images that hold their place in the batch, so that a mixed pixel says where it comes from."""
    image = np.zeros((n, 3, height, width), np.float32) + np.arange(n, dtype=np.float32)[:, None, None, None]
    return image, np.arange(n).reshape(-1, 1)


@given(seed=st.integers(0, 9999), alpha=st.sampled_from([0.05, 0.2, 1.0, 8.0]), n=st.integers(1, 6))
def test_mixup_mixes_labels_as_it_mixes_pixels(seed, alpha, n):
    image, label = batch(n)
    before = image.copy()
    mixed, soft = MixupOperator(CLASSES, alpha)(image, label, RNG(seed))
    np.testing.assert_array_equal(image, before)
    assert mixed.dtype == soft.dtype == np.float32
    assert soft.shape == (n, CLASSES)
    np.testing.assert_allclose(soft.sum(1), 1, atol=2e-7)
    assert ((soft > 0).sum(1) <= 2).all()
    # A pixel is the sum of places, weighted as the labels are.
    np.testing.assert_allclose(mixed[:, 1, 3, 4], soft @ np.arange(CLASSES), atol=2e-6)
    assert (mixed == mixed[:, :1, :1, :1]).all()


@given(
    seed=st.integers(0, 9999),
    alpha=st.sampled_from([0.2, 1.0]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_cutmix_labels_are_the_shares_of_pixels(seed, alpha, height, width):
    image, label = batch(5, height, width)
    before = image.copy()
    mixed, soft = CutmixOperator(CLASSES, alpha)(image, label, RNG(seed))
    np.testing.assert_array_equal(image, before)
    assert mixed.dtype == soft.dtype == np.float32
    for place in range(5):
        counted = np.bincount(mixed[place, 0].astype(int).ravel(), minlength=CLASSES) / (height * width)
        np.testing.assert_allclose(soft[place], counted, atol=1e-6)
        np.testing.assert_array_equal(mixed[place, 0], mixed[place, 2])
    other = mixed[:, 0] != np.arange(5)[:, None, None]
    for mask in other:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()  # one rectangle


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(alpha):
    """Its mean is 1/2 and its variance 1 / (4 (2 alpha + 1))."""
    image, label = np.zeros((2, 1, 1, 1), np.float32), np.array([[0], [1]])
    op, rng = MixupOperator(2, alpha), RNG(0)
    soft = np.array([op(image, label, rng)[1][0] for _ in range(4000)])
    share = soft[soft[:, 1] > 0, 0]  # half of the time an image is its own partner
    assert 0.4 < len(share) / 4000 < 0.55
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix_rectangles_lie_anywhere_and_keep_their_size_inside():
    """Pixels in the middle are hidden as often as alpha = 1 says, at the border about half as often."""
    image, label = np.zeros((2, 1, 60, 60), np.float32), np.array([[0], [1]])
    image[1] = 1
    op, rng = CutmixOperator(2, 1.0), RNG(0)
    mixed = np.array([op(image, label, rng)[0][0, 0] for _ in range(3000)])
    swapped = mixed[mixed.any((1, 2))].mean(0)
    np.testing.assert_allclose(swapped, swapped[::-1, ::-1], atol=0.08)
    assert swapped[28:32, 28:32].mean() > 1.5 * swapped[:, [0, -1]].mean()


def test_sampler_takes_each_as_often_as_its_probability():
    image, label = batch()
    op, counts = OpSampler(CLASSES, **SAMPLER), {"mixup": 0, "cutmix": 0, "none": 0}
    for seed in range(2000):
        mixed, soft = op(image, label, RNG(seed))
        assert soft.dtype == np.float32
        assert soft.shape == (6, CLASSES)
        if mixed is image:
            counts["none"] += 1
            np.testing.assert_array_equal(soft, np.eye(CLASSES))
        else:
            whole = (mixed == mixed[:, :, :1, :1]).all()
            counts["mixup" if whole and (mixed % 1).any() else "cutmix"] += 1
    assert counts["none"] / 2000 == pytest.approx(0.2, abs=0.04)
    assert counts["mixup"] / 2000 == pytest.approx(0.5, abs=0.05)  # almost every mixture shows


def test_ops_can_follow_each_other_and_keep_half_precision():
    image, label = batch()
    image = image.astype(np.float16)
    for op in (MixupOperator(CLASSES, 1.0), CutmixOperator(CLASSES, 1.0)):
        image, label = op(image, label, RNG(4))
    assert image.dtype == np.float16
    np.testing.assert_allclose(label.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 1, 5, 7), (4, 3, 1, 1)])
def test_images_that_lie_otherwise_in_memory(shape):
    image = RNG(0).standard_normal(shape[::-1]).astype(np.float32).transpose(3, 2, 1, 0)
    rng = RNG(1)
    order, share = rng.permutation(4), rng.beta(1.0, 1.0)
    mixed, _ = MixupOperator(CLASSES, 1.0)(image, np.zeros((4, 1), int), RNG(1))
    np.testing.assert_allclose(mixed, share * image + (1 - share) * image[order], atol=1e-6)


def test_labels_that_are_none_yet():
    with pytest.raises(ConfigError, match="class_num is not known"):
        label_probabilities(np.array([[1]]), None)
    np.testing.assert_array_equal(label_probabilities(np.array([[1], [0]]), 2), [[0, 1], [1, 0]])


@pytest.fixture
def folder(tmp_path):
    lines = []
    for number in range(19):
        image = RNG(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        lines.append(f"{number}.png {number % CLASSES}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path


def epoch(folder, ops, *, workers=2, start=0, number=1, seed=5, batch_size=4, class_num=CLASSES):
    node = {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": [
                {"DecodeImage": None},
                {"TimmAutoAugment": {"img_size": 16}},
                {"NormalizeImage": {"order": ""}},
                {"RandomErasing": {"EPSILON": 0.5, "mode": "pixel"}},
            ],
            "batch_transform_ops": ops,
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": batch_size, "shuffle": True},
        "loader": {"num_workers": workers},
    }
    loader = build_loader(node, "Train", seed=seed, class_num=class_num)
    try:
        return list(loader.epoch(number, start))
    finally:
        loader.close()


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)
        for a, b in zip(one, other, strict=True)
    )


def test_resumed_epochs_mix_the_same_pairs(folder):
    """Whatever the threads, and from wherever the run continues."""
    ops = [{"OpSampler": SAMPLER}]
    whole = epoch(folder, ops)
    assert all(b.label.dtype == np.float32 and b.label.shape[1] == CLASSES for b in whole)
    for start in (1, 3, 5):
        assert same(whole[start:], epoch(folder, ops, start=start, workers=start % 2))
    assert not same(whole, epoch(folder, ops, number=2))
    assert not same(whole, epoch(folder, ops, seed=6))
    plain = epoch(folder, None)
    assert all(b.label.dtype == np.int64 for b in plain)
    assert len(plain) == len(whole)
    for mixed, hard in zip(whole, plain, strict=True):
        assert (mixed.label[np.arange(len(hard.label)), hard.label[:, 0]] > 0).all()


def test_processes_mix_within_their_share(folder, monkeypatch):
    """Each process draws for itself; the pairs are those of its own images, again and again the same."""
    ops = [{"MixupOperator": {"alpha": 1.0}}]
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        parts.append(epoch(folder, ops))
        assert same(parts[-1], epoch(folder, ops))
    for first, second in zip(*parts, strict=True):
        shares = [{float(x) for x in b.label.ravel() if 0 < x < 1} for b in (first, second)]
        assert not shares[0] & shares[1]


def test_class_num_comes_from_the_network_or_the_recipe(folder):
    assert epoch(folder, [{"MixupOperator": {"class_num": 9}}])[0].label.shape == (4, 9)
    with pytest.raises(ConfigError, match="class_num is not known"):
        epoch(folder, [{"MixupOperator": None}], class_num=None)


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (lambda: MixupOperator(alpha=0), "MixupOperator.alpha: expected a number above 0, got 0"),
        (lambda: CutmixOperator(alpha=-1.0), "CutmixOperator.alpha"),
        (lambda: CutmixOperator(alpha=float("inf")), "CutmixOperator.alpha"),
        (lambda: MixupOperator(0), "MixupOperator.class_num: expected 1 or more"),
        (lambda: OpSampler(), "no transform to choose from; known: "),
        (lambda: OpSampler(MixupOp={"prob": 0.5}), "Did you mean: MixupOperator"),
        (lambda: OpSampler(MixupOperator={}), "needs the option 'prob'"),
        (lambda: OpSampler(MixupOperator={"prob": -1}), "prob: expected a number from 0 to 1"),
        (lambda: OpSampler(MixupOperator={"prob": 1.0}, CutmixOperator={"prob": 0.1}), "sum to 1.1"),
        (lambda: OpSampler(MixupOperator={"prob": 1.0, "alfa": 2}), "Did you mean: alpha"),
    ],
)
def test_mistakes(build, part):
    with pytest.raises(ConfigError) as caught:
        build()
    assert part in str(caught.value)
