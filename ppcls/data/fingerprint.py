"""The fingerprint of a list of images: the number of entries, and a hash of their names and labels.

A run records the fingerprints of its lists, so that a message can name a list that changed between a run and
its resume, or that differs between two processes of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ppcls.data.names import Names


@dataclass(frozen=True)
class Fingerprint:
    """Identifies the content of one list of images.

    Attributes:
        name: file or folder of the list, for messages. It is not compared, because data may be moved.
        count: number of images.
        digest: hash of names and labels in their order, hexadecimal.
    """

    name: str
    count: int
    digest: str

    def same_as(self, other: Fingerprint) -> bool:
        """Tell whether both lists hold the same images with the same labels in the same order."""
        return (self.count, self.digest) == (other.count, other.digest)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a dict for JSON; ``Fingerprint(**d)`` restores it."""
        return asdict(self)


def fingerprint_of(name: str, names: Iterable[str], labels: np.ndarray | Iterable[int]) -> Fingerprint:
    """Return the fingerprint of a list.

    Args:
        name: its name in messages.
        names: names of the images, relative to the folder of the data.
        labels: classes of the images, [N].
    """
    classes = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels), np.int64)
    digest = hashlib.blake2b(digest_size=16)
    content = names.content if isinstance(names, Names) else "\n".join(names).encode(errors="surrogateescape")
    digest.update(content)
    digest.update(classes.astype("<i8").tobytes())
    return Fingerprint(name, len(classes), digest.hexdigest())
