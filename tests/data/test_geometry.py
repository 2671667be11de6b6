"""Crops and flips: where they lie, and how they are distributed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import build_transforms
from ppcls.data.transforms.geometry import RandCropImage

RNG = np.random.default_rng
SIDE = st.integers(1, 70)


def coordinates(width: int, height: int) -> np.ndarray:
    """An image whose pixels say where they are: channel 0 is x, channel 1 is y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, x * 0], -1).astype(np.uint8)


@given(width=SIDE, height=SIDE, data=st.data())
def test_centre_crop_leaves_equal_borders(width, height, data):
    w, h = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    found = build_transforms([{"CropImage": {"size": [w, h]}}])(coordinates(width, height))
    assert found.shape == (h, w, 3)
    left, top = found[0, 0, :2].tolist()
    assert left == (width - w) // 2
    assert top == (height - h) // 2


@given(width=SIDE, height=SIDE, seed=st.integers(0, 1000), log=st.booleans(), low=st.floats(0.05, 1))
def test_random_rectangles_lie_inside_and_have_the_wanted_area_and_shape(width, height, seed, log, low):
    op = RandCropImage(8, scale=[low, 1.0], use_log_aspect=log)
    left, top, w, h = op.box(width, height, RNG(seed))
    assert left >= 0
    assert top >= 0
    assert w >= 1
    assert h >= 1
    assert left + w <= width
    assert top + h <= height
    # Sides are cut to whole pixels, so the real rectangle is up to a pixel larger each way.
    ratio_low, ratio_high = w / (h + 1), (w + 1) / h
    assert ratio_low <= 4 / 3 + 1e-9
    assert ratio_high >= 3 / 4 - 1e-9
    nearest = min(max(width / height, 3 / 4), 4 / 3)
    largest = min(width / height / nearest, height / width * nearest)
    assert w * h <= width * height * largest + 1e-6
    smallest = min(low, min(min(width / height / r, height / width * r) for r in (3 / 4, 4 / 3)))
    assert (w + 1) * (h + 1) >= width * height * smallest - 1e-6


def reference_box(width, height, scale, ratio, rng):
    """The same draw, with the largest share that fits found by trying."""
    r = rng.uniform(*ratio)
    limit = 1.0
    while not (
        math.sqrt(limit * r * width * height) <= width + 1e-9
        and math.sqrt(limit / r * width * height) <= height + 1e-9
    ):
        limit -= 1e-3
    return r, rng.uniform(min(scale[0], limit), min(scale[1], limit)) * width * height


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (300, 300)])
def test_random_rectangles_are_distributed_like_the_reference(size):
    """Means of shape and area, 3000 draws each; the standard errors are below 1 %."""
    op, rng = RandCropImage(224, scale=[0.08, 1.0]), RNG(1)
    boxes = np.array([op.box(*size, rng) for _ in range(3000)], float)
    reference = np.array([reference_box(*size, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(3000)])
    assert (boxes[:, 2] / boxes[:, 3]).mean() == pytest.approx(reference[:, 0].mean(), rel=0.02)
    assert (boxes[:, 2] * boxes[:, 3]).mean() == pytest.approx(reference[:, 1].mean(), rel=0.05)
    free = size[0] - boxes[:, 2]
    assert (boxes[free > 0, 0] / free[free > 0]).mean() == pytest.approx(0.5, abs=0.03)


def test_log_aspect_treats_both_directions_alike():
    shapes = []
    rng = RNG(0)
    for _ in range(2000):
        _, _, w, h = RandCropImage(8, scale=[0.1, 0.2], ratio=[0.25, 4.0], use_log_aspect=True).box(
            900, 900, rng
        )
        shapes.append(math.log(w / h))
    assert np.mean(shapes) == pytest.approx(0, abs=0.08)
    assert np.std(shapes) == pytest.approx(math.log(16) / math.sqrt(12), rel=0.05)


def test_random_crop_shows_its_rectangle():
    image = coordinates(60, 50)
    op = RandCropImage(20, scale=[0.3, 0.5], interpolation="nearest")
    left, top, w, h = op.box(60, 50, RNG(4))
    found = op(image, RNG(4))
    assert found.shape == (20, 20, 3)
    assert left <= found[..., 0].min()
    assert found[..., 0].max() < left + w
    assert top <= found[..., 1].min()
    assert found[..., 1].max() < top + h


@given(width=SIDE, height=SIDE, size=st.integers(1, 40), padding=st.integers(0, 6), seed=st.integers(0, 50))
def test_padded_crop_equals_numpy_padding(width, height, size, padding, seed):
    image = coordinates(width, height)
    options = {"size": size, "padding": padding, "pad_if_needed": True, "fill": 7}
    found = build_transforms([{"RandomCropImage": options}])(image, RNG(seed))
    x, y = padding + max(size - width - 2 * padding, 0), padding + max(size - height - 2 * padding, 0)
    padded = np.pad(image, [(y, y), (x, x), (0, 0)], constant_values=7)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    assert (windows.transpose(0, 1, 3, 4, 2) == found).all((2, 3, 4)).any()


@pytest.mark.parametrize(
    ("mode", "numpy_mode"), [("edge", "edge"), ("reflect", "reflect"), ("symmetric",) * 2]
)
def test_padding_modes(mode, numpy_mode):
    image = coordinates(9, 8)[:, :, :1]
    options = {"size": [15, 16], "padding": [1, 2, 5, 6], "padding_mode": mode}
    found = build_transforms([{"RandomCropImage": options}])(image, RNG(0))
    np.testing.assert_array_equal(found, np.pad(image, [(2, 6), (1, 5), (0, 0)], numpy_mode))


def test_padded_crops_reach_every_place():
    chain = build_transforms([{"RandomCropImage": {"size": 8, "padding": 1}}])
    image = coordinates(8, 8) + 1
    rng = RNG(0)
    corners = {tuple(chain(image, rng)[1, 1, :2].tolist()) for _ in range(300)}
    assert corners == {(x, y) for x in (1, 2, 3) for y in (1, 2, 3)}


@pytest.mark.parametrize(("code", "axes"), [(1, [1]), (0, [0]), (-1, [0, 1])])
@pytest.mark.parametrize("channels", [1, 3])
def test_flip_is_a_mirror_half_of_the_time(code, axes, channels):
    image = coordinates(6, 5)[:, :, :channels]
    chain, rng = build_transforms([{"RandFlipImage": {"flip_code": code}}]), RNG(0)
    mirrored = 0
    for _ in range(400):
        found = chain(image, rng)
        if np.array_equal(found, np.flip(image, axes)) and not np.array_equal(found, image):
            mirrored += 1
        else:
            np.testing.assert_array_equal(found, image)
    if channels == 3 or code:
        assert 150 < mirrored < 250
