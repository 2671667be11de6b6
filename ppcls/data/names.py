"""Names of images in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

_ERRORS = "surrogateescape"
_BLOCK = 10_000


class Names(Sequence[str]):
    """A sequence of texts without line ends, kept as one block of bytes: a fifth of the memory of a list.

    Attributes:
        content: the names in UTF-8, separated by line feeds.
        starts: where each name begins, and one more entry, where the next name would begin, [N + 1].
    """

    def __init__(self, content: bytes, starts: np.ndarray) -> None:
        self.content = content
        self.starts = starts

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """Return the names in this form."""
        if not names:
            return cls(b"", np.zeros(1, np.uint32))
        content = "\n".join(names).encode(errors=_ERRORS)
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
        dtype = np.uint32 if len(content) < 2**32 - 1 else np.int64
        starts = np.concatenate([[0], ends, [len(content) + 1]]).astype(dtype)
        if len(starts) != len(names) + 1:
            raise ValueError("a name contains a line end")
        return cls(content, starts)

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
        return self.content[self.starts[place] : self.starts[place + 1] - 1].decode(errors=_ERRORS)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):  # many at a time are decoded faster than one by one
            stop = min(start + _BLOCK, len(self))
            block = self.content[self.starts[start] : self.starts[stop] - 1]
            yield from block.decode(errors=_ERRORS).split("\n")
