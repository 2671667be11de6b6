"""Read ``.safetensors`` files, including bfloat16, which NumPy does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from ppcls.errors import WeightsError
from ppcls.weights.content import describe_content
from ppcls.weights.unpickle import check_shape, explain, shown

# Types by their names in the format; bfloat16 is read as its bits.
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Read all tensors by name; bfloat16 becomes float32, which is exact.

    Raises:
        WeightsError: if the file cannot be read, is damaged, or holds numbers of a type that parameters
            do not have, such as the 8-bit floats that quantised models are stored in.
    """
    header, start = _header(file)
    params = {}
    try:
        with file.open("rb") as stream:
            for name, entry in header.items():
                if name != "__metadata__":
                    params[name] = _tensor(stream, start, entry)
    except _UnreadError as error:
        raise WeightsError(f"{file}: {shown(name)} {error}") from None
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    return params


def says_torch(file: Path) -> bool:
    """Tell whether PyTorch wrote the file: it says so, as timm's files do, or has PyTorch's names.

    Raises:
        WeightsError: if the file cannot be read.
    """
    header = _header(file)[0]
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and metadata.get("format") == "pt":
        return True
    ours = any(name.endswith("._mean") for name in header)
    means = (name for name in header if name.endswith(".running_mean"))
    return not ours and any(f"{name.rpartition('.')[0]}.running_var" in header for name in means)


class _UnreadError(Exception):
    """A tensor that cannot be read."""


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the description of all tensors, and the offset of their numbers.

    The library checks it first: its length, that offsets fit shapes and types, and that the tensors fill the
    file without overlapping.
    """
    try:
        with safe_open(file, framework="numpy"):
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length), object_pairs_hook=_distinct)
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        with file.open("rb") as stream:
            found = describe_content(stream)
        if found is not None and "safetensors" not in found:
            raise WeightsError(f"{file} is not a safetensors file: {found}") from error
        raise WeightsError(f"{file} is not a complete safetensors file ({explain(error)})") from error
    return header, 8 + length


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _tensor(stream: BinaryIO, start: int, entry: dict[str, Any]) -> np.ndarray:
    kind = entry["dtype"]
    if kind not in _TYPES:
        reason = (
            "an 8-bit float, which means something only together with scales" if "F8" in kind else "a type"
        )
        raise _UnreadError(
            f"is of the type {kind}, {reason} that ppcls does not read. It reads {', '.join(_TYPES)}"
        )
    begin, end = entry["data_offsets"]
    stream.seek(start + begin)
    data = stream.read(end - begin)
    if len(data) < end - begin:
        raise _UnreadError("lies behind the end of the file")
    try:
        shape = check_shape(entry["shape"])  # the library accepts sides of any length if another one is 0
    except ValueError as error:
        raise _UnreadError(f"is {error}") from None
    array = np.frombuffer(data, _TYPES[kind]).reshape(shape)
    return from_bfloat16(array) if kind == "BF16" else array.astype(array.dtype.newbyteorder("="))


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Convert the 16 bits of bfloat16 numbers to float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
