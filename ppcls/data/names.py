"""Names of images in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

_ERRORS = "surrogateescape"
_BLOCK = 10_000
_SEARCHED = 1 << 24  # bytes


class Names(Sequence[str]):
    """A sequence of texts without line ends, kept as one block of bytes: a fifth of the memory of a list.

    Attributes:
        content: the names in UTF-8, separated by line feeds; bytes or a view of bytes.
        starts: where each name begins, and one more entry, where the next name would begin, [N + 1].
    """

    def __init__(self, content: bytes | memoryview, starts: np.ndarray) -> None:
        self.content = content
        self.starts = starts

    def __reduce__(self) -> tuple[type[Names], tuple[bytes, np.ndarray]]:
        return Names, (bytes(self.content), self.starts)

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """Return the names in this form."""
        collected = NamesCollected()
        collected.extend(names)
        return collected.names()

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} names, and no name {index}")
        place = index % len(self)
        return str(self.content[self.starts[place] : self.starts[place + 1] - 1], "utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):  # many at a time are decoded faster than one by one
            stop = min(start + _BLOCK, len(self))
            block = self.content[self.starts[start] : self.starts[stop] - 1]
            yield from str(block, "utf-8", _ERRORS).split("\n")


class NamesCollected:
    """Names that are added one after another, without all of them as texts in memory."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, names: Sequence[str]) -> None:
        """Add some names."""
        if names:
            self._content += "\n".join(names).encode(errors=_ERRORS) + b"\n"
            self._count += len(names)

    def names(self) -> Names:
        """Return all names; nothing can be added afterwards.

        Raises:
            ValueError: if a name contains a line end.
        """
        if not self._count:
            return Names(b"", np.zeros(1, np.uint32))
        content = self._content
        self._content = bytearray()
        dtype = np.uint32 if len(content) < 2**32 else np.int64
        starts = np.zeros(self._count + 1, dtype)
        place = 1
        for first in range(0, len(content), _SEARCHED):
            part = np.frombuffer(content, np.uint8, min(_SEARCHED, len(content) - first), first)
            ends = np.flatnonzero(part == ord("\n")) + (first + 1)
            if place + len(ends) > len(starts):
                raise ValueError("a name contains a line end")
            starts[place : place + len(ends)] = ends
            place += len(ends)
        return Names(memoryview(content).toreadonly()[:-1], starts)
