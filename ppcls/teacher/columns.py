"""What a record of a store consists of: a column for each output of each network, in a chosen precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ppcls.errors import ConfigError, DataError
from ppcls.teacher.outputs import Layout, flatten, rebuild
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
        shape: of one sample.
        dtype: in which the network gives it: float32, float16 or bfloat16.
        precision: in which it is stored: one of the same.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    precision: str


class Columns:
    """The columns of each network, and how outputs become records and come back.

    Args:
        networks: for each network the layout of its output and its columns, in the order of the layout.
    """

    def __init__(self, networks: Mapping[str, tuple[Layout, Sequence[Column]]]) -> None:
        self.networks = {name: (layout, list(columns)) for name, (layout, columns) in networks.items()}
        fields: list[Any] = [(INDEX, "<u4")]
        for _, columns in self.networks.values():
            fields += [(column.name, _ON_DISK[column.precision], column.shape) for column in columns]
        self.dtype: np.dtype[Any] = np.dtype(fields)

    @classmethod
    def of_outputs(cls, outputs: Mapping[str, Any], precision: str, features: str) -> Columns:
        """Return the columns for outputs of networks.

        Args:
            outputs: of one batch, by network.
            precision: for logits, see `Column`.
            features: for everything else.

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
                chosen = precision if title == "logits" else features
                columns.append(Column(f"{name}:{title}", tuple(tensor.shape[1:]), kind, chosen))
            found[name] = (layout, columns)
        return cls(found)

    @classmethod
    def from_json(cls, content: Any) -> Columns:
        """Return the columns that :meth:`as_json` described.

        Raises:
            DataError: if that is damaged.
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

    def encode(self, name: str, output: Any, count: int) -> dict[str, np.ndarray]:
        """Return the values to store of the output of a network, by column.

        Args:
            name: of the network.
            output: for one batch.
            count: number of images in it.

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
            values[column.name] = _to_disk(tensor.astype("float32").numpy(), column)
        return values

    def decode(self, values: Mapping[str, np.ndarray] | np.ndarray, name: str) -> Any:
        """Return the output of a network as the network gives it.

        Args:
            values: what :meth:`encode` returned, or records.
            name: of the network.
        """
        layout, columns = self.networks[name]
        return rebuild(layout, [_from_disk(values[column.name], column) for column in columns])

    def records(self, values: Mapping[str, np.ndarray], index: np.ndarray) -> np.ndarray:
        """Return records of one batch.

        Args:
            values: of every network, by column.
            index: places of the samples in the data, int64 [N].
        """
        records = np.empty(len(index), self.dtype)
        records[INDEX] = index
        for column, array in values.items():
            records[column] = array
        return records


def _column(content: Mapping[str, Any]) -> Column:
    column = Column(**{**content, "shape": tuple(int(side) for side in content["shape"])})
    if column.precision not in _ON_DISK or column.dtype not in _ON_DISK:
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


def _to_disk(values: np.ndarray, column: Column) -> np.ndarray:
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


def _from_disk(values: np.ndarray, column: Column) -> Tensor:
    # Fields of a record lie apart, so each is copied into an array of its own.
    dense = np.ascontiguousarray(values)
    if column.precision == "bfloat16":
        dense = from_bfloat16(dense)
    tensor = paddle.to_tensor(dense.astype(np.float32, copy=False))
    return tensor if column.dtype == "float32" else tensor.astype(column.dtype)
