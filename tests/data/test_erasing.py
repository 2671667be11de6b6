"""Transforms that hide parts of an image: how much, where, and with what."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import build_transforms
from ppcls.data.transforms.erasing import Cutout, GridMask, HideAndSeek, RandomErasing

RNG = np.random.default_rng
OPS = [
    {"RandomErasing": {"EPSILON": 1.0, "mode": "pixel", "attempt": 10, "sh": "1.0/3.0"}},
    {"RandomErasing": {"EPSILON": 1.0, "mode": "rand"}},
    {"RandomErasing": {"EPSILON": 1.0, "mean": [3.0, 4.0, 5.0]}},
    {"Cutout": {"length": 11, "n_holes": 2}},
    {"Cutout": {"length": 11, "n_holes": 2, "fill_value": None}},
    {"HideAndSeek": None},
    {"GridMask": {"d1": 6, "d2": 20, "rotate": 90}},
]


def ones(kind=np.float32, shape=(40, 30, 3)) -> np.ndarray:
    return np.full(shape, 7, kind)


@pytest.mark.parametrize("node", OPS, ids=lambda node: "-".join(node))
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_shape_type_determinism_and_axes(node, kind):
    """The same pixels change whichever axis the channels are on, and never those of the caller."""
    chain = build_transforms([node])
    changed = 0
    for seed in range(12):
        image = ones(kind)
        found = chain(image, RNG(seed))
        assert found.dtype == kind
        assert found.shape == image.shape
        assert (image == 7).all()
        np.testing.assert_array_equal(found, chain(image, RNG(seed)))
        turned = chain(np.ascontiguousarray(image.transpose(2, 0, 1)), RNG(seed))
        np.testing.assert_array_equal(turned.transpose(1, 2, 0), found)
        changed += bool((found != image).any())
    assert changed >= 8


@given(
    low=st.floats(0.01, 0.5),
    extra=st.floats(0, 0.4),
    r1=st.floats(0.2, 1.0),
    log=st.booleans(),
    seed=st.integers(0, 999),
)
def test_erased_rectangle_has_area_and_shape_within_bounds(low, extra, r1, log, seed):
    op = RandomErasing(1.0, low, low + extra, r1, use_log_aspect=log)
    box = op.box(300, 400, RNG(seed))
    if box is None:  # a hundred attempts did not fit: only for shapes that hardly can
        assert low + extra > 0.3
        return
    left, top, w, h = box
    assert 0 <= left <= 300 - w
    assert 0 <= top <= 400 - h
    assert low - 0.02 <= w * h / 120_000 <= low + extra + 0.02
    slack = 1 / min(w, h)  # whole pixels
    assert r1 * (1 - slack) - 0.01 <= h / w <= (1 + slack) / r1 + 0.01


@pytest.mark.parametrize("log", [False, True])
def test_erased_areas_and_shapes_are_spread_as_the_paper_says(log):
    op = RandomErasing(1.0, 0.02, 0.3, 0.5, use_log_aspect=log)
    rng = RNG(0)
    boxes = np.array([op.box(2000, 2000, rng) for _ in range(4000)])
    area, ratio = boxes[:, 2] * boxes[:, 3] / 4e6, boxes[:, 3] / boxes[:, 2]
    assert area.mean() == pytest.approx(0.16, abs=0.005)
    assert area.std() == pytest.approx(0.28 / math.sqrt(12), abs=0.004)
    if log:
        assert np.log(ratio).mean() == pytest.approx(0, abs=0.02)
    else:
        assert ratio.mean() == pytest.approx(1.25, abs=0.02)
    centre = boxes[:, 0] / (2000 - boxes[:, 2])
    assert centre.mean() == pytest.approx(0.5, abs=0.02)


def test_erasing_happens_as_often_as_asked_and_only_where_it_fits():
    op, rng = RandomErasing(0.25), RNG(0)
    hit = np.mean([(op(ones(), rng) != 7).any() for _ in range(2000)])
    assert hit == pytest.approx(0.25, abs=0.03)
    assert (RandomErasing(0.0)(ones(), RNG()) == 7).all()
    tiny = RandomErasing(1.0, 0.9, 1.0)
    assert (tiny(ones(shape=(2, 2, 3)), RNG(1)) == 7).all()


def test_what_is_put_into_the_rectangle():
    image = ones(shape=(60, 60, 3))
    erased = RandomErasing(1.0, mean=[1.0, 2.0, 3.0])(image, RNG(0))
    assert set(map(tuple, erased.reshape(-1, 3))) == {(7, 7, 7), (1, 2, 3)}
    plain = RandomErasing(1.0, mode="rand")(image, RNG(0))
    assert len(set(map(tuple, plain.reshape(-1, 3)))) == 2
    noise = RandomErasing(1.0, 0.3, 0.4, mode="pixel")(image, RNG(0))
    drawn = noise[noise != 7]
    assert drawn.mean() == pytest.approx(0, abs=0.1)
    assert drawn.std() == pytest.approx(1, abs=0.1)
    levels = RandomErasing(1.0, 0.3, 0.4, mode="pixel")(ones(np.uint8, (60, 60, 3)), RNG(0))
    assert levels[levels != 7].mean() == pytest.approx(127.5, abs=8)


@given(length=st.integers(1, 70), seed=st.integers(0, 200))
def test_cutout_hides_one_square_around_a_pixel_of_the_image(length, seed):
    hidden = Cutout(1, length)(ones(), RNG(seed))[:, :, 0] == 0
    rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
    assert hidden.sum() == len(rows) * len(columns)  # a rectangle
    for found, whole in ((rows, 40), (columns, 30)):
        inside = found[0] > 0 and found[-1] < whole - 1
        assert len(found) == length if inside else len(found) <= length
        assert len(found) >= min(length // 2, whole // 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_cutout_fills_images_of_any_number_of_channels(channels):
    image = ones(shape=(40, 40, channels))
    assert set(Cutout(1, 90)(image, RNG(0)).ravel()) == {0}
    assert set(Cutout(1, 90, fill_value=[3])(image, RNG(0)).ravel()) == {3}
    assert Cutout(1, 90, fill_value=[1, 2, 3, 4])(image, RNG(0))[0, 0].tolist() == [1, 2, 3, 4][:channels]
    assert Cutout(1, 90, fill_value=[1, 2, 3])(image, RNG(0))[0, 0].tolist() == [1, 2, 3, 0][:channels]


@pytest.mark.parametrize(
    ("mean", "filled"),
    [
        ((0.0, 0.0, 0.0), [0, 0, 0, 0]),
        ([1, 2, 3], [1, 2, 3, 0]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([5], [5, 5, 5, 5]),
    ],
)
@pytest.mark.parametrize("order", ["", "hwc"])
def test_a_channel_that_was_added_stays_zero_unless_it_has_a_value(mean, filled, order):
    normalize = {"NormalizeImage": {"order": order, "channel_num": 4}}
    erase = {"RandomErasing": {"EPSILON": 1.0, "mean": list(mean)}}
    image = ones(np.uint8, (40, 30, 3))
    plain = build_transforms([normalize]).chw(image, RNG(0))
    found = build_transforms([normalize, erase]).chw(image, RNG(0))
    changed = (found != plain).any(0)
    assert changed.any()
    assert (found[:, changed] == np.array(filled)[:, None]).all()


@pytest.mark.parametrize("mode", ["rand", "pixel"])
def test_a_mean_that_is_not_used_may_have_any_length(mode):
    assert (RandomErasing(1.0, mean=[1, 2], mode=mode)(ones(), RNG(0)) != 7).any()


def test_cutout_fills_with_a_colour_or_draws_one_for_each_square():
    image = ones(shape=(60, 60, 3))
    fixed = Cutout(2, 20, fill_value=[1.0, 2.0, 3.0])(image, RNG(0))
    assert set(map(tuple, fixed.reshape(-1, 3))) == {(7, 7, 7), (1, 2, 3)}
    first = Cutout(2, 20, fill_value=[1.0, 2.0, 3.0])(image.transpose(2, 0, 1), RNG(0))
    np.testing.assert_array_equal(first, fixed.transpose(2, 0, 1))
    for fill in (None, "none"):
        op = Cutout(3, 10, fill_value=fill)
        drawn = op(ones(np.uint8, (300, 300, 3)), RNG(1))
        assert len(set(map(tuple, drawn.reshape(-1, 3)))) == 4
    many = np.concatenate(
        [Cutout(1, 60, None)(ones(np.uint8, (9, 9, 3)), RNG(seed)).max((0, 1)) for seed in range(400)]
    )
    assert many.mean() == pytest.approx(127.5, abs=8)
    assert Cutout(1, 60, None)(image, RNG(0)).min() < 7


def test_hide_and_seek_hides_half_of_the_cells_of_four_grids():
    image, op = ones(shape=(224, 224, 3)), HideAndSeek()
    shares = np.array([(op(image, RNG(seed)) == 0).mean() for seed in range(200)])
    whole = shares == 0
    assert whole.mean() == pytest.approx(0.2, abs=0.08)
    assert shares[~whole].mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("mode", "share"), [(0, 1 - 0.6**2), (1, 0.6**2)])
@pytest.mark.parametrize("rotate", [1, 90])
def test_grid_mask_hides_stripes_or_what_lies_between(mode, share, rotate):
    op = GridMask(20, 21, rotate, ratio=0.4, mode=mode)
    hidden = np.mean([op.mask(200, 200, RNG(seed)).mean() for seed in range(20)])
    assert hidden == pytest.approx(share, abs=0.01)
    if rotate == 1:
        mask = op.mask(200, 200, RNG(0))
        np.testing.assert_array_equal(mask[:-20], mask[20:])
        np.testing.assert_array_equal(mask[:, :-20], mask[:, 20:])
    never = GridMask(20, 30, prob=0.0)
    assert (never(ones(), RNG()) == 7).all()


def test_normalised_chain_with_erasing_at_its_end():
    """As in published recipes: noise after NormalizeImage, and the batch still is [C, H, W]."""
    erase = {"RandomErasing": {"EPSILON": 1.0, "sl": 0.02, "sh": "1.0/3.0", "mode": "pixel"}}
    normalize = {"NormalizeImage": {"order": ""}}
    image = RNG(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    found = build_transforms([normalize, erase]).chw(image, RNG(3))
    plain = build_transforms([normalize]).chw(image, RNG(3))
    assert found.shape == (3, 40, 30)
    assert found.dtype == np.float32
    same = (found == plain).all(0)
    assert 1 - 1 / 3 - 0.05 <= same.mean() <= 1 - 0.02 + 0.01
