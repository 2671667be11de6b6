"""Safetensors files: every type that parameters have is read, all else is refused by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ppcls.errors import WeightsError
from ppcls.weights import has_torch_layout, read_params


def write(path: Path, header: Any, data: bytes = bytes(8), length: int | None = None) -> Path:
    """Write a file with a header that the library would not write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path) -> str:
    with pytest.raises(WeightsError, match=path.name) as caught:
        read_params(path)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"])
def test_every_type_that_numpy_has(tmp_path: Path, dtype: str) -> None:
    want = {
        "a": np.arange(6).reshape(2, 3).astype(dtype),
        "b": np.array(1, dtype),
        "c": np.zeros((0, 3), dtype),
    }
    safetensors.numpy.save_file(want, tmp_path / "w.safetensors")
    found = read_params(tmp_path / "w")
    assert list(found) == list(want)
    for name, array in want.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_bfloat16_comes_as_float32(tmp_path: Path) -> None:
    want = np.array([[1.0, -0.15625], [3e38, 0.0], [np.inf, 2.0**-130]], np.float32)
    want = (want.view(np.uint32) & 0xFFFF0000).view(np.float32)  # what fits bfloat16
    bits = (want.view(np.uint32) >> 16).astype("<u2").tobytes()
    file = write(tmp_path / "w.safetensors", {"a": entry("BF16", [3, 2], 0, 12)}, bits)
    found = read_params(file)["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_eight_bit_floats_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    file = write(tmp_path / "w.safetensors", {"layer": entry(dtype, [8], 0, 8)})
    assert f"'layer' is of the type {dtype}, an 8-bit float, which means something only" in refused(file)


@pytest.mark.parametrize(("dtype", "count"), [("U16", 4), ("U32", 2), ("U64", 1), ("C64", 1)])
def test_types_without_a_place_in_a_network(tmp_path: Path, dtype: str, count: int) -> None:
    file = write(tmp_path / "w.safetensors", {"layer": entry(dtype, [count], 0, 8)})
    assert f"'layer' is of the type {dtype}, a type that ppcls does not read. It reads F64, F32" in refused(
        file
    )


def test_the_format_that_the_file_names(tmp_path: Path) -> None:
    for metadata, torch in (({"format": "pt"}, True), ({"format": "np"}, False), ({}, False), (None, False)):
        safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "w.safetensors", metadata)
        assert has_torch_layout(tmp_path / "w.safetensors") is torch


_A = entry("F32", [2], 0, 8)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": _A}, b"", None),
        ({"a": _A}, bytes(7), None),
        ({"a": _A}, bytes(9), None),
        ({"a": _A}, bytes(8), 1 << 63),
        ({"a": _A}, bytes(8), 1 << 40),
        ({"a": _A}, bytes(8), 5),
        ({"a": _A}, bytes(8), 0),
        ({"a": _A, "b": _A}, bytes(8), None),  # overlapping
        ({"a": _A, "b": entry("F32", [2], 4, 12)}, bytes(12), None),
        ({"a": _A, "b": entry("F32", [2], 12, 20)}, bytes(20), None),  # a hole
        ({"a": entry("F32", [2], 8, 0)}, bytes(8), None),
        ({"a": entry("F32", [2], -8, 0)}, bytes(8), None),
        ({"a": entry("F32", [1 << 62, 4], 0, 8)}, bytes(8), None),
        ({"a": entry("F32", [-2], 0, 8)}, bytes(8), None),
        ({"a": entry("F32", [0, 1 << 62], 0, 0)}, b"", None),
        ({"a": entry("F32", [1 << 62, 2, 0], 0, 0)}, b"", None),
        ({"a": entry("F32", [1] * 40 + [2], 0, 8)}, bytes(8), None),
        ({"a": entry("F32", [1 << 100], 0, 8)}, bytes(8), None),
        ({"a": entry("F33", [2], 0, 8)}, bytes(8), None),
        ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), None),
        ({"a": 1}, bytes(8), None),
        ([1], b"", None),
        (b"1", b"", None),
        (b"", b"", None),
        (b"{", b"", None),
        (b'{"a\xff": 1}', b"", None),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, b"", None),
        (b"[" * 100_000, b"", None),
        (b'{"a":' + json.dumps(_A).encode() + b',"a":' + json.dumps(_A).encode() + b"}", bytes(8), None),
        ({"__metadata__": {"a": 1}, "a": _A}, bytes(8), None),
        ({"__metadata__": [], "a": _A}, bytes(8), None),
        ({"a\nb": _A}, bytes(8), None),
        ({"\ud800": _A}, bytes(8), None),
    ],
)
def test_hostile_headers(tmp_path: Path, header: Any, data: bytes, length: int | None) -> None:
    refused(write(tmp_path / "w.safetensors", header, data, length))


def test_truncations_are_errors(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.arange(6.0), "b": np.ones((2, 2))}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(len(content)):
        (tmp_path / "w.safetensors").write_bytes(content[:length])
        refused(tmp_path / "w.safetensors")


def test_a_folder_of_that_name(tmp_path: Path) -> None:
    from ppcls.weights.safetensors_file import read_safetensors

    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(WeightsError, match="cannot read"):
            read_safetensors(path)
