"""Reading the files that ``torch.save`` writes, without PyTorch and without running anything from them.

Both formats are read: the zip archive (PyTorch 1.6 and later) and the older one, a row of pickles with the
numbers after them. What is inside must be tensors by name, perhaps among the plain values of a training
checkpoint; whatever asks for more is refused with its name.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights.unpickle import ALLOWED, MALFORMED, Reader, RefusedError

logger = logging.getLogger("ppcls.weights")

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".pth.tar")
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
# Where training scripts keep the parameters; averaged ones (EMA) are what they publish, so these come first.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile


class _Storage:
    """A row of numbers that tensors are cut from; it is read when the first of them is."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.code = _TYPES[kind]
        self.dtype = np.dtype("<u2" if self.code == "bfloat16" else self.code)
        self.key, self.count = key, count
        self.values: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.count * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} has {len(data)} bytes for {self.count} numbers")
        self.values = np.frombuffer(data, self.dtype)


class _Tensor:
    """A view into a storage whose numbers are not read yet."""

    def __init__(self, storage: object, offset: object, shape: object, stride: object, *_: object) -> None:
        if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
            raise RefusedError("a tensor that is not made of a storage, a shape and strides")
        whole = isinstance(offset, int) and all(type(n) is int and n >= 0 for n in (offset, *shape, *stride))
        if not isinstance(offset, int) or not whole or len(shape) != len(stride):
            raise ValueError(f"a tensor of the shape {shape!r}, strides {stride!r} at {offset!r}")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        # A stride of 0 repeats numbers without end: a small file could then ask for any amount of memory.
        if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
            raise ValueError(f"a tensor of the shape {shape!r} in a storage of {storage.count} numbers")
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def array(self) -> np.ndarray:
        values = self.storage.values
        if values is None:
            raise ValueError(f"storage {self.storage.key} is missing")
        step = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [step * n for n in self.stride], writeable=False
        )
        if self.storage.code == "bfloat16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view.astype(view.dtype.newbyteorder("="))


class _Namespace:
    """Stands for the command line (`argparse.Namespace`) that training scripts keep; it is left unread."""


class _StorageType:
    """Stands for a class such as `torch.FloatStorage`."""

    def __init__(self, name: str) -> None:
        self.name = name


def _parameter(data: object, *_: object) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise RefusedError("a parameter that is no tensor")
    return data


def _size(items: object = ()) -> tuple[Any, ...]:
    return tuple(items) if isinstance(items, (list, tuple)) else ()


class _TorchReader(Reader):
    """Reads the pickle of a PyTorch file; `storages` are all that tensors in it are cut from."""

    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {
        **ALLOWED,
        ("torch._utils", "_rebuild_tensor"): _Tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch", "Size"): _size,
        ("argparse", "Namespace"): _Namespace,
        **{("torch", name): _StorageType(name) for name in _TYPES},
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that ``("storage", type, key, device, count[, view])`` means."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusedError("an object kept outside the file")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise RefusedError(f"a storage of the type {kind!r}")
        if type(count) is not int or count < 0 or (len(pid) == 6 and pid[5] is not None):
            raise ValueError(f"a storage of {count!r} numbers")
        storage = self.storages.setdefault(key, _Storage(kind.name, key, count))
        if (storage.code, storage.count) != (_TYPES[kind.name], count):
            raise ValueError(f"storage {key} is described twice and differently")
        return storage

    def build(self, target: Any, state: Any) -> None:
        """Let attributes of containers go: state dicts carry version numbers there."""
        if isinstance(target, (OrderedDict, _Namespace)):
            return
        super().build(target, state)


def is_torch_name(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file's name ends as PyTorch's files do."""
    return Path(path).name.endswith(TORCH_SUFFIXES)


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch file by their names there.

    Of a training checkpoint the model's state is taken, its moving average if there is one. Prefixes that
    wrappers put before all names are left out. bfloat16 comes as float32, which holds it exactly.

    Raises:
        WeightsError: if the file cannot be read, is cut off, holds no tensors by name, or asks for anything
            but tensors and plain values; the text names it.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(32)
            stream.seek(0)
            if head.startswith(_ZIP):
                content, storages = _read_zip(stream, file.stat().st_size)
            elif head[2 : 2 + len(_OLD)] == _OLD:
                content, storages = _read_row(stream, file.stat().st_size)
            else:
                raise WeightsError(f"{file} is not a PyTorch file ({_looks_like(head)})")
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
    except (*MALFORMED, zipfile.BadZipFile) as error:
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise WeightsError(
            f"{file} is not a complete PyTorch file ({file.stat().st_size} bytes; {detail}). "
            "It is cut off, or something else under this name"
        ) from error


def _looks_like(head: bytes) -> str:
    if not head:
        return "it is empty"
    return "a pickle of something else" if head[0] == 0x80 else f"it begins with {head[:8]!r}"


def _read_zip(stream: BinaryIO, size: int) -> tuple[Any, dict[str, _Storage]]:
    with zipfile.ZipFile(stream) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "constants.pkl" in entries:
            raise RefusedError("TorchScript, a program")
        if "data.pkl" not in entries:
            raise ValueError("a zip archive without data.pkl")
        if sum(entry.file_size for entry in entries.values()) > size:
            raise ValueError("entries that are larger than the file")
        order = archive.read(entries["byteorder"]) if "byteorder" in entries else b"little"
        if order != b"little":
            raise RefusedError(f"numbers of byte order {order!r}")

        def read(name: str) -> bytes:
            return archive.read(entries[name])

        with archive.open(entries["data.pkl"]) as pickled:
            reader = _TorchReader(pickled)  # type: ignore[arg-type]
            content = reader.load()
        _fill(reader.storages, read)
    return content, reader.storages


def _fill(storages: Mapping[str, _Storage], read: Callable[[str], bytes]) -> None:
    for key, storage in storages.items():
        storage.fill(read(f"data/{key}"))


def _read_row(stream: BinaryIO, size: int) -> tuple[Any, dict[str, _Storage]]:
    magic, version, system = (Reader(stream).load() for _ in range(3))
    if magic != _MAGIC or version != 1001 or not isinstance(system, dict):
        raise ValueError(f"version {version!r}")
    if system.get("little_endian") is not True:
        raise RefusedError("numbers of another byte order")
    reader = _TorchReader(stream)
    content = reader.load()
    for key in Reader(stream).load():
        storage = reader.storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.count or count * storage.dtype.itemsize > size:
            raise ValueError(f"storage {key} of {count} numbers, where {storage.count} are expected")
        storage.fill(stream.read(count * storage.dtype.itemsize))
    return content, reader.storages


def _state_dict(content: Any, file: Path) -> dict[str, _Tensor]:
    """Find the tensors by name in what the file holds."""
    if isinstance(content, dict) and not any(isinstance(value, _Tensor) for value in content.values()):
        place = next((key for key in _PLACES if isinstance(content.get(key), dict)), None)
        if place is not None:
            logger.info("%s is a training checkpoint; its %s is taken", file, place)
            content = content[place]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{file} holds {_describe(content)}, not tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise WeightsError(f"{file}: {name!r} is {_describe(value)}, not a tensor")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name[len(prefix) :]: value for name, value in content.items()}
    return content


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"a map with {', '.join(map(str, list(value)[:6]))}" if value else "an empty map"
    return "a single tensor" if isinstance(value, _Tensor) else f"a {type(value).__name__}"
