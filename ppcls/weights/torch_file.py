"""Read the files of ``torch.save``, without PyTorch and without executing anything from them.

Both formats can be read: the zip archive (PyTorch 1.6 and later) and the older one, several pickles followed
by the numbers. The content must be tensors by name, possibly together with the plain values of a training
checkpoint; a file that asks for anything else is refused.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights.content import describe_content
from ppcls.weights.safetensors_file import from_bfloat16
from ppcls.weights.unpickle import (
    ALLOWED,
    MALFORMED,
    Reader,
    RefusedError,
    bytes_left,
    check_shape,
    explain,
    shown,
)

logger = logging.getLogger("ppcls.weights")

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".th", ".pth.tar")
_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C
_OLD = b"\x8a\n" + _MAGIC.to_bytes(10, "little") + b"."
_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# Keys of the parameters in checkpoints of training scripts. Averaged parameters (EMA) are what scripts
# publish, so they come first.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # from DataParallel and torch.compile
_AVERAGED = "n_averaged"  # of AveragedModel, beside names that begin with module.


class _Storage:
    """A sequence of numbers that tensors are parts of; it is read together with the first of them."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.code = _TYPES[kind]
        self.dtype = np.dtype("<u2" if self.code == "bfloat16" else self.code)
        self.key = key
        self.count = count
        self.values: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.count * self.dtype.itemsize:
            raise ValueError(f"storage {shown(self.key)} has {len(data)} bytes for {self.count} numbers")
        self.values = np.frombuffer(data, self.dtype)


class _Tensor:
    """A view into a storage whose numbers are not read yet."""

    def __init__(self, storage: object, offset: object, shape: object, stride: object, *_: object) -> None:
        if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise RefusedError("a tensor that is not made of a storage, a shape and strides")
        sides = check_shape(shape)
        whole = type(offset) is int and all(type(n) is int and n >= 0 for n in (offset, *stride))
        if not isinstance(offset, int) or not whole or len(sides) != len(stride):
            raise ValueError(
                f"a tensor of the shape {shown(shape)}, strides {shown(stride)} at {shown(offset)}"
            )
        last = offset + sum((n - 1) * step for n, step in zip(sides, stride, strict=True))
        # A stride of 0 repeats numbers endlessly: a small file could then request any amount of memory.
        count: int = math.prod(sides)
        if count > storage.count or (count and last >= storage.count):
            raise ValueError(f"a tensor of the shape {shown(shape)} in a storage of {storage.count} numbers")
        self.storage = storage
        self.offset = offset
        self.shape = sides
        self.stride = stride

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def array(self) -> np.ndarray:
        values = self.storage.values
        if values is None:
            raise ValueError(f"storage {shown(self.storage.key)} is missing")
        step = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [step * n for n in self.stride], writeable=False
        )
        if self.storage.code == "bfloat16":
            return from_bfloat16(view)
        return view.astype(view.dtype.newbyteorder("="))


class _Namespace:
    """Replaces the command line (`argparse.Namespace`) that training scripts save; it is ignored."""


class _StorageType:
    """Replaces a class such as `torch.FloatStorage`."""

    def __init__(self, name: str) -> None:
        self.name = name


def _parameter(data: object, *_: object) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise RefusedError("a parameter that is no tensor")
    return data


def _size(items: object = ()) -> tuple[Any, ...]:
    return tuple(items) if isinstance(items, (list, tuple)) else ()


class _TorchReader(Reader):
    """Reads the pickle of a PyTorch file; `storages` holds the numbers of all its tensors."""

    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {
        **ALLOWED,
        ("torch._utils", "_rebuild_tensor"): _Tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch", "Size"): _size,
        ("argparse", "Namespace"): _Namespace,
        **{("torch", name): _StorageType(name) for name in _TYPES},
    }

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, size, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that ``("storage", type, key, device, count[, view])`` means."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusedError("an object kept outside the file")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise RefusedError(f"a storage of the type {shown(kind)}")
        if type(count) is not int or count < 0 or (len(pid) == 6 and pid[5] is not None):
            raise ValueError(f"a storage of {shown(count)} numbers")
        storage = self.storages.setdefault(key, _Storage(kind.name, key, count))
        if (storage.code, storage.count) != (_TYPES[kind.name], count):
            raise ValueError(f"storage {shown(key)} is described twice and differently")
        return storage

    def build(self, target: Any, state: Any) -> None:
        """Ignore attributes of containers: state dicts have version numbers there."""
        if isinstance(target, (OrderedDict, _Namespace)):
            return
        super().build(target, state)


def is_torch_name(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file's name has an ending of PyTorch's files."""
    return Path(path).name.endswith(TORCH_SUFFIXES)


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch file by name.

    From a training checkpoint the model's state is used, or its moving average if there is one. Prefixes that
    wrappers add to all names are removed. bfloat16 becomes float32, which is exact.

    Raises:
        WeightsError: if the file cannot be read, is cut off, holds no tensors by name, or asks for anything
            other than tensors and plain values; the message says for what.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(len(_OLD) + 2)
            stream.seek(0)
            if head.startswith(_ZIP):
                content, storages = _read_zip(stream, file.stat().st_size)
            elif head[2 : 2 + len(_OLD)] == _OLD:
                content, storages = _read_row(stream, file.stat().st_size)
            else:
                raise WeightsError(f"{file} is not a PyTorch file: {_describe_other(stream, head)}")
        tensors = _state_dict(content, file)
        if sum(t.size * t.storage.dtype.itemsize for t in tensors.values()) > 4 * file.stat().st_size:
            raise ValueError("tensors of many times the size of the file")
        return {name: tensor.array() for name, tensor in tensors.items()}
    except RefusedError as error:
        raise WeightsError(
            f"{file} is refused: it asks for {error}, and weights are plain tensors by name. Where PyTorch "
            "is installed, write them with torch.save(model.state_dict(), ...)"
        ) from None
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except (*MALFORMED, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(
            f"{file} is not a complete PyTorch file ({file.stat().st_size} bytes; {explain(error)}). "
            "It is cut off, or something else under this name"
        ) from error


def _describe_other(stream: BinaryIO, head: bytes) -> str:
    if head[:1] == b"\x80":
        return "it is a pickle of something else. If it comes from Paddle, call it .pdparams"
    return describe_content(stream) or f"it begins with {head[:8]!r}"


def _read_zip(stream: BinaryIO, size: int) -> tuple[Any, dict[str, _Storage]]:
    with zipfile.ZipFile(stream) as archive:
        entries = _entries(archive, size)

        def read(name: str) -> bytes:
            with archive.open(entries[name]) as member:
                # With a size, because otherwise everything would be unpacked.
                return member.read(entries[name].file_size)

        order = read("byteorder") if "byteorder" in entries else b"little"
        if order != b"little":
            raise RefusedError(f"numbers of byte order {shown(order)}")
        with archive.open(entries["data.pkl"]) as pickled:
            reader = _TorchReader(pickled, entries["data.pkl"].file_size)  # type: ignore[arg-type]
            content = reader.load()
        _fill(reader.storages, read)
    return content, reader.storages


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of the archive by name, without the name of the common folder."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename.partition("/")[2]
        if name in entries:
            raise ValueError(f"two entries of the name {shown(name)}")
        entries[name] = entry
    if "constants.pkl" in entries:
        raise RefusedError("TorchScript, a program")
    if "data.pkl" not in entries:
        raise ValueError(f"a zip archive without data.pkl, with {', '.join(map(shown, list(entries)[:4]))}")
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("entries that are larger than the file")
    for name, entry in entries.items():
        if entry.flag_bits & 1:
            raise RefusedError("a password; the archive is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RefusedError(f"a way of compression that PyTorch never uses, for {shown(name)}")
    return entries


def _fill(storages: Mapping[str, _Storage], read: Callable[[str], bytes]) -> None:
    for key, storage in storages.items():
        storage.fill(read(f"data/{key}"))


def _read_row(stream: BinaryIO, size: int) -> tuple[Any, dict[str, _Storage]]:
    magic, version, system = (Reader(stream, bytes_left(stream)).load() for _ in range(3))
    if magic != _MAGIC or version != 1001 or not isinstance(system, dict):
        raise ValueError(f"version {shown(version)}")
    if system.get("little_endian") is not True:
        raise RefusedError("numbers of another byte order")
    reader = _TorchReader(stream, bytes_left(stream))
    content = reader.load()
    keys = Reader(stream, bytes_left(stream)).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("no list of storages")
    for key in keys:
        storage = reader.storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.count or count * storage.dtype.itemsize > size:
            raise ValueError(f"storage {shown(key)} of {count} numbers, where {storage.count} are expected")
        storage.fill(stream.read(count * storage.dtype.itemsize))
    return content, reader.storages


def _state_dict(content: Any, file: Path) -> dict[str, _Tensor]:
    """Find the named tensors in the content of a file."""
    if isinstance(content, dict):
        # Scripts save tensors beside the parameters, such as the accuracy.
        places = [key for key in _PLACES if isinstance(content.get(key), dict)]
        place = next((key for key in places if _holds_tensors(content[key])), places[0] if places else None)
        if place is not None:
            logger.info("%s is a training checkpoint; its %s is taken", file, place)
            content = content[place]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{file} holds {_describe(content)}, not tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise WeightsError(f"{file}: {shown(name)} is {_describe(value)}, not a tensor")
    return _without_prefixes(content)


def _holds_tensors(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, _Tensor) for value in values.values())


def _without_prefixes(content: dict[str, _Tensor]) -> dict[str, _Tensor]:
    """Remove from all names what wrappers put before them, one inside the other in any order."""
    averaged = {name: value for name, value in content.items() if name != _AVERAGED}
    if averaged and all(name.startswith(_PREFIXES[0]) for name in averaged):
        content = averaged
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in content)), None):
        content = {name[len(prefix) :]: value for name, value in content.items()}
    return content


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"a map with {', '.join(map(shown, list(value)[:6]))}" if value else "an empty map"
    return "a single tensor" if isinstance(value, _Tensor) else f"a {type(value).__name__}"
