"""What tells one list of images from another: how many entries, and a hash of their names and labels.

A run records the fingerprints of its lists, so that a list that changed between a run and its resume, or that
differs between two processes of a run, is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fingerprint:
    """What one list of images says, in short.

    Attributes:
        name: what messages call the list: its file or folder. It is not compared: data may be moved.
        count: how many images.
        digest: hash of names and labels in their order, hexadecimal.
    """

    name: str
    count: int
    digest: str

    def same_as(self, other: Fingerprint) -> bool:
        """Tell whether both lists hold the same images with the same labels in the same order."""
        return (self.count, self.digest) == (other.count, other.digest)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it; ``Fingerprint(**d)`` makes it again."""
        return asdict(self)


def fingerprint_of(name: str, names: Iterable[str], labels: np.ndarray | Iterable[int]) -> Fingerprint:
    """Return the fingerprint of a list.

    Args:
        name: what messages call it.
        names: of the images, without the folder that the data lies in.
        labels: their classes, [N].
    """
    classes = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels), np.int64)
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\n".join(names).encode(errors="surrogateescape"))
    digest.update(classes.astype("<i8").tobytes())
    return Fingerprint(name, len(classes), digest.hexdigest())
