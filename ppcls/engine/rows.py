"""The outputs of a network for some of the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import paddle


class Rows(Mapping[str, Any]):
    """What a network or several returned, for some rows of the batch; cut only when it is looked at."""

    def __init__(self, outputs: Mapping[str, Any], rows: paddle.Tensor) -> None:
        self._outputs, self._rows = outputs, rows

    def __getitem__(self, name: str) -> Any:
        return rows_of(self._outputs[name], self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


def rows_of(outputs: Any, rows: paddle.Tensor) -> Any:
    """Return `outputs` (a tensor [N, ...], or a list or mapping of such) for the `rows`, int64 [n]."""
    if isinstance(outputs, Mapping):
        return Rows(outputs, rows)
    if isinstance(outputs, list | tuple):
        return [rows_of(value, rows) for value in outputs]
    return paddle.gather(outputs, rows)
