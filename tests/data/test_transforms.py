"""Decoding, resizing, normalising and chains: recorded values and independent references."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ppcls.data import ImageError, build_transforms, read_image
from ppcls.data.transforms.normalize import NormalizeImage
from ppcls.errors import ConfigError, DataError
from ppcls.registry import TRANSFORMS

HERE = Path(__file__).parent
CHAINS = json.loads((HERE / "chains.json").read_text())
RNG = np.random.default_rng


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def photo(size: tuple[int, int] = (40, 30), channels: int = 3) -> np.ndarray:
    return RNG(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


@pytest.mark.parametrize("name", CHAINS)
def test_recorded_chains(name):
    """Every 11th value of what the reference implementation of the same names gave."""
    with np.load(HERE / "chains.npz") as recorded:
        found = np.asarray(build_transforms(CHAINS[name])(recorded["image"].tobytes()))
        assert found.shape == tuple(recorded[f"{name}/shape"])
        values = recorded[f"{name}/values"]
    if values.dtype == np.uint8:
        levels = 1 if "pil" in name else 0
        assert np.abs(found.ravel()[::11].astype(int) - values.astype(int)).max() <= levels
    else:
        np.testing.assert_allclose(found.ravel()[::11], values, atol=2e-6 if "pil" not in name else 0.03)


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_decoding(backend):
    image = photo()

    def decode(**options):
        return build_transforms([{"DecodeImage": {"backend": backend, **options}}])

    np.testing.assert_array_equal(decode()(png(image)), image[:, :, ::-1])
    np.testing.assert_array_equal(decode(to_rgb=False)(png(image)), image)
    np.testing.assert_array_equal(
        decode(channel_first=True)(png(image)), image[:, :, ::-1].transpose(2, 0, 1)
    )
    gray = photo(channels=1)
    np.testing.assert_array_equal(decode(channels=1)(png(gray)), gray)
    np.testing.assert_array_equal(decode()(png(gray)), gray.repeat(3, 2))


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize("kind", ["alpha", "16 bit", "palette", "cmyk"])
def test_unusual_files_become_three_bytes_a_pixel(backend, kind):
    buffer = io.BytesIO()
    rgb = Image.fromarray(np.full((8, 9, 3), (200, 100, 50), np.uint8))
    if kind == "16 bit":
        buffer.write(png(np.full((8, 9, 3), (50 * 257, 100 * 257, 200 * 257), np.uint16)))
    elif kind == "cmyk":
        rgb.convert("CMYK").save(buffer, "JPEG", quality=95)
    else:
        (rgb.convert("RGBA") if kind == "alpha" else rgb.quantize(4)).save(buffer, "PNG")
    found = build_transforms([{"DecodeImage": {"backend": backend}}])(buffer.getvalue())
    assert found.dtype == np.uint8
    assert found.shape == (8, 9, 3)
    assert np.abs(found.astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_orientation_of_the_camera_is_followed(backend):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, exif=exif)
    found = build_transforms([{"DecodeImage": {"backend": backend}}])(buffer.getvalue())
    assert found.shape == (32, 16, 3)
    assert found[:12].min() > 200
    assert found[20:].max() < 50


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize("content", ["text", "half", "half jpeg"])
def test_broken_files_are_image_errors(backend, content, tmp_path):
    whole = png(photo((80, 60)))
    jpeg = cv2.imencode(".jpg", photo((80, 60)))[1].tobytes()
    broken = {"text": b"<html>not found</html>", "half": whole[: len(whole) // 2], "half jpeg": jpeg[:2000]}
    file = tmp_path / "坏.jpg"
    file.write_bytes(broken[content])
    chain = build_transforms([{"DecodeImage": {"backend": backend}}])
    with pytest.raises(ImageError, match="坏.jpg: cannot be decoded"):
        read_image(str(file), chain)


def test_files_that_cannot_be_read(tmp_path):
    chain = build_transforms([{"DecodeImage": None}])
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="empty.jpg: the file is empty"):
        read_image(str(tmp_path / "empty.jpg"), chain)
    with pytest.raises(ImageError, match="gone.jpg: cannot be read: No such file"):
        read_image(str(tmp_path / "gone.jpg"), chain)


@given(width=st.integers(1, 90), height=st.integers(1, 90), short=st.integers(1, 60))
def test_shorter_side_gets_its_length(width, height, short):
    image = np.zeros((height, width, 1), np.uint8)
    found = build_transforms([{"ResizeImage": {"resize_short": short}}])(image)
    assert found.shape[2] == 1
    assert min(found.shape[:2]) == short
    longer = short * max(width, height) / min(width, height)
    assert abs(max(found.shape[:2]) - longer) <= 0.5 + 1e-9


def test_resize_backends_are_the_libraries():
    image = photo((50, 40))

    def resize(**options):
        return build_transforms([{"ResizeImage": {"size": [20, 10], **options}}])(image)

    np.testing.assert_array_equal(resize(), cv2.resize(image, (20, 10), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(
        resize(backend="pil"), np.asarray(Image.fromarray(image).resize((20, 10), Image.Resampling.BICUBIC))
    )
    assert resize(interpolation="area").shape == (10, 20, 3)
    gray = build_transforms([{"ResizeImage": {"size": 12, "backend": "pil"}}])(image[:, :, :1])
    assert gray.shape == (12, 12, 1)


def test_random_interpolation_uses_both_and_the_generator():
    image = photo((50, 40))
    chain = build_transforms([{"ResizeImage": {"size": 20, "interpolation": "random"}}])
    both = {
        name: build_transforms([{"ResizeImage": {"size": 20, "interpolation": name}}])(image).tobytes()
        for name in ("bilinear", "bicubic")
    }
    drawn = [chain(image, RNG(seed)).tobytes() for seed in range(20)]
    assert set(drawn) == set(both.values())
    assert drawn[3] == chain(image, RNG(3)).tobytes()


@given(
    scale=st.sampled_from([None, "1.0/255.0", 0.00392157, 1.0]),
    order=st.sampled_from(["", "hwc", "chw"]),
    last=st.booleans(),
    kind=st.sampled_from([np.uint8, np.float32]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_normalisation_in_float64(scale, order, last, kind, channels, seed):
    rng = RNG(seed)
    mean, std = rng.uniform(0.2, 0.8, channels), rng.uniform(0.1, 0.5, channels)
    image = rng.integers(0, 256, (7, 5, channels)).astype(kind)
    factor = {None: 1 / 255, "1.0/255.0": 1 / 255}.get(scale, scale)
    expected = (image.astype(np.float64) * factor - mean) / std
    options = {"scale": scale, "mean": mean.tolist(), "std": std.tolist(), "order": order}
    ops = [{"NormalizeImage": options}]
    if order == "chw":
        ops = [{"ToCHWImage": None}, *ops]
    elif last:
        ops.append({"ToCHWImage": None})
    chain = build_transforms(ops)
    chw = expected.transpose(2, 0, 1)
    for found, wanted in (
        (chain(image), chw if order == "chw" or last else expected),
        (chain.chw(image), chw),
    ):
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max() + 1e-7


def test_normalise_half_precision_and_extra_channels():
    image = photo()
    chain = build_transforms([{"NormalizeImage": {"order": "", "output_fp16": True, "channel_num": 4}}])
    found = chain.chw(image)
    assert found.dtype == np.float16
    assert found.shape == (4, 30, 40)
    assert not found[3].any()
    np.testing.assert_array_equal(chain(image).transpose(2, 0, 1), found)


def test_one_mean_serves_all_channels():
    options = {"order": "", "mean": [0.5], "std": [0.25]}
    found = NormalizeImage(**options)(photo(), RNG())
    np.testing.assert_allclose(found, (photo() / 255 - 0.5) / 0.25, atol=1e-6)
    np.testing.assert_array_equal(
        build_transforms([{"NormalizeImage": options}]).chw(photo()), found.transpose(2, 0, 1)
    )


def test_a_chain_without_normalisation_is_float32_for_the_network_only():
    chain = build_transforms([{"DecodeImage": None}])
    assert chain(png(photo())).dtype == np.uint8
    assert chain.chw(png(photo())).dtype == np.float32
    assert chain.chw(png(photo())).shape == (3, 30, 40)
    chain = build_transforms([{"DecodeImage": {"channel_first": True}}])
    assert chain.chw(png(photo())).shape == (3, 30, 40)


@pytest.mark.parametrize(
    ("ops", "part"),
    [
        (
            [{"DecodeImage": {"to_rbg": True}}],
            "transforms.0: DecodeImage has no option 'to_rbg'. Did you mean",
        ),
        ([{"DecodImage": None}], "transforms.0: unknown transform 'DecodImage'. Did you mean: DecodeImage"),
        ([{"DecodeImage": None}, {"CropImage": None}], "transforms.1: CropImage needs the option 'size'"),
        ([{"ResizeImage": {"size": 3, "resize_short": 4}}], "either size or resize_short"),
        ([{"ResizeImage": None}], "either size or resize_short"),
        (
            [{"ResizeImage": {"size": 3, "interpolation": "area", "backend": "pil"}}],
            "pil has no interpolation",
        ),
        ([{"ResizeImage": {"size": 3, "interpolation": "bicubc"}}], "Did you mean: bicubic"),
        ([{"ResizeImage": {"size": 3, "backend": "PIL"}}], "backend: expected 'cv2' or 'pil'"),
        ([{"CropImage": {"size": [1, 2, 3]}}], "size must be"),
        ([{"CropImage": {"size": 0}}], "size must be"),
        ([{"RandCropImage": {"size": 3, "scale": [1, 0.5]}}], "0 < low <= high"),
        ([{"RandCropImage": {"size": 3, "scale": [0.5, 2]}}], "at most 1"),
        ([{"RandomCropImage": {"size": 3, "padding": -1}}], "padding must be"),
        ([{"RandomCropImage": {"size": 3, "padding_mode": "wrap"}}], "padding_mode: expected 'constant' or"),
        ([{"RandFlipImage": {"flip_code": 2}}], "flip_code: expected 1 or 0 or -1"),
        ([{"NormalizeImage": {"mean": [1, 2]}}], "mean has 2 values and std has 3"),
        ([{"NormalizeImage": {"std": [0.2, 0, 0.2]}}], "std must be positive"),
        ([{"NormalizeImage": {"scale": "__import__('os')"}}], "no arithmetic"),
        ([{"NormalizeImage": {"order": "cwh"}}], "order: expected 'chw' or 'hwc'"),
        ([{"DecodeImage": {"channels": 2}}], "channels: expected 1 or 3"),
        ({"DecodeImage": None}, "expected a list of transforms"),
    ],
)
def test_mistakes_in_a_chain(ops, part):
    with pytest.raises(ConfigError) as caught:
        build_transforms(ops)
    assert part in str(caught.value)


HWC = {"DecodeImage": {}}
CHW = {"DecodeImage": {"channel_first": True}}


@pytest.mark.parametrize(
    ("ops", "text"),
    [
        (
            [HWC, {"NormalizeImage": {"order": "chw"}}],
            "1.NormalizeImage.order: 'chw', which is for images [C, H, W], but they come as [H, W, C]: "
            "DecodeImage has channel_first: false; set order: ''",
        ),
        ([HWC, {"RandFlipImage": {}}, {"NormalizeImage": None}], "2.NormalizeImage.order: chw (the default)"),
        ([HWC, {"NormalizeImage": {"mean": [0.5], "std": [0.5]}}], "order: chw (the default)"),
        ([CHW, {"NormalizeImage": {"order": "hwc"}}], "has channel_first: true; set order: chw"),
        (
            [HWC, {"ToCHWImage": None}, {"NormalizeImage": {"order": ""}}],
            "ToCHWImage comes before; set order",
        ),
        ([{"ToCHWImage": None}, {"NormalizeImage": {"order": None}}], "None, which is for images [H, W, C]"),
        (
            [{"ResizeImage": {"size": 3}}, HWC],
            "1.DecodeImage: comes first in a chain, but here it is number 2",
        ),
        ([HWC, {"RandFlipImage": None}, HWC], "2.DecodeImage: comes first in a chain"),
    ],
)
def test_the_order_of_a_normalisation_must_be_that_of_the_images(ops, text):
    with pytest.raises(ConfigError) as caught:
        build_transforms(ops, "chain")
    assert str(caught.value).startswith("chain.")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "ops",
    [
        [HWC, {"NormalizeImage": {"order": ""}}, {"ToCHWImage": None}],
        [HWC, {"NormalizeImage": {"order": "hwc"}}],
        [HWC, {"ToCHWImage": None}, {"NormalizeImage": {}}],
        [CHW, {"NormalizeImage": {"order": "chw"}}],
        [CHW, {"NormalizeImage": {"order": "", "mean": [0.5], "std": [0.5]}}],
    ],
)
def test_orders_that_fit_give_the_same(ops):
    content = png(photo())
    options = {"mean": [0.5], "std": [0.5]} if "mean" in str(ops) else {}
    expected = build_transforms([HWC, {"NormalizeImage": {"order": "", **options}}]).chw(content)
    np.testing.assert_array_equal(build_transforms(ops).chw(content), expected)


def test_nothing_is_known_of_the_order_that_plugins_return(monkeypatch):
    class Turned:
        def __call__(self, image, rng):
            return image.transpose(2, 0, 1)

    monkeypatch.setitem(TRANSFORMS._items, "Turned", Turned)
    chain = build_transforms([HWC, {"Turned": None}, {"NormalizeImage": {"order": "chw"}}])
    assert chain.chw(png(photo())).shape == (3, 30, 40)
    assert build_transforms([{"Turned": None}, HWC])  # it may take bytes and give bytes


@pytest.mark.parametrize(
    ("ops", "image", "part"),
    [
        ([{"CropImage": {"size": 4}}], b"bytes", "CropImage: expected a decoded image, got bytes"),
        ([{"DecodeImage": None}], photo(), "DecodeImage: expected the bytes of a file, got an array"),
        ([{"CropImage": {"size": 50}}], photo(), "the image is 40x30, smaller than the crop of 50x50"),
        ([{"RandomCropImage": {"size": 50}}], photo(), "smaller than the crop"),
        ([{"ToCHWImage": None}, {"CropImage": {"size": 4}}], photo(), "belong at the end of the chain"),
        (
            [{"NormalizeImage": {"order": "chw"}}],
            photo(),
            "order is chw, but the image comes as [H, W, C], with the shape [30, 40, 3]; set order: ''",
        ),
        (
            [{"NormalizeImage": {"order": "chw", "mean": [0.5], "std": [0.5]}}],
            photo(channels=1),
            "order is chw, but the image comes as [H, W, C], with the shape [30, 40, 1]; set order: ''",
        ),
        (
            [{"NormalizeImage": {"order": "hwc"}}],
            photo().transpose(2, 0, 1),
            "order is hwc, but the image comes as [C, H, W], with the shape [3, 30, 40]; set order: chw",
        ),
        ([{"NormalizeImage": {"order": "chw"}}], photo()[..., :2], "3 means for an image with 30 channels"),
        ([{"NormalizeImage": {"order": ""}}], photo(channels=1), "3 means for an image with 1 channels"),
    ],
)
def test_images_that_do_not_fit_a_transform(ops, image, part):
    with pytest.raises(DataError) as caught:
        build_transforms(ops)(image)
    assert part in str(caught.value)


def test_reused_memory_of_normalisation_gives_every_thread_its_own_image():
    from concurrent.futures import ThreadPoolExecutor

    shapes = [(5, 7, 1), (8, 6, 3), (5, 7, 4), (6, 6, 5), (8, 6, 3)] * 40
    images = [RNG(n).integers(0, 256, shape, dtype=np.uint8) for n, shape in enumerate(shapes)]

    def normalise(image: np.ndarray) -> np.ndarray:
        return NormalizeImage(scale=2, mean=[1.0], std=[4.0], order="").apply(image, True)

    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(normalise, images)]
    for image, result in zip(images, found, strict=True):
        np.testing.assert_array_equal(result, (image.transpose(2, 0, 1) * 2.0 - 1) / 4)
