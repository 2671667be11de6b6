"""Reading and writing files of parameters: nothing is executed, nothing is left half-written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import WeightsError, hint
from ppcls.files import write_atomic
from ppcls.weights.torch_file import TORCH_SUFFIXES, is_torch_name, read_torch
from ppcls.weights.unpickle import MALFORMED, RefusedError, load_plain

SUFFIXES = (".pdparams", ".safetensors")
# paddle.save adds this table of names to every state dict.
_NAME_TABLE = "StructuredToParameterName@@"


def find_file(path: str | os.PathLike[str], where: str = "weights") -> Path:
    """Return the weights file that `path` means, given with or without its suffix.

    Raises:
        WeightsError: if there is none; the text lists what lies beside it.
    """
    asked = Path(path).expanduser()
    tried = [asked, *(Path(f"{asked}{suffix}") for suffix in SUFFIXES)]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    folder = asked.parent
    kinds = (*SUFFIXES, *TORCH_SUFFIXES)
    there = sorted(p.name for p in folder.iterdir() if p.name.endswith(kinds)) if folder.is_dir() else []
    known = f" {folder} holds: {', '.join(there[:8])}." if there else ""
    if not folder.is_dir():
        known = f" The folder {folder} does not exist."
    near = hint(asked.name, there) or hint(asked.name, [Path(n).stem for n in there])
    raise WeightsError(f"{where}: no weights file {asked} (nor {tried[1].name}).{known}{near}")


def read_state(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of arrays, numbers, strings and plain containers without executing anything.

    Tensors inside come as arrays; bfloat16, which NumPy has not, as its bits in uint16.

    Raises:
        WeightsError: if the file is missing, broken, or asks for anything but arrays; the text names it.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(4)
            if not head:
                raise WeightsError(f"{file} is empty: the file was not written or copied to its end")
            if head.startswith(b"PK\x03\x04"):
                raise WeightsError(
                    f"{file} is a zip archive, not a Paddle weights file. If PyTorch wrote it, call it .pth"
                )
            stream.seek(0)
            return load_plain(stream)
    except RefusedError as error:
        raise WeightsError(f"{file} is refused: it asks for {error}, and weights are plain arrays") from None
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except MALFORMED as error:
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise WeightsError(
            f"{file} is not a complete weights file ({file.stat().st_size} bytes; {detail}). "
            "It is cut off, or something else under this name"
        ) from error


def read_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read parameters by name from a ``.pdparams``, ``.safetensors`` or PyTorch (``.pth``, ``.pt``) file.

    bfloat16 values come as float32, which holds them exactly. Names and layouts are those of the file; see
    `ppcls.weights.convert` for PyTorch's.

    Raises:
        WeightsError: if the file cannot be read, is refused, or holds anything but named arrays.
    """
    file = find_file(path)
    if is_torch_name(file):
        return read_torch(file)
    state = _read_safetensors(file) if file.suffix == ".safetensors" else read_state(file)
    if not isinstance(state, dict):
        raise WeightsError(f"{file} holds a {type(state).__name__}, not parameters by name")
    state.pop(_NAME_TABLE, None)
    params = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, np.generic)):
            raise WeightsError(f"{file}: {name!r} is a {type(value).__name__}, not an array")
        array = np.asarray(value)
        params[name] = _from_bfloat16(array) if array.dtype == np.uint16 else array
    return params


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise WeightsError(f"{file} is not a complete safetensors file ({error})") from error
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error


def has_torch_layout(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file holds parameters under PyTorch's names and in its layouts.

    PyTorch's own files do, and ``.safetensors`` files that say so, as those published for timm do.

    Raises:
        WeightsError: if the file cannot be read.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        return is_torch_name(file)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return (opened.metadata() or {}).get("format") == "pt"
    except SafetensorError as error:
        raise WeightsError(f"{file} is not a complete safetensors file ({error})") from error
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Write plain containers of tensors, arrays, numbers and strings so that `read_state` reads them.

    Raises:
        TypeError: if `state` holds anything else.
        WeightsError: if the file cannot be written.
    """
    plain = _to_plain(state)
    write_atomic(path, lambda stream: pickle.dump(plain, stream, protocol=4))


def write_params(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write named tensors or arrays as a ``.pdparams`` file that `paddle.load` reads too.

    Raises:
        TypeError: if a value is neither.
        WeightsError: if the file cannot be written.
    """
    write_state(path, {name: _to_array(value) for name, value in state.items()})


def _to_array(value: Any) -> np.ndarray:
    array = value.numpy() if hasattr(value, "numpy") else value
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{type(value).__name__} is neither a tensor nor an array")
    return array


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_plain(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.generic)):
        return value
    return _to_array(value)
