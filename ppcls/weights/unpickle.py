"""A reader of pickled arrays that runs nothing from the file.

``.pdparams`` files are pickles, and a pickle may ask for any function to be called. The reader here
answers to a handful of names with objects of its own, so neither foreign code nor NumPy's own
``__setstate__`` ever sees what the file says before its sizes have been checked.
"""

from __future__ import annotations

import codecs
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

import numpy as np

# What the pickle machinery raises on bytes that are no pickle, or only the beginning of one.
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
_SIMPLE_DTYPE = re.compile(r"[<>=|]?(?:[fiuc](?:1|2|4|8|16)|b1|\?)")


class RefusedError(Exception):
    """The file asks for something that plain arrays never need; the text names it."""


class _Dtype:
    """Stands for a `numpy.dtype` of plain numbers."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _SIMPLE_DTYPE.fullmatch(text):
            raise RefusedError(f"an array of type {code!r}")
        self.value = np.dtype(text)

    def set_state(self, state: Any) -> None:
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if any(part not in (None, -1, 0) for part in state[2:8]):
            raise RefusedError("an array of records")
        if order not in ("<", ">", "=", "|"):
            raise RefusedError(f"an array of byte order {order!r}")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands for a `numpy.ndarray` until its state arrives."""

    def __init__(self, kind: object, shape: object = (0,), code: object = b"b") -> None:
        if kind is not _Array:
            raise RefusedError(f"an array of the class {kind!r}")
        self.value = np.zeros(0, np.float32)

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise RefusedError("an array that is not made of plain numbers")
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise ValueError(f"an array of the shape {shape!r}")
        if math.prod(shape) * dtype.value.itemsize != len(data):
            raise ValueError(f"an array of the shape {shape!r} in {len(data)} bytes")
        flat = np.array(np.frombuffer(data, dtype.value), np.dtype(dtype.value.char))
        self.value = np.reshape(flat, shape, order="F" if fortran else "C")


def _scalar(dtype: object, data: object) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or len(data) != dtype.value.itemsize:
        raise RefusedError("a scalar that is not a plain number")
    return np.frombuffer(data, dtype.value)[0]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Protocol 2 writes bytes as Latin-1 text; no other encoding occurs in arrays."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"_codecs.encode to {encoding!r}")
    return codecs.encode(text, "latin-1")


def _tuple(items: object = ()) -> tuple[Any, ...]:
    return tuple(items) if isinstance(items, (list, tuple)) else ()


def _ordered(items: object = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(items) if isinstance(items, (list, tuple)) else OrderedDict()


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


# The pure Python reader on purpose: the C one reserves whatever size the file declares before it
# looks whether so many bytes follow, and the Python one reads at most what there is.
class Reader(pickle._Unpickler):
    """An unpickler that knows the names in `allowed` alone.

    Attributes:
        allowed: what stands for each name, by module and name.
    """

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)
    allowed: ClassVar[Mapping[tuple[str, str], Any]] = ALLOWED
    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name, or refuse it."""
        try:
            return self.allowed[module, name]
        except KeyError:
            raise RefusedError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what lies outside the pickle."""
        raise RefusedError("an object kept outside the file")

    def build(self, target: Any, state: Any) -> None:
        """Give an object the state that the file has for it."""
        if not isinstance(target, (_Array, _Dtype)):
            raise RefusedError(f"the state of a {type(target).__name__}")
        target.set_state(state)

    def load_build(self) -> None:
        """Carry out the instruction BUILD."""
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    dispatch[pickle.BUILD[0]] = load_build


def load_plain(file: BinaryIO, encoding: str = "ASCII") -> Any:
    """Read one pickle of arrays, numbers, strings and plain containers.

    Args:
        file: read from where it stands.
        encoding: of text that Python 2 wrote; ``bytes`` leaves it as bytes.

    Raises:
        RefusedError: if the file asks for anything else.
        pickle.UnpicklingError, and others of `MALFORMED`: if the bytes are no complete pickle.
    """
    return _unwrap(Reader(file, encoding=encoding).load(), {})


def _unwrap(value: Any, seen: dict[int, Any]) -> Any:
    """Replace the stand-ins by arrays; `seen` keeps shared and self-containing values from multiplying."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, (dict, list, tuple)):
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, set)):
            return value
        raise RefusedError(f"a {type(value).__name__}")
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
