"""The columns of a record in a store: one for each output of each network, in a chosen precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ppcls.errors import ConfigError, DataError
from ppcls.teacher.outputs import Layout, flatten, rebuild
from ppcls.teacher.sparse import draw, from_drawn, from_most_probable, most_probable
from ppcls.teacher.store import INDEX
from ppcls.weights.safetensors_file import from_bfloat16

# How numbers of each precision lie in a file; NumPy has no bfloat16, so its 16 bits are stored.
_ON_DISK = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_PADDLE = {paddle.float32: "float32", paddle.float16: "float16", paddle.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Column:
    """One output of a network.

    Attributes:
        name: ``Teacher:logits``, ``Teacher:blocks[2]``: the name of the field in records.
        shape: shape of the output for one sample.
        dtype: in which the network gives it: float32, float16 or bfloat16.
        precision: in which it is stored: one of the same.
        kept: of logits: all of them, ``topk`` or ``sample``.
        k: number of classes kept for each sample, if not all.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    precision: str
    kept: str = "all"
    k: int = 0

    @property
    def fields(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """The fields of a record: name, type and shape of each."""
        if self.kept == "all":
            return [(self.name, _ON_DISK[self.precision], self.shape)]
        classes = (self.classes, "<u2" if self.shape[0] <= 1 << 16 else "<u4", (self.k,))
        return (
            [classes]
            if self.kept == "sample"
            else [(self.name, _ON_DISK[self.precision], (self.k,)), classes]
        )

    @property
    def classes(self) -> str:
        """The field with the classes that were kept."""
        return f"{self.name}:classes"


@dataclass(frozen=True)
class Keeping:
    """Which part of the outputs is kept.

    Attributes:
        precision: precision of logits: float32, float16 or bfloat16.
        features: precision of all other outputs.
        logits: ``all``, ``topk`` or ``sample``.
        k: number of classes for the latter two.
    """

    precision: str
    features: str
    logits: str = "all"
    k: int = 0


class Columns:
    """The columns of each network, and the conversion of outputs to records and back.

    Args:
        networks: for each network the layout of its output and its columns, in the order of the layout.
    """

    def __init__(self, networks: Mapping[str, tuple[Layout, Sequence[Column]]]) -> None:
        self.networks = {name: (layout, list(columns)) for name, (layout, columns) in networks.items()}
        fields: list[Any] = [(INDEX, "<u4")]
        for _, columns in self.networks.values():
            fields += [field for column in columns for field in column.fields]
        self.dtype: np.dtype[Any] = np.dtype(fields)

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any], keeping: Keeping) -> Columns:
        """Return the columns for outputs of networks.

        Args:
            outputs: outputs for one batch, by network.
            keeping: which part of them is kept.

        Raises:
            ConfigError: if an output cannot be stored.
        """
        found = {}
        for name, output in outputs.items():
            tensors, layout = flatten(output)
            titles = _titles(layout)
            columns = []
            for place, tensor in enumerate(tensors):
                kind = _PADDLE.get(tensor.dtype)
                title = titles[place]
                if kind is None or tensor.ndim < 1:
                    raise ConfigError(
                        f"output {title} of {name} is {tensor.dtype} {list(tensor.shape)}: not storable",
                        path="TeacherStore",
                    )
                columns.append(_new_column(f"{name}:{title}", tuple(tensor.shape[1:]), kind, keeping))
            found[name] = (layout, columns)
        return cls(found)

    @classmethod
    def from_json(cls, content: Any) -> Columns:
        """Return the columns that :meth:`as_json` described.

        Raises:
            DataError: if the description is damaged.
        """
        try:
            networks = {
                name: (entry["layout"], [_column(column) for column in entry["columns"]])
                for name, entry in content.items()
            }
            return cls(networks)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the manifest of the store is damaged: networks: {error!r}") from None

    def as_json(self) -> dict[str, Any]:
        """Return a description for the manifest."""
        return {
            name: {"layout": layout, "columns": [asdict(column) for column in columns]}
            for name, (layout, columns) in self.networks.items()
        }

    def only(self, name: str) -> Columns:
        """Return the columns of one network."""
        return Columns({name: self.networks[name]})

    def encode(self, name: str, output: Any, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the values to store of the output of a network, by field.

        Args:
            name: name of the network.
            output: its output for one batch.
            count: number of images in it.
            rng: draws classes, if they are drawn.

        Raises:
            DataError: if an output is not as the columns say, or too large for its precision.
        """
        layout, columns = self.networks[name]
        tensors, found = flatten(output)
        if found != layout:
            raise DataError(f"the outputs of {name} changed: {_titles(found)}, before {_titles(layout)}")
        values = {}
        for tensor, column in zip(tensors, columns, strict=True):
            if tuple(tensor.shape) != (count, *column.shape) or _PADDLE[tensor.dtype] != column.dtype:
                raise DataError(
                    f"{column.name} is {tensor.dtype} {list(tensor.shape)}, but the store has "
                    f"{column.dtype} {[count, *column.shape]}; it needs images of one size"
                )
            values.update(_to_disk(tensor.astype("float32").numpy(), column, rng))
        return values

    def decode(self, values: Mapping[str, np.ndarray] | np.ndarray, name: str) -> Any:
        """Return the output of a network in its original form.

        Args:
            values: what :meth:`encode` returned, or records.
            name: name of the network.
        """
        layout, columns = self.networks[name]
        return rebuild(layout, [_from_disk(values, column) for column in columns])

    def records(self, values: Mapping[str, np.ndarray], index: np.ndarray) -> np.ndarray:
        """Return records of one batch.

        Args:
            values: of every network, by field.
            index: places of the samples in the data, int64 [N].
        """
        records = np.empty(len(index), self.dtype)
        records[INDEX] = index
        for name, array in values.items():
            records[name] = array
        return records


def _column(content: Mapping[str, Any]) -> Column:
    column = Column(**{**content, "shape": tuple(int(side) for side in content["shape"])})
    known = column.precision in _ON_DISK and column.dtype in _ON_DISK
    if not known or column.kept not in ("all", "topk", "sample"):
        raise ValueError(column)
    return column


def _titles(layout: Layout, title: str = "") -> dict[int, str]:
    """Return a name for each place of a layout; an output that is one tensor is logits."""
    if isinstance(layout, int):
        return {layout: title or "logits"}
    inner = layout["map"] if "map" in layout else {str(place): v for place, v in enumerate(layout["list"])}
    found: dict[int, str] = {}
    for key, value in inner.items():
        found = {**_titles(value, f"{title}.{key}" if title else key), **found}
    return found


def _new_column(name: str, shape: tuple[int, ...], dtype: str, keeping: Keeping) -> Column:
    if not name.endswith(":logits"):
        return Column(name, shape, dtype, keeping.features)
    if keeping.logits == "all":
        return Column(name, shape, dtype, keeping.precision)
    if len(shape) != 1:
        raise ConfigError(f"{name} are {list(shape)}, not classes", path="TeacherStore.logits")
    if keeping.k >= shape[0] and keeping.logits == "topk":
        raise ConfigError(f"{keeping.k}, but {name} has {shape[0]} classes; use all", path="TeacherStore.k")
    return Column(name, shape, dtype, keeping.precision, keeping.logits, keeping.k)


def _to_disk(values: np.ndarray, column: Column, rng: np.random.Generator) -> dict[str, np.ndarray]:
    if column.kept == "sample":
        return {column.classes: draw(values, column.k, rng)}
    if column.kept == "all":
        return {column.name: _in_precision(values, column)}
    log_p, classes = most_probable(values, column.k)
    return {column.name: _in_precision(log_p, column), column.classes: classes}


def _in_precision(values: np.ndarray, column: Column) -> np.ndarray:
    if column.precision == "float32":
        return values
    if column.precision == "bfloat16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, even on ties
    with np.errstate(over="ignore"):
        small = values.astype(np.float16)
    if np.isinf(small).any() and not np.isinf(values).any():
        key = "precision" if column.name.endswith(":logits") else "features"
        raise DataError(
            f"{column.name} has {np.abs(values).max():.3g}, which float16 cannot hold; "
            f"use TeacherStore.{key}: bfloat16 or float32"
        )
    return small


def _from_disk(values: Mapping[str, np.ndarray] | np.ndarray, column: Column) -> Tensor:
    if column.kept == "sample":
        dense = from_drawn(values[column.classes], column.shape[0])
    else:
        # The values of a field are not contiguous in memory, so each field is copied into a separate array.
        dense = np.ascontiguousarray(values[column.name])
        dense = (
            from_bfloat16(dense) if column.precision == "bfloat16" else dense.astype(np.float32, copy=False)
        )
        if column.kept == "topk":
            dense = from_most_probable(dense, values[column.classes], column.shape[0])
    tensor = paddle.to_tensor(dense)
    return tensor if column.dtype == "float32" else tensor.astype(column.dtype)
