"""Only the rows that a crop needs are decoded, and no pixel differs from decoding all of them."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ppcls.data import ImageError, build_transforms
from ppcls.data.headers import jpeg_frame
from ppcls.data.rng import SampleNumbers
from ppcls.data.transforms import decode, jpeg

simplejpeg = pytest.importorskip("simplejpeg")
SAMPLINGS = {"4:4:4": 0x111111, "4:2:2": 0x211111, "4:2:0": 0x221111, "4:4:0": 0x121111, "4:1:1": 0x411111}


def noise(width: int = 96, height: int = 80) -> np.ndarray:
    """Return a picture that differs from pixel to pixel, so that every neighbour counts."""
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def saved(picture: np.ndarray, mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(file, "JPEG", **options)
    return file.getvalue()


def by_opencv(picture: np.ndarray, sampling: str, quality: int, restart: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    return cv2.imencode(".jpg", picture, options)[1].tobytes()


def views(content: bytes, number: int = 0, **options) -> tuple[np.ndarray, int]:
    """Return a view of a file, and how many rows were decoded for it."""
    steps = [{"RandCropImage": {"size": 24, "scale": [0.05, 0.6]}}, {"RandFlipImage": {"flip_code": 1}}]
    begun = build_transforms([{"DecodeImage": options}, *steps]).begin(content, SampleNumbers(0, 0, number))
    rows = []
    first = begun.first

    def counted():
        image = first()
        rows.append(len(image))
        return image

    begun.first = counted
    return begun.head(), rows[0]


def all_rows(monkeypatch, content: bytes, number: int = 0, **options) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(decode, "decoders_agree", lambda: False)
        view, rows = views(content, number, **options)
    assert rows == cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[0]
    return view


def test_both_decoders_are_here_and_agree():
    assert jpeg.decoders_agree()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 120),
    sampling=st.sampled_from(list(SAMPLINGS)),
    quality=st.integers(1, 100),
    restart=st.sampled_from([0, 1, 5]),
    number=st.integers(0, 1000),
    options=st.sampled_from([{}, {"to_rgb": False}, {"channels": 1}]),
)
@example(64, 120, "4:2:0", 90, 0, 3, {})
def test_views_are_equal(width, height, sampling, quality, restart, number, options):
    content = by_opencv(noise(width, height), sampling, quality, restart)
    view, _ = views(content, number, **options)
    with pytest.MonkeyPatch.context() as patch:
        np.testing.assert_array_equal(view, all_rows(patch, content, number, **options))


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("backend", ["cv2", "simplejpeg"])
def test_fewer_rows_are_decoded(sampling, backend):
    content = by_opencv(noise(96, 160), sampling, 90, 0)
    rows = [views(content, number, backend=backend)[1] for number in range(40)]
    assert max(rows) == 160
    assert np.mean(rows) < 0.85 * 160
    block = 16 if sampling == "4:2:0" else 8
    assert all(number % block == 0 for number in rows)


def test_a_gray_file(monkeypatch):
    content = saved(noise()[:, :, 0])
    for options in ({}, {"channels": 1}):
        np.testing.assert_array_equal(
            views(content, 5, **options)[0], all_rows(monkeypatch, content, 5, **options)
        )


def turned(orientation: int, width: int = 96, height: int = 80) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(noise(width, height), exif=exif)


FILES = {
    "progressive": lambda: saved(noise(), progressive=True),
    "CMYK": lambda: saved(noise(), "CMYK"),
    "turned": lambda: turned(6),
    "turned and large": lambda: turned(6, 1000, 800),
    "upright by EXIF and large": lambda: turned(1, 1000, 800),
    "bytes after the end": lambda: saved(noise()) + b"\0\0",
    "colours of Adobe": lambda: saved(noise()).replace(
        b"\xff\xdb", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0\xff\xdb", 1
    ),
    "declared larger than it is": lambda: with_height(200),
    "declared smaller than it is": lambda: with_height(40),
}


def with_height(rows: int) -> bytes:
    content = bytearray(saved(noise()))
    place = jpeg_frame(bytes(content)).place
    content[place : place + 2] = rows.to_bytes(2, "big")
    return bytes(content)


@pytest.mark.parametrize("kind", FILES)
def test_unusual_files(monkeypatch, kind):
    content = FILES[kind]()
    for number in range(6):
        view, rows = views(content, number)
        np.testing.assert_array_equal(view, all_rows_or_fewer(monkeypatch, content, number))
        if kind in ("progressive", "CMYK", "turned", "turned and large", "bytes after the end"):
            assert rows == cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[0]


def all_rows_or_fewer(monkeypatch, content: bytes, number: int) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(decode, "decoders_agree", lambda: False)
        return views(content, number)[0]


def test_a_large_upright_photo_with_exif_gains_too():
    content = turned(1, 1000, 800)
    assert min(views(content, number)[1] for number in range(10)) < 800


@pytest.mark.parametrize("backend", ["cv2", "simplejpeg"])
def test_a_file_that_was_cut_off_is_reported(backend):
    content = saved(noise(96, 160))
    for length in (len(content) // 2, len(content) - 2):
        with pytest.raises(ImageError, match="cut off"):
            views(content[:length], backend=backend)


def test_damage_inside_gives_what_opencv_gives(monkeypatch):
    content = bytearray(saved(noise(96, 160)))
    for place in range(700, len(content) - 100, 997):
        content[place] ^= 0x55
    for number in range(5):
        np.testing.assert_array_equal(
            views(bytes(content), number)[0], all_rows_or_fewer(monkeypatch, bytes(content), number)
        )


def test_opencv_decodes_all_rows_if_simplejpeg_refuses(monkeypatch):
    content = saved(noise(96, 160))
    expected = [views(content, number)[0] for number in range(5)]

    def refuse(*_, **__):
        raise ValueError("no")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    for number, view in enumerate(expected):
        again, rows = views(content, number)
        np.testing.assert_array_equal(again, view)
        assert rows == 160


@pytest.mark.parametrize("part", ["exact", "rows", "missing"])
def test_a_library_that_is_not_exact_is_not_used_for_it(monkeypatch, part):
    real = simplejpeg.decode_jpeg

    def inexact(buffer, **options):
        pixels = real(buffer, **options)
        return pixels ^ (1 if part == "exact" or len(pixels) < 72 else 0)

    if part == "missing":
        monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", inexact)
    jpeg.decoders_agree.cache_clear()
    try:
        assert not jpeg.decoders_agree()
        assert views(saved(noise(96, 160)), 0)[1] == 160
    finally:
        jpeg.decoders_agree.cache_clear()


def test_a_part_of_a_file_has_no_frame():
    content = saved(noise(16, 16))
    frame = jpeg_frame(content)
    assert (frame.width, frame.height, frame.sampling[0], frame.exif) == (16, 16, (2, 2), False)
    assert all(jpeg_frame(content[:length]) is None for length in range(len(content)))
    assert jpeg_frame(memoryview(content)) == frame
    for place in range(2, 200):  # a header with any byte changed is read or refused, without an error
        for value in (0, 0xC0, 0xDA, 0xFF):
            jpeg_frame(content[:place] + bytes([value]) + content[place + 1 :])
