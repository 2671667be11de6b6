"""A reader of pickled arrays that executes nothing from the file.

``.pdparams`` files are pickles, and a pickle may ask for any function to be called. This reader accepts a few
names and replaces them by its own objects, so neither foreign code nor NumPy's ``__setstate__`` gets anything
from the file before its sizes are checked. Memory and time are limited too: by a multiple of the size of the
file, and by the number of its instructions.
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np

# Errors of the pickle module for bytes that are not a pickle, or only the beginning of one.
MALFORMED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
)
# Ten thousand tensors need about 300,000 instructions, the names of 50,000 images 400,000.
MAX_INSTRUCTIONS = 2_000_000
# Real files are copied twice: text to bytes, and bytes to arrays.
MAX_GROWTH = 4
SLACK = 1 << 20
MAX_DIMENSIONS = 32
MAX_SIDE = 1 << 40
_LONGEST_NUMBER = 255
_SIMPLE_DTYPE = re.compile(r"[<>=|]?(?:[fiuc](?:1|2|4|8|16)|b1|\?)")


class RefusedError(Exception):
    """The file asks for something that plain arrays never need; the message says for what."""


def shown(value: object) -> str:
    """Return a value from a file as text for a message; of containers only the type.

    A hundred bytes may describe tuples of tuples whose full text has a million characters.
    """
    if isinstance(value, (tuple, list)) and all(type(item) is int for item in value[:MAX_DIMENSIONS]):
        dots = ", ..." if len(value) > MAX_DIMENSIONS else ""
        return f"({', '.join(map(shown, value[:MAX_DIMENSIONS]))}{dots})"
    if not isinstance(value, (str, bytes, bool, int, float)):
        return f"a {type(value).__name__}"
    if type(value) is int and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value[:60]) if isinstance(value, (str, bytes)) else repr(value)
    return f"{text}..." if isinstance(value, (str, bytes)) and len(value) > 60 else text


def explain(error: Exception) -> str:
    """Return the reason why a reader stopped, for the end of a message."""
    text = str(error)
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def check_shape(shape: object) -> tuple[int, ...]:
    """Return a shape after a check of its sides and number of dimensions.

    Raises:
        ValueError: if it is not a possible shape.
    """
    if not isinstance(shape, (tuple, list)) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"an array of the shape {shown(shape)}")
    if any(type(side) is not int or not 0 <= side < MAX_SIDE for side in shape):
        raise ValueError(f"an array of the shape {shown(shape)}")
    return tuple(shape)


class _Dtype:
    """Replaces a `numpy.dtype` of plain numbers."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _SIMPLE_DTYPE.fullmatch(text):
            raise RefusedError(f"an array of type {shown(code)}")
        self.value = np.dtype(text)

    def set_state(self, state: Any) -> None:
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if any(part not in (None, -1, 0) for part in state[2:8]):
            raise RefusedError("an array of records")
        if order not in ("<", ">", "=", "|"):
            raise RefusedError(f"an array of byte order {shown(order)}")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Replaces a `numpy.ndarray` until its state is read."""

    def __init__(self, kind: object, shape: object = (0,), code: object = b"b") -> None:
        if kind is not _Array:
            raise RefusedError(f"an array of the class {shown(kind)}")
        self.value = np.zeros(0, np.float32)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise RefusedError("an array that is not made of plain numbers")
        shape = check_shape(shape)
        if math.prod(shape) * dtype.value.itemsize != len(data):
            raise ValueError(f"an array of the shape {shown(shape)} in {len(data)} bytes")
        flat = np.array(np.frombuffer(data, dtype.value), np.dtype(dtype.value.char))
        self.value = np.reshape(flat, shape, order="F" if fortran else "C")


def _scalar(dtype: object, data: object) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or len(data) != dtype.value.itemsize:
        raise RefusedError("a scalar that is not a plain number")
    return np.frombuffer(data, dtype.value)[0]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Protocol 2 writes bytes as Latin-1 text; no other encoding occurs in arrays."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"_codecs.encode to {shown(encoding)}")
    return codecs.encode(text, "latin-1")


def _tuple(items: object = ()) -> tuple[Any, ...]:
    return tuple(items) if isinstance(items, (list, tuple)) else ()


def _ordered(items: object = ()) -> OrderedDict[Any, Any]:
    found: OrderedDict[Any, Any] = OrderedDict()
    for item in items if isinstance(items, (list, tuple)) else ():
        key, value = item if isinstance(item, (list, tuple)) and len(item) == 2 else (None, None)
        found[_key(key)] = value
    return found


def _key(key: object) -> object:
    """Check a key of a map; computing the hash of a tuple of tuples may take endlessly long."""
    if type(key) in (str, bytes) or (type(key) is int and key.bit_length() <= 64):
        return key
    raise RefusedError(f"a map with the key {shown(key)}")


ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
    (
        "builtins",
        "tuple",
    ): _tuple,  # paddle.save writes a tensor inside a nested value as tuple((name, array))
    ("collections", "OrderedDict"): _ordered,
}


class _Source:
    """A file that refuses to read beyond its end, before memory is allocated."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file = file
        self._left = left

    def read(self, count: int) -> bytes:
        if count > self._left:
            raise EOFError(f"{count} bytes are announced, and {self._left} are left")
        return self._taken(self._file.read(count))

    def readline(self) -> bytes:
        return self._taken(self._file.readline())

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


class _Counted(dict[int, Callable[..., None]]):
    """The instructions by their codes; it counts look-ups."""

    left = MAX_INSTRUCTIONS

    def __getitem__(self, code: int) -> Callable[..., None]:
        self.left -= 1
        if self.left < 0:
            raise RefusedError(f"more than {MAX_INSTRUCTIONS} steps to be built")
        return super().__getitem__(code)


# The pure Python reader is used on purpose: its instructions can be replaced by ones that check first.
class Reader(pickle._Unpickler):
    """An unpickler that accepts only the names in `allowed` and limits memory and time.

    Args:
        file: read from its current position.
        size: number of bytes left in it.
        encoding: encoding of text that Python 2 wrote.

    Attributes:
        allowed: the replacement of each name, by module and name.
    """

    allowed: ClassVar[Mapping[tuple[str, str], Any]] = ALLOWED
    stack: list[Any]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]
    dispatch: Mapping[int, Callable[..., None]]  # type: ignore[assignment, misc]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    append: Callable[[Any], None]

    def __init__(self, file: BinaryIO, size: int, encoding: str = "ASCII") -> None:
        super().__init__(_Source(file, size), encoding=encoding)
        self.dispatch = _Counted(_INSTRUCTIONS)
        self._may_grow = MAX_GROWTH * size + SLACK

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name, or refuse it."""
        try:
            return self.allowed[module, name]
        except KeyError:
            raise RefusedError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse objects outside the pickle."""
        raise RefusedError("an object kept outside the file")

    def build(self, target: Any, state: Any) -> None:
        """Set the state of an object."""
        if not isinstance(target, (_Array, _Dtype)):
            raise RefusedError(f"the state of {shown(target)}")
        self._spend(state)
        target.set_state(state)

    def _spend(self, values: Any) -> None:
        """Count the values to copy, because one text may be used a thousand times."""
        if not isinstance(values, (tuple, list)):
            return
        self._may_grow -= 16 * len(values)
        for value in values:
            if isinstance(value, (str, bytes)):
                self._may_grow -= len(value)
            elif isinstance(value, (tuple, list, dict)):
                self._may_grow -= 16 * len(value)
        if self._may_grow < 0:
            raise RefusedError("many times its own size in memory")

    def load_build(self) -> None:
        """Execute the instruction BUILD."""
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def load_reduce(self) -> None:
        """Execute a call of one of the names in `allowed`."""
        arguments = self.stack.pop()
        self._spend(arguments)
        self.stack[-1] = self.stack[-1](*arguments)

    def load_newobj(self) -> None:
        """Make an object of a class in `allowed`, empty until its state is read."""
        arguments = self.stack.pop()
        self._spend(arguments)
        kind = self.stack[-1]
        if not isinstance(kind, type):
            raise RefusedError(f"an object of {shown(kind)}")
        self.stack[-1] = kind(*arguments)

    def load_setitem(self) -> None:
        """Put one entry into a map."""
        value = self.stack.pop()
        key = self.stack.pop()
        self._map()[_key(key)] = value

    def load_setitems(self) -> None:
        """Put several entries into a map."""
        items = self.pop_mark()
        self._map().update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def load_dict(self) -> None:
        """Make a map from the values on the stack."""
        items = self.pop_mark()
        self.append(dict(zip(map(_key, items[::2]), items[1::2], strict=True)))

    def _map(self) -> dict[Any, Any]:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedError(f"entries in {shown(target)}")
        return target

    def load_append(self) -> None:
        """Put one value at the end of a list."""
        value = self.stack.pop()
        self._list().append(value)

    def load_appends(self) -> None:
        """Put several values at the end of a list."""
        items = self.pop_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise RefusedError(f"entries in {shown(target)}")
        return target

    def load_number(self) -> None:
        """Read a whole number written in digits."""
        text = self._digits().removesuffix(b"L")
        self.append({b"01": True, b"00": False}[text] if text in (b"01", b"00") else int(text, 0))

    def load_long4(self) -> None:
        """Read a whole number of any length; PyTorch's longest has ten bytes."""
        (length,) = struct.unpack("<i", self.read(4))
        if not 0 <= length <= _LONGEST_NUMBER:
            raise RefusedError(f"a whole number of {length} bytes")
        self.append(pickle.decode_long(self.read(length)))

    def load_put(self) -> None:
        """Remember the last value under a number written in digits."""
        number = int(self._digits())
        if not 0 <= number < 1 << 32:
            raise RefusedError("a number of a value that no file has")
        self.memo[number] = self.stack[-1]

    def load_get(self) -> None:
        """Get a remembered value by its number written in digits."""
        self.append(self.memo[int(self._digits())])

    def _digits(self) -> bytes:
        line = self.readline().rstrip(b"\n")
        if len(line) > _LONGEST_NUMBER:
            raise RefusedError(f"a whole number of {len(line)} digits")
        return line


def _refuse(name: str) -> Callable[[Reader], None]:
    def refuse(reader: Reader) -> None:
        raise RefusedError(name)

    return refuse


_INSTRUCTIONS: Mapping[int, Callable[..., None]] = {
    **pickle._Unpickler.dispatch,
    pickle.BUILD[0]: Reader.load_build,
    pickle.REDUCE[0]: Reader.load_reduce,
    pickle.NEWOBJ[0]: Reader.load_newobj,
    pickle.SETITEM[0]: Reader.load_setitem,
    pickle.SETITEMS[0]: Reader.load_setitems,
    pickle.DICT[0]: Reader.load_dict,
    pickle.APPEND[0]: Reader.load_append,
    pickle.APPENDS[0]: Reader.load_appends,
    pickle.INT[0]: Reader.load_number,
    pickle.LONG[0]: Reader.load_number,
    pickle.LONG4[0]: Reader.load_long4,
    pickle.PUT[0]: Reader.load_put,
    pickle.GET[0]: Reader.load_get,
    pickle.EMPTY_SET[0]: _refuse("a set"),
    pickle.ADDITEMS[0]: _refuse("a set"),
    pickle.FROZENSET[0]: _refuse("a set"),
    pickle.BYTEARRAY8[0]: _refuse("a bytearray"),
    pickle.NEXT_BUFFER[0]: _refuse("a buffer outside the file"),
    pickle.READONLY_BUFFER[0]: _refuse("a buffer outside the file"),
    pickle.INST[0]: _refuse("an object of a class"),
    pickle.OBJ[0]: _refuse("an object of a class"),
    pickle.NEWOBJ_EX[0]: _refuse("an object of a class"),
    pickle.EXT1[0]: _refuse("a class by its number"),
    pickle.EXT2[0]: _refuse("a class by its number"),
    pickle.EXT4[0]: _refuse("a class by its number"),
}


def load_plain(file: BinaryIO, encoding: str = "ASCII") -> Any:
    """Read one pickle of arrays, numbers, strings and plain containers.

    Args:
        file: read from its current position.
        encoding: encoding of text that Python 2 wrote; ``bytes`` leaves it as bytes.

    Raises:
        RefusedError: if the file asks for anything else.
        pickle.UnpicklingError, and others of `MALFORMED`: if the bytes are not a complete pickle.
    """
    return _unwrap(Reader(file, bytes_left(file), encoding).load(), {})


def bytes_left(file: BinaryIO) -> int:
    """Return the number of bytes after the current position of a file."""
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end - here


def _unwrap(value: Any, seen: dict[int, Any]) -> Any:
    """Replace the placeholders by arrays; `seen` avoids copies of shared and self-containing values."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, (dict, list, tuple)):
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
            return value
        raise RefusedError(shown(value))
    if id(value) in seen:
        return seen[id(value)]
    out: Any
    if isinstance(value, dict):
        out = seen[id(value)] = {}
        out.update({key: _unwrap(item, seen) for key, item in value.items()})
    elif isinstance(value, list):
        out = seen[id(value)] = []
        out.extend(_unwrap(item, seen) for item in value)
    else:
        items = tuple(_unwrap(item, seen) for item in value)
        is_tensor = len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], np.ndarray)
        out = seen[id(value)] = items[1] if is_tensor else items
    return out
