"""What is no weights file is named for what it is, with what to do about it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ppcls.errors import WeightsError
from ppcls.weights import find_file, read_params, write_params


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pdparams"), io.BytesIO())
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inner.pdparams", b"x")
    return stream.getvalue()


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
CASES = {
    "page": (b"<!DOCTYPE html>\n<html lang='en'><head>", "a web page (HTML)"),
    "old page": (b"\n  <HTML><BODY>Please log in</BODY>", "a web page (HTML)"),
    "commented page": (b"<!-- saved -->\n<!doctype HTML>", "a web page (HTML)"),
    "page with a byte order mark": (b"\xef\xbb\xbf<!DOCTYPE html>", "a web page (HTML)"),
    "pointer": (LFS, "`git lfs pull`"),
    "gzip": (gzip.compress(b"x"), "a gzip archive; unpack it"),
    "bzip2": (bz2.compress(b"x"), "a bzip2 archive; unpack it"),
    "xz": (lzma.compress(b"x"), "an xz archive; unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "a zstd archive; unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive; unpack it"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "a rar archive; unpack it"),
    "gguf": (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
    "tar": (_tar(), "a tar archive; unpack it"),
    "json": (b'{"architectures": ["ResNet"]}', "text (JSON)"),
    "array": (_npy(), "an array that NumPy saved"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "jpeg": (b"\xff\xd8\xff\xe0", "an image"),
    "png": (b"\x89PNG\r\n\x1a\n", "an image"),
    "gif": (b"GIF89a", "an image"),
}


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors", ".pth", ".th", ".bin", ""])
@pytest.mark.parametrize("case", CASES)
def test_other_things_under_the_name_of_weights(tmp_path: Path, case: str, suffix: str) -> None:
    content, words = CASES[case]
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_params(file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors", ".pth"])
def test_an_empty_file_is_called_empty(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"w{suffix}").write_bytes(b"")
    with pytest.raises(
        WeightsError, match="it is empty: it was not written, copied or downloaded to its end"
    ):
        read_params(tmp_path / f"w{suffix}")


def test_a_file_under_the_suffix_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "w.pdparams").write_bytes(_zip())
    with pytest.raises(WeightsError, match=r"a zip archive. If PyTorch wrote it, call it \.pth"):
        read_params(tmp_path / "w.pdparams")
    (tmp_path / "w.pth").write_bytes(_zip())
    with pytest.raises(WeightsError, match=r"without data\.pkl"):
        read_params(tmp_path / "w.pth")
    content = b"\x3f" + bytes(7) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + bytes(13)
    for name in ("w.pdparams", "w.pth"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=r"a safetensors file; call it \.safetensors"):
            read_params(tmp_path / name)
    write_params(tmp_path / "w.bin", {"a": np.zeros(1)})
    with pytest.raises(WeightsError, match=r"a pickle of something else. .*call it \.pdparams"):
        read_params(tmp_path / "w.bin")
    for name, node in (("net.onnx", "OnnxModel"), ("inference.pdiparams", "PaddleInferenceModel")):
        (tmp_path / name).write_bytes(b"something")
        with pytest.raises(WeightsError, match=f"a network that was exported, .*{{name: {node}, path: "):
            read_params(tmp_path / name)


def test_a_folder_given_as_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a folder, not a weights file. There are no weights in it"):
        find_file(tmp_path, "Global.pretrained_model")
    write_params(tmp_path / "resnet8" / "best_model.pdparams", {"a": np.zeros(1)})
    for folder in (tmp_path, tmp_path / "resnet8"):
        with pytest.raises(WeightsError, match=r"Give a file in it, such as .*resnet8/best_model\.pdparams$"):
            find_file(folder)
    write_params(tmp_path / "resnet8" / "another.pdparams", {"a": np.zeros(1)})
    with pytest.raises(WeightsError, match=r"such as .*best_model\.pdparams; it holds 2 such files"):
        find_file(tmp_path)
    write_params(f"{tmp_path}.pdparams", {"a": np.zeros(1)})
    assert find_file(tmp_path).name == f"{tmp_path.name}.pdparams", "weights beside a folder of the same name"
    Path(f"{tmp_path}.pdparams").unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_links_to_nowhere_and_pipes_are_called_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "lost.pdparams").symlink_to(tmp_path / "nowhere")
    (tmp_path / "around.pdparams").symlink_to("around.pdparams")
    os.mkfifo(tmp_path / "pipe.pdparams")
    for name in ("lost", "lost.pdparams", "around"):
        with pytest.raises(WeightsError, match=r"\.pdparams is a broken symbolic link"):
            find_file(tmp_path / name)
    with pytest.raises(WeightsError, match=r"Global.pretrained_model: .*pipe.pdparams is not a regular file"):
        find_file(tmp_path / "pipe", "Global.pretrained_model")
    with pytest.raises(WeightsError, match=r"no weights file .* \(nor pip\.pdparams\)\.$"):
        find_file(tmp_path / "pip")  # none of them is recommended


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-of-this-name/w", "a/" * 3000])
def test_paths_that_no_system_accepts(path: str) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        find_file(path)
