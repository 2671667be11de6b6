"""Augmentation policies, colours and angles: against NumPy, at strength zero, and by their statistics."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import PHOTOS

from ppcls.data import build_transforms
from ppcls.data.transforms.pictures import CHANGES, Canvas, to_array, to_picture
from ppcls.data.transforms.policies import IMAGENET_POLICY, RAND_CHANGES, RandAugment, change_argument
from ppcls.data.transforms.timm_augment import TIMM_CHANGES, TimmAutoAugment, parse, timm_argument
from ppcls.errors import ConfigError, DataError

RNG = np.random.default_rng
CANVAS = Canvas()
WITHOUT_STRENGTH = {"AutoContrast", "Equalize", "Invert"}
OPS = [
    {"AutoAugment": None},
    {"RandAugment": None},
    {"RandAugment": {"num_layers": 4, "magnitude": 10}},
    {"TimmAutoAugment": None},
    {"TimmAutoAugment": {"config_str": "rand-m7-n3-mstd0.5", "interpolation": "random", "img_size": 32}},
    {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": [0.5, 1.5], "hue": 0.1}},
    {"RandomGrayscale": {"prob": 0.5}},
    {"RandomRotation": {"prob": 0.8, "degrees": 30}},
    {"Pad": {"padding": 2}},
    {"RandCropImageV2": {"size": [20, 24]}},
]


def photo(channels: int = 3) -> np.ndarray:
    image = cv2.imread(str(sorted(PHOTOS.glob("*.jpg"))[0]))[:, :, ::-1]
    image = cv2.resize(image, (28, 26), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, :, :channels])


@pytest.mark.parametrize("node", OPS, ids=lambda node: "-".join(node))
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_images_and_the_generator_decides(node, channels):
    chain, image = build_transforms([node]), photo(channels)
    before, different = image.copy(), set()
    for seed in range(15):
        found = chain(image, RNG(seed))
        assert found.dtype == np.uint8
        wanted = {"Pad": (30, 32), "RandCropImageV2": (24, 20)}.get(next(iter(node)), (26, 28))
        assert found.shape == (*wanted, channels)
        np.testing.assert_array_equal(found, chain(image, RNG(seed)))
        different.add(found.tobytes())
    np.testing.assert_array_equal(image, before)
    if "Pad" not in node and not ("RandomGrayscale" in node and channels == 1):
        assert len(different) > 1


def test_policy_tables_have_the_published_sizes():
    assert len(IMAGENET_POLICY) == 25
    assert len(set(IMAGENET_POLICY)) == 20  # five pairs were found twice
    for pair in IMAGENET_POLICY:
        assert len(pair) == 2
        for name, probability, magnitude in pair:
            assert name in CHANGES
            assert 0 <= probability <= 1
            assert magnitude in range(10)
    assert len(RAND_CHANGES) == len(set(RAND_CHANGES)) == 14
    assert len(TIMM_CHANGES) == len(set(TIMM_CHANGES)) == 15
    assert {*RAND_CHANGES, *TIMM_CHANGES} == set(CHANGES)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", [name for name in CHANGES if name not in WITHOUT_STRENGTH])
def test_strength_zero_changes_nothing(name, sign):
    picture = to_picture(photo(), "test")
    numbers = [timm_argument(name, 0.0, sign, True)]
    if name != "SolarizeAdd":
        numbers.append(change_argument(name, 0.0, sign))
    if name == "Posterize":
        assert numbers.pop(0) == 4  # timm's scale ends there
    for number in numbers:
        np.testing.assert_array_equal(to_array(CHANGES[name](picture, number, CANVAS)), photo())


def test_full_strength_is_the_end_of_the_published_range():
    """Table 6 of AutoAugment, and timm's; increasing and not."""
    paper = {
        "ShearX": 0.3,
        "TranslateY": 150 / 331,
        "Rotate": 30,
        "Posterize": 4,
        "Solarize": 0,
        "Color": 1.9,
    }
    timm = {"ShearX": 0.3, "TranslateY": 0.45, "Rotate": 30, "Posterize": 0, "Solarize": 0, "Color": 1.9}
    other = {"Posterize": 4, "Solarize": 256, "Color": 1.9, "SolarizeAdd": 110}
    for name, number in paper.items():
        assert change_argument(name, 1.0, 1) == pytest.approx(number)
    for name, number in timm.items():
        assert timm_argument(name, 1.0, 1, True) == pytest.approx(number)
    for name, number in other.items():
        assert timm_argument(name, 1.0, 1, False) == pytest.approx(number)
    assert change_argument("Rotate", 1.0, -1) == -30
    assert change_argument("Color", 1.0, -1) == pytest.approx(0.1)
    assert timm_argument("Color", 1.0, -1, True) == pytest.approx(0.1)
    assert timm_argument("Color", 0.0, -1, False) == pytest.approx(0.1)


@given(level=st.integers(0, 8), seed=st.integers(0, 99))
def test_changes_of_levels_against_numpy(level, seed):
    image = RNG(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    picture = to_picture(image, "test")

    def change(name, number):
        return to_array(CHANGES[name](picture, number, CANVAS)).astype(int)

    wide, lost = image.astype(int), 8 - max(level, 1)
    np.testing.assert_array_equal(change("Posterize", level), wide >> lost << lost)
    np.testing.assert_array_equal(
        change("Solarize", 32 * level), np.where(wide < 32 * level, wide, 255 - wide)
    )
    np.testing.assert_array_equal(
        change("SolarizeAdd", 10 * level), np.where(wide < 128, np.minimum(wide + 10 * level, 255), wide)
    )
    np.testing.assert_array_equal(change("Invert", 0), 255 - wide)
    assert np.abs(change("Brightness", level / 4) - np.clip(wide * level / 4, 0, 255)).max() <= 1
    gray = np.asarray(picture.convert("L")).astype(int)[:, :, None]
    assert np.abs(change("Color", 0.5) - (wide + gray) / 2).max() <= 1
    low, high = wide.min((0, 1)), wide.max((0, 1))
    assert np.abs(change("AutoContrast", 0) - (wide - low) * 255 / (high - low)).max() <= 1


def test_geometric_changes_move_pixels_where_they_should():
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 10] = 255
    near = Canvas((9, 9, 9), Image.Resampling.NEAREST)

    def at(name, number):
        found = to_array(CHANGES[name](to_picture(image, "test"), number, near))[:, :, 0]
        return tuple(int(i) for i in np.argwhere(found == 255)[0]), (found == 9).sum()

    assert at("TranslateX", 5 / 21) == ((10, 5), 5 * 21)
    assert at("TranslateY", -5 / 21) == ((15, 10), 5 * 21)
    assert at("Rotate", 90)[0] == (10, 10)
    assert at("ShearX", 0.3)[0] == (10, 7)
    assert at("ShearY", -0.3)[0] == (13, 10)
    image[10, 10], image[10, 18] = 0, 255
    assert at("Rotate", 90)[0] == (2, 10)  # counter-clockwise


def test_strings_of_timm():
    assert parse("rand-m9-mstd0.5-inc1") == parse("rand-inc1-mstd0.5-m9")
    settings = parse("rand-m7-n3-mstd0.5")
    assert (settings.magnitude, settings.number, settings.deviation, settings.increasing) == (
        7,
        3,
        0.5,
        False,
    )
    for wrong in ("augmix-m3", "rand-m9-x2", "rand-m9-m8", "rand-n0", "rand-inc2", "rand-m", ""):
        with pytest.raises(ConfigError, match="config_str"):
            TimmAutoAugment(config_str=wrong)


def test_magnitude_of_timm_is_normally_distributed_within_its_bounds():
    rng, op = RNG(0), TimmAutoAugment(config_str="rand-m5-mstd0.5")
    drawn = 10 * np.array([op.strength(rng) for _ in range(4000)])
    assert drawn.mean() == pytest.approx(5, abs=0.05)
    assert drawn.std() == pytest.approx(0.5, abs=0.03)
    top = TimmAutoAugment(config_str="rand-m10-mstd0.5")
    assert np.mean([top.strength(rng) == 1.0 for _ in range(500)]) == pytest.approx(0.5, abs=0.08)
    assert TimmAutoAugment(config_str="rand-m9").strength(rng) == 0.9


def test_a_magnitude_above_the_largest_counts_as_the_largest(caplog):
    rng = RNG(0)
    assert {TimmAutoAugment(config_str="rand-m15-mstd0.5").strength(rng) for _ in range(100)} == {1.0}
    assert "rand-m15-mstd0.5: 15 is above 10" in caplog.text
    # What is drawn about 10.5 is cut off, not 10.5 itself.
    beside = TimmAutoAugment(config_str="rand-m10.5-mstd0.5")
    assert np.mean([beside.strength(rng) == 1.0 for _ in range(1000)]) == pytest.approx(0.84, abs=0.04)
    caplog.clear()
    assert RandAugment(magnitude=10).strength == 1.0
    assert not caplog.records
    assert RandAugment(magnitude=30).strength == 1.0
    assert "RandAugment.magnitude: 30 is above 10" in caplog.text


def test_each_change_of_timm_is_made_by_chance(monkeypatch):
    """Two draws of 15, each made every second time: one change an image, all kinds alike."""
    made: Counter[str] = Counter()
    for name in list(CHANGES):

        def count(picture, number, canvas, name=name):
            made[name] += 1
            return picture

        monkeypatch.setitem(CHANGES, name, count)
    op, image, rng = TimmAutoAugment(), photo(), RNG(0)
    for _ in range(3000):
        op(image, rng)
    assert sum(made.values()) == pytest.approx(3000, rel=0.05)
    assert set(made) == set(TIMM_CHANGES)
    assert max(made.values()) < 1.5 * min(made.values())
    made.clear()
    half = TimmAutoAugment(prob=0.5)
    for _ in range(2000):
        half(image, rng)
    assert sum(made.values()) == pytest.approx(1000, rel=0.1)


def test_jitter_keeps_what_it_is_told_to_keep():
    image = photo()
    still = build_transforms([{"ColorJitter": {}}])
    np.testing.assert_array_equal(still(image, RNG(0)), image)
    never = build_transforms([{"ColorJitter": {"brightness": 0.9, "hue": 0.5, "prob": 0.0}}])
    np.testing.assert_array_equal(never(image, RNG(0)), image)
    darker = build_transforms([{"ColorJitter": {"brightness": [0.5, 0.5]}}])(image, RNG(0))
    assert np.abs(darker.astype(int) - image / 2).max() <= 1
    turned = build_transforms([{"ColorJitter": {"hue": [0.5, 0.5]}}])(
        np.full((2, 2, 3), (255, 0, 0), np.uint8)
    )
    np.testing.assert_allclose(turned, np.full((2, 2, 3), (0, 255, 255)), atol=3)


def test_gray_and_turned_images():
    gray = build_transforms([{"RandomGrayscale": {"prob": 1.0}}])(photo(), RNG(0))
    assert (gray == gray[:, :, :1]).all()
    rng = RNG(0)
    rare = build_transforms([{"RandomGrayscale": {"prob": 0.2}}])
    hits = [not np.array_equal(rare(photo(), rng), photo()) for _ in range(1000)]
    assert np.mean(hits) == pytest.approx(0.2, abs=0.04)
    turn = build_transforms(
        [{"RandomRotation": {"prob": 1.0, "degrees": [180, 180], "interpolation": "nearest"}}]
    )
    np.testing.assert_array_equal(turn(photo(), RNG(0)), photo()[::-1, ::-1])


def test_pad_and_crop_without_resizing():
    image = photo()
    for mode, numpy_mode in (("edge", "edge"), ("reflect", "reflect"), ("symmetric", "symmetric")):
        found = build_transforms([{"Pad": {"padding": [1, 2, 3, 4], "padding_mode": mode}}])(image)
        np.testing.assert_array_equal(found, np.pad(image, ((2, 4), (1, 3), (0, 0)), numpy_mode))
    found = build_transforms([{"Pad": {"padding": [2, 1], "fill": 9, "backend": "cv2"}}])(image)
    np.testing.assert_array_equal(found, np.pad(image, ((1, 1), (2, 2), (0, 0)), constant_values=9))
    crop = build_transforms([{"RandCropImageV2": {"size": [10, 25]}}])  # width, height
    numbered = np.arange(26 * 28, dtype=np.int32).reshape(26, 28, 1).astype(np.float32)
    begins = {int(crop(numbered, RNG(seed))[0, 0, 0]) for seed in range(400)}
    assert begins == {28 * y + x for y in range(2) for x in range(19)}
    with pytest.raises(DataError, match="RandCropImageV2: the image is 28x26, smaller"):
        build_transforms([{"RandCropImageV2": {"size": 40}}])(image)


@pytest.mark.parametrize("name", ["AutoAugment", "RandAugment", "TimmAutoAugment", "ColorJitter"])
def test_images_a_policy_cannot_work_on(name):
    chain = build_transforms([{name: None}])
    with pytest.raises(DataError, match=f"{name}: expected 8-bit pixels.*before NormalizeImage"):
        chain(photo().astype(np.float32))
    with pytest.raises(DataError, match=f"{name}: expected a decoded image"):
        chain(b"file")


@pytest.mark.parametrize(
    ("node", "part"),
    [
        ({"RandomErasing": {"EPSILON": 1.5}}, "EPSILON: expected a number from 0 to 1"),
        ({"RandomErasing": {"sl": 0.5}}, "0 < sl <= sh <= 1"),
        ({"RandomErasing": {"r1": 2}}, "r1: expected"),
        ({"RandomErasing": {"attempt": 0}}, "attempt: expected 1 or more"),
        ({"RandomErasing": {"mode": "noise"}}, "mode: expected 'const' or 'rand' or 'pixel'"),
        ({"RandomErasing": {"sh": "import os"}}, "arithmetic"),
        ({"RandomErasing": {"mean": [1, 2]}}, "RandomErasing.mean: expected one number for all channels or"),
        ({"RandomErasing": {"mean": []}}, "3 or 4, got []"),
        ({"Cutout": {"fill_value": [1, 2]}}, "Cutout.fill_value: expected one number for all channels or"),
        ({"Cutout": {"length": 0}}, "1 or more"),
        ({"GridMask": {"d1": 300}}, "2 <= d1 < d2"),
        ({"GridMask": {"rotate": 0}}, "rotate: expected"),
        ({"GridMask": {"mode": 2}}, "mode: expected 0 or 1"),
        ({"RandAugment": {"magnitude": -1}}, "magnitude: expected"),
        ({"RandAugment": {"magnitude": float("nan")}}, "magnitude: expected"),
        ({"Cutout": {"fill_value": "random"}}, "fill_value: expected"),
        ({"RandAugment": {"num_layers": 0}}, "num_layers: expected"),
        ({"AutoAugment": {"fillcolor": [1, 2]}}, "fillcolor: expected levels"),
        ({"TimmAutoAugment": {"interpolation": "area"}}, "interpolation: expected 'nearest' or 'bilinear'"),
        ({"TimmAutoAugment": {"prob": -0.1}}, "prob: expected"),
        ({"ColorJitter": {"hue": 0.6}}, "hue: expected a number from 0 to 0.5"),
        ({"ColorJitter": {"contrast": -1}}, "contrast: expected a number of 0 or more"),
        ({"ColorJitter": {"brightness": [1.2, 0.8]}}, "brightness: expected"),
        ({"RandomGrayscale": {"prob": 2}}, "prob: expected"),
        ({"RandomRotation": {"degrees": [3, 1]}}, "degrees: expected"),
        ({"RandomRotation": {"interpolation": "area"}}, "interpolation: expected 'nearest' or 'bilinear'"),
        ({"Pad": {"padding": [1, 2, 3]}}, "Pad: padding must be"),
        ({"Pad": {"padding": 1, "padding_mode": "wrap"}}, "Pad.padding_mode: expected 'constant' or"),
    ],
)
def test_mistakes(node, part):
    with pytest.raises(ConfigError) as caught:
        build_transforms([node])
    assert part in str(caught.value)
