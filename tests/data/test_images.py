"""Every kind of image file: what it decodes to, the same with both decoders, or why it does not."""

from __future__ import annotations

import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.data import ImageError, build_transforms, list_images, read_image
from ppcls.data.headers import declared_size, oddities, why_not_decoded
from ppcls.data.transforms import Compose
from ppcls.errors import ConfigError, DataError

Y, X = np.mgrid[:24, :32]
PIXELS = np.stack([X * 8, Y * 10, (X + Y) * 4], -1).astype(np.uint8)
RGB = Image.fromarray(PIXELS)
GRAY = np.repeat(PIXELS[..., :1], 3, 2)
ROTATED = np.rot90(PIXELS, -1)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_claiming(width: int, height: int) -> bytes:
    content = bytearray(saved(RGB, "JPEG"))
    place = content.find(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def deep(values: np.ndarray, kind: str) -> bytes:
    return cv2.imencode(kind, values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()


RGBA = Image.fromarray(np.dstack([PIXELS, np.zeros_like(PIXELS[..., 0])]))
READABLE = {
    "rgb.jpg": (saved(RGB, "JPEG", quality=98), PIXELS),
    "gray.jpg": (saved(Image.fromarray(PIXELS[..., 0]), "JPEG", quality=98), GRAY),
    "cmyk.jpg": (saved(RGB.convert("CMYK"), "JPEG", quality=98), PIXELS),
    "gray16.png": (deep(PIXELS[..., 0].astype(np.uint16) * 257, ".png"), GRAY),
    "rgb16.png": (deep(PIXELS.astype(np.uint16) * 257, ".png"), PIXELS),
    "rgb16.tiff": (deep(PIXELS.astype(np.uint16) * 257, ".tiff"), PIXELS),
    "hidden.png": (saved(RGBA, "PNG"), PIXELS),
    "palette.png": (saved(RGB.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=0), PIXELS),
    "turned.jpg": (saved(RGB, "JPEG", quality=98, exif=exif(6)), ROTATED),
    "turned.png": (saved(RGB, "PNG", exif=exif(6)), ROTATED),
    "senseless_exif.jpg": (saved(RGB, "JPEG", quality=98, exif=exif(99)), PIXELS),
    "a.bmp": (saved(RGB, "BMP"), PIXELS),
    "a.webp": (saved(RGB, "WEBP", lossless=True), PIXELS),
    "a.tiff": (saved(RGB, "TIFF"), PIXELS),
    "png_inside.jpg": (saved(RGB, "PNG"), PIXELS),
}


def decode(content: bytes, **options) -> np.ndarray:
    return build_transforms([{"DecodeImage": options}])(content)


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize("name", READABLE)
def test_unusual_images_become_what_they_show(name, backend):
    content, expected = READABLE[name]
    found = decode(content, backend=backend).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < (5 if name == "palette.png" else 2.5)
    if name.endswith((".png", ".tiff")) and name != "palette.png":
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_decoders_turn_alike(orientation):
    content = saved(RGB, "PNG", exif=exif(orientation))
    np.testing.assert_array_equal(decode(content), decode(content, backend="pil"))


def test_oddities_are_named():
    kinds = {name: set(oddities(content, name)) for name, (content, _) in READABLE.items()}
    assert {name: found for name, found in kinds.items() if found} == {
        "gray.jpg": {"gray"},
        "cmyk.jpg": {"CMYK"},
        "gray16.png": {"16 bits", "gray"},
        "rgb16.png": {"16 bits"},
        "rgb16.tiff": {"16 bits"},
        "hidden.png": {"transparency"},
        "palette.png": {"transparency"},
        "turned.jpg": {"turned by EXIF"},
        "turned.png": {"turned by EXIF"},
        "png_inside.jpg": {"wrong extension"},
    }
    assert "named .jpg, but it is PNG" in oddities(*reversed(["a.jpg", saved(RGB, "PNG")]))["wrong extension"]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
UNREADABLE = {
    "text": (b"hello", "it is text, no image: 'hello'; perhaps a failed download"),
    "html": (b"<!DOCTYPE html><html>\n 404 \xe5\xad\x97", "it is text, no image: '<!DOCTYPE html>"),
    "zeros": (bytes(5000), "5000 bytes that begin with zeros; copy"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(80), "a HEIC file, which is not supported; convert it to JPEG"),
    "pdf": (b"%PDF-1.4\n\xff\xfe", "a PDF document"),
    "apple double": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "what macOS notes about a file of the same name"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "junk": (b"\x81\x01\x02" * 99, "297 bytes of no known image format; convert"),
    "half a jpeg": (saved(NOISE, "JPEG")[:9000], "the JPEG data (9000 bytes) are damaged, cut off"),
    "jpeg without end": (saved(NOISE, "JPEG")[:-2], "the JPEG data"),
    "half a png": (saved(NOISE, "PNG")[:9000], "the PNG data (9000 bytes)"),
    "png header": (saved(NOISE, "PNG")[:20], "the PNG data (20 bytes)"),
    "half a bmp": (saved(NOISE, "BMP")[:9000], "the BMP data"),
    "half a webp": (saved(NOISE, "WEBP")[:3000], "the WebP data"),
    "half a tiff": (saved(NOISE, "TIFF")[:9000], "the TIFF data"),
    "float tiff": (saved(RGB.convert("F"), "TIFF"), "the TIFF data"),
}


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_cannot_be_decoded_say_what_they_are(name, backend):
    content, message = UNREADABLE[name]
    with pytest.raises(ImageError) as caught:
        decode(content, backend=backend)
    assert "cannot be decoded: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize(
    "content", [png_claiming(60000, 50000), jpeg_claiming(60000, 50000)], ids=["png", "jpeg"]
)
def test_a_bomb_is_refused_before_decoding(content, backend, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *a: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="refused before decoding: .* 60000 x 50000 pixels, .* max_pixels"):
        decode(content, backend=backend)


def test_the_limit_can_be_set():
    content = READABLE["a.webp"][0]
    assert decode(content, max_pixels=24 * 32).shape == (24, 32, 3)
    with pytest.raises(ImageError, match=re.escape("32 x 24 pixels, more than max_pixels (767)")):
        decode(content, max_pixels=24 * 32 - 1)
    with pytest.raises(ConfigError, match="max_pixels must be at least 1"):
        decode(content, max_pixels=0)


@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Truncated")
@pytest.mark.parametrize("name", READABLE)
def test_declared_sizes_are_those_of_the_pixels(name):
    content = READABLE[name][0]
    assert declared_size(content) == (32, 24)
    for length in range(0, len(content), 7):  # a cut header is no size, never an error
        assert declared_size(content[:length]) in (None, (32, 24))
        assert why_not_decoded(content[:length])


def test_a_progressive_jpeg_with_a_long_profile_has_a_size():
    content = saved(NOISE, "JPEG", progressive=True, icc_profile=b"p" * 90000, exif=exif(3))
    assert declared_size(content) == (200, 200)


def test_names_in_any_script(tmp_path):
    path = tmp_path / "图片 🐱" / "é ñ.png"
    path.parent.mkdir()
    path.write_bytes(saved(RGB, "PNG"))
    (tmp_path / "列表.txt").write_text(f"{path.parent.name}/{path.name} 3\n", encoding="utf-8")
    chain = build_transforms([{"DecodeImage": None}])
    for source in (path, path.parent, tmp_path, tmp_path / "列表.txt"):
        assert list_images(source) == [str(path)]
    assert read_image(str(path), chain).shape == (3, 24, 32)
    path.write_bytes(b"")
    with pytest.raises(ImageError, match="图片 🐱/é ñ.png: the file is empty"):
        read_image(str(path), chain)
    (tmp_path / "gbk.txt").write_text("狗.png 3\n", encoding="gbk")
    with pytest.raises(DataError, match=r"gbk.txt:1: not UTF-8"):
        list_images(tmp_path / "gbk.txt")


def test_an_empty_path_is_not_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(saved(RGB, "PNG"))
    monkeypatch.chdir(tmp_path)
    for source in ("", [""], ["a.png", ""]):
        with pytest.raises(DataError, match="an empty path"):
            list_images(source)
    assert list_images(".") == ["./a.png"]


def test_a_transform_that_fails_names_the_image(tmp_path):
    path = tmp_path / "small.png"
    path.write_bytes(saved(RGB, "PNG"))
    with pytest.raises(DataError, match=r"small.png: CropImage: the image is 32x24"):
        read_image(str(path), build_transforms([{"DecodeImage": None}, {"CropImage": {"size": 64}}]))

    class Plugin:
        def __call__(self, image, rng):
            raise LookupError("of a plugin")

    with pytest.raises(DataError, match=r"small.png: Plugin: LookupError: of a plugin"):
        read_image(str(path), Compose([Plugin()]))


def test_images_of_other_kinds_in_a_folder_are_counted(tmp_path, caplog):
    for name in ("a.png", "b.HEIC", "c.heic", "d.gif", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    assert list_images(tmp_path) == [str(tmp_path / "a.png")]
    assert "not taken from this folder: 2 .heic, 1 .gif; if they are images" in caplog.text
