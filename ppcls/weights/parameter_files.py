"""Read and write files of parameters; nothing is executed, and no file is left half-written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppcls.errors import WeightsError, hint
from ppcls.files import write_atomic
from ppcls.weights.content import describe_content
from ppcls.weights.safetensors_file import from_bfloat16, read_safetensors, says_torch
from ppcls.weights.torch_file import TORCH_SUFFIXES, is_torch_name, read_torch
from ppcls.weights.unpickle import MALFORMED, RefusedError, explain, load_plain, shown

SUFFIXES = (".pdparams", ".safetensors")
# paddle.save adds this table of names to every state dict.
_NAME_TABLE = "StructuredToParameterName@@"
# Types that both tensors of Paddle and parameters can have.
_TYPES = frozenset(
    map(np.dtype, ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"))
)
_LONGEST_NAME = 1000
_FOLDER = "{name: PaddleInferenceModel, path: FOLDER}"
_NETWORKS = {".onnx": "{name: OnnxModel, path: FILE}", ".pdiparams": _FOLDER, ".pdmodel": _FOLDER}


def find_file(path: str | os.PathLike[str], where: str = "weights") -> Path:
    """Return the weights file for `path`, which may lack the suffix.

    Raises:
        WeightsError: if there is none; the message lists the weights files in the same folder.
    """
    if "://" in str(path):
        raise WeightsError(
            f"{where}: {path} is an address, and a file is expected here. The option `pretrained` of a "
            "network takes addresses"
        )
    asked = Path(os.path.expanduser(path))
    tried = [asked, *(Path(f"{asked}{suffix}") for suffix in SUFFIXES)]
    for candidate in tried:
        if os.path.isfile(candidate):  # unlike Path.is_file, False for names that no system accepts
            return candidate
    if os.path.isdir(asked):
        raise WeightsError(f"{where}: {asked} is a folder, not a weights file.{_weights_in(asked)}")
    for candidate in tried:
        if os.path.lexists(candidate):
            kind = "a broken symbolic link" if os.path.islink(candidate) else "not a regular file"
            raise WeightsError(f"{where}: {candidate} is {kind}. Give the path of a weights file")
    folder = asked.parent
    kinds = (*SUFFIXES, *TORCH_SUFFIXES)
    beside = folder.glob("*") if os.path.isdir(folder) else ()
    there = sorted(p.name for p in beside if p.name.endswith(kinds) and p.is_file())
    known = f" {folder} holds: {', '.join(there[:8])}." if there else ""
    if not os.path.isdir(folder):
        known = f" The folder {folder} does not exist."
    near = hint(asked.name, there) or hint(asked.name, [Path(n).stem for n in there])
    raise WeightsError(f"{where}: no weights file {asked} (nor {tried[1].name}).{known}{near}")


def _weights_in(folder: Path) -> str:
    kinds = (*SUFFIXES, *TORCH_SUFFIXES)
    found = sorted(p for p in (*folder.glob("*"), *folder.glob("*/*")) if p.name.endswith(kinds))
    first = next((p for p in found if p.name.startswith("best_model.")), found[0] if found else None)
    if first is None:
        return f" There are no weights in it ({', '.join(kinds)})"
    more = f"; it holds {len(found)} such files" if len(found) > 1 else ""
    return f" Give a file in it, such as {first}{more}"


def read_state(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of arrays, numbers, strings and plain containers without executing anything.

    Tensors become arrays; bfloat16, which NumPy does not have, is returned as its bits in uint16.

    Raises:
        WeightsError: if the file is missing, broken, or asks for anything other than arrays; the message says
            for what.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            try:
                return load_plain(stream)
            except RefusedError as error:
                if describe_content(stream) is None:
                    raise
                # The bytes of a PNG image happen to be valid instructions of a pickle.
                raise WeightsError(_not_weights(file, stream, error)) from None
            except MALFORMED as error:
                raise WeightsError(_not_weights(file, stream, error)) from error
    except RefusedError as error:
        raise WeightsError(f"{file} is refused: it asks for {error}, and weights are plain arrays") from None
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error


def _not_weights(file: Path, stream: BinaryIO, error: Exception) -> str:
    found = describe_content(stream)
    if found is not None:
        return f"{file} is not a weights file: {found}"
    return (
        f"{file} is not a complete weights file ({file.stat().st_size} bytes; {explain(error)}). "
        "It is cut off, or something else under this name"
    )


def read_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read parameters by name from a ``.pdparams``, ``.safetensors`` or PyTorch (``.pth``, ``.pt``) file.

    bfloat16 becomes float32, which is exact. Names and layouts are those of the file; `ppcls.weights.convert`
    converts PyTorch's.

    Raises:
        WeightsError: if the file cannot be read, is refused, or holds anything other than named arrays.
    """
    file = find_file(path)
    if file.suffix in _NETWORKS:
        raise WeightsError(
            f"{file} is a network that was exported, not the weights of one. A teacher can be such a "
            f"network: in place of its name and `pretrained` give {_NETWORKS[file.suffix]}"
        )
    if is_torch_name(file):
        params: dict[str, np.ndarray] = read_torch(file)
    elif file.suffix == ".safetensors":
        params = read_safetensors(file)
    else:
        params = _plain_params(file)
    for name, array in params.items():
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise WeightsError(f"{file}: {shown(name)} is not the name of a parameter")
        if array.dtype not in _TYPES:
            raise WeightsError(
                f"{file}: {name} is of the type {array.dtype}, of which no parameter can be. "
                f"Save it as one of {', '.join(sorted(map(str, _TYPES)))}"
            )
    return params


def _plain_params(file: Path) -> dict[str, np.ndarray]:
    state = read_state(file)
    if not isinstance(state, dict):
        raise WeightsError(f"{file} holds a {type(state).__name__}, not parameters by name")
    state.pop(_NAME_TABLE, None)
    params = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, (np.ndarray, np.generic)):
            raise WeightsError(f"{file}: {shown(name)} is a {type(value).__name__}, not an array")
        array = np.asarray(value)
        params[name] = from_bfloat16(array) if array.dtype == np.uint16 else array
    return params


def has_torch_layout(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file holds parameters under PyTorch's names and in its layouts.

    This is true for PyTorch's own files, and for ``.safetensors`` files that say so, such as timm's, or have
    PyTorch's names.

    Raises:
        WeightsError: if the file cannot be read.
    """
    file = Path(path)
    return says_torch(file) if file.suffix == ".safetensors" else is_torch_name(file)


def write_state(path: str | os.PathLike[str], state: Any) -> None:
    """Write plain containers of tensors, arrays, numbers and strings; `read_state` reads them.

    Raises:
        TypeError: if `state` holds anything else.
        WeightsError: if the file cannot be written.
    """
    plain = _to_plain(state)
    write_atomic(path, lambda stream: pickle.dump(plain, stream, protocol=4))


def write_params(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write named tensors or arrays as a ``.pdparams`` file, which `paddle.load` can read too.

    Raises:
        TypeError: if a value is neither a tensor nor an array.
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
