"""Decoding: OpenCV's own order of channels, smaller sizes, and simplejpeg."""

from __future__ import annotations

import io
import logging
import sys
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.data import ImageError, build_transforms
from ppcls.data.transforms import decode, jpeg
from ppcls.errors import ConfigError


def smooth(width: int = 96, height: int = 64) -> np.ndarray:
    """Return a picture whose colours change slowly, as in photos."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / width, y * 255 / height, 255 - x * 128 / width - y * 127 / height]
    return np.stack(planes, -1).astype(np.uint8)


def encoded(kind: str, width: int = 96, height: int = 64) -> bytes:
    """Return `smooth` as a file of a kind."""
    picture = Image.fromarray(smooth(width, height))
    buffer = io.BytesIO()
    if kind == "16 bit PNG":
        return cv2.imencode(".png", smooth(width, height).astype(np.uint16) * 257)[1].tobytes()
    if kind == "turned JPEG":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(buffer, "JPEG", exif=exif)
    elif " " in kind:
        mode, form = kind.split()
        picture.convert(mode).save(buffer, form)
    else:
        picture.save(buffer, kind)
    return buffer.getvalue()


KINDS = ["JPEG", "L JPEG", "CMYK JPEG", "turned JPEG", "PNG", "RGBA PNG", "P PNG", "L PNG", "16 bit PNG"]
KINDS += ["BMP", "WEBP", "RGBA WEBP", "TIFF", "L TIFF"]


def chain(**options):
    return build_transforms([{"DecodeImage": options}])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"to_rgb": False}, {"channels": 1}, {"reduced": 20}])
def test_decoding_to_rgb_gives_the_pixels_of_decoding_and_converting(kind, options, monkeypatch):
    content = encoded(kind)
    direct = chain(**options)(content)
    monkeypatch.setattr(decode, "_RGB_FLAG", 0)
    np.testing.assert_array_equal(direct, chain(**options)(content))


DECODERS = [{}, {"to_rgb": False}, {"channels": 1}, {"backend": "pil"}, {"backend": "simplejpeg"}]


@pytest.mark.parametrize("options", DECODERS)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(
    ("form", "how"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_transparency_changes_no_colour(form, how, mode, options):
    """OpenCV multiplies the colours of a TIFF file by it."""
    buffer = io.BytesIO()
    Image.merge(mode, [Image.new("L", (8, 6), 50 if band == "A" else 200) for band in mode]).save(
        buffer, form, **how
    )
    found = chain(**options)(buffer.getvalue())
    assert found.shape == (6, 8, options.get("channels", 3))
    assert set(found.ravel()) == {200}


def test_colours_of_a_transparent_tiff_keep_their_order_and_orientation():
    buffer = io.BytesIO()
    picture = Image.fromarray(smooth())
    picture.putalpha(50)
    picture.save(buffer, "TIFF", tiffinfo={0x0112: 3})
    for to_rgb in (True, False):
        expected = smooth()[::-1, ::-1, :: 1 if to_rgb else -1]
        np.testing.assert_array_equal(chain(to_rgb=to_rgb)(buffer.getvalue()), expected)


@pytest.mark.parametrize("options", DECODERS)
@pytest.mark.parametrize("largest", [1, 15, 100, 255, 300, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_the_largest_value_of_a_netpbm_file_is_white(kind, largest, options):
    channels = 3 if kind in ("P3", "P6") else 1
    values = np.repeat(np.linspace(0, largest, 48).round().astype(int), channels)
    if kind in ("P2", "P3"):
        pixels = " ".join(map(str, values)).encode() + b"\n"
    else:
        pixels = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    found = chain(**options)(f"{kind}\n# 1 2 3 4\n8 6\n{largest}\n".encode() + pixels)
    expected = (values * 255 / largest).reshape(6, 8, channels)
    assert found.shape == (6, 8, options.get("channels", 3))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize(
    ("reduced", "size"),
    [(None, (200, 120)), (121, (200, 120)), (61, (200, 120)), (60, (100, 60)), (30, (50, 30)), (1, (25, 15))],
)
def test_reduced_keeps_the_shorter_side(backend, reduced, size):
    found = chain(backend=backend, reduced=reduced)(encoded("JPEG", 200, 120))
    assert found.shape == (size[1], size[0], 3)
    expected = cv2.resize(smooth(200, 120), size, interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_reduced_follows_the_orientation_and_leaves_other_formats(backend):
    assert chain(backend=backend, reduced=30)(encoded("turned JPEG", 200, 120)).shape == (50, 30, 3)
    assert chain(backend=backend, reduced=30, channels=1)(encoded("JPEG", 200, 120)).shape == (30, 50, 1)
    assert chain(backend=backend, reduced=30)(encoded("PNG", 200, 120)).shape == (120, 200, 3)


@pytest.mark.parametrize("reduced", [0, -3, True])
def test_reduced_must_be_a_number_of_pixels(reduced):
    with pytest.raises(ConfigError, match="reduced"):
        chain(reduced=reduced)


@pytest.fixture
def library(monkeypatch):
    """A stand-in for simplejpeg that decodes with OpenCV and adds 1 to every pixel it can."""
    fake = types.ModuleType("simplejpeg")
    fake.calls = []

    def decode_jpeg(buffer, **options):
        fake.calls.append(options)
        pixels = cv2.imdecode(np.frombuffer(buffer, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError("damaged")
        pixels = pixels[:, :, ::-1] if options["colorspace"] == "RGB" else pixels
        return np.minimum(pixels, 254) + np.uint8(1)

    fake.decode_jpeg = decode_jpeg
    monkeypatch.setitem(sys.modules, "simplejpeg", fake)
    forget_library()
    assert not jpeg.decoders_agree()
    fake.calls.clear()
    yield fake
    forget_library()


def forget_library():
    jpeg.simplejpeg.cache_clear()
    jpeg.decoders_agree.cache_clear()


def test_simplejpeg_decodes_jpeg_files(library):
    content = encoded("JPEG")
    for to_rgb in (True, False):
        found = chain(backend="simplejpeg", to_rgb=to_rgb)(content)
        np.testing.assert_array_equal(found, np.minimum(chain(to_rgb=to_rgb)(content), 254) + 1)
    assert [call["colorspace"] for call in library.calls] == ["RGB", "BGR"]
    chain(backend="simplejpeg", reduced=31)(encoded("JPEG", 201, 121))
    assert (library.calls[-1]["min_width"], library.calls[-1]["min_height"]) == (101, 61)


@pytest.mark.parametrize("kind", ["turned JPEG", "PNG", "WEBP"])
def test_opencv_decodes_what_simplejpeg_does_not(library, kind):
    content = encoded(kind)
    np.testing.assert_array_equal(chain(backend="simplejpeg")(content), chain()(content))


def test_damaged_files_have_the_same_message_with_simplejpeg(library):
    with pytest.raises(ImageError, match="cannot be decoded: the JPEG data"):
        chain(backend="simplejpeg")(encoded("JPEG")[:400])
    assert library.calls


def test_without_simplejpeg_opencv_decodes_and_one_message_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    forget_library()
    monkeypatch.setattr(jpeg.LOGGER, "propagate", True)
    with caplog.at_level(logging.WARNING, jpeg.LOGGER.name):
        chains = [chain(backend="simplejpeg") for _ in range(3)]
    assert caplog.text.count("pip install 'ppcls[fast]'") == 1
    np.testing.assert_array_equal(chains[0](encoded("JPEG")), chain()(encoded("JPEG")))
    forget_library()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"to_rgb": False}, {"channels": 1}, {"reduced": 20}])
def test_the_real_simplejpeg_is_near_opencv(kind, options):
    pytest.importorskip("simplejpeg")
    found = chain(backend="simplejpeg", **options)(encoded(kind)).astype(int)
    expected = chain(**options)(encoded(kind)).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2
