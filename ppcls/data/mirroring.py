"""Classes that differ in left and right, and transforms that mirror images and keep their label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ppcls.data.dataset import Dataset
from ppcls.data.transforms.geometry import RandFlipImage

_EXCHANGED = {"left": "right", "right": "left", "clockwise": "counterclockwise"}
_EXCHANGED |= {"counterclockwise": "clockwise", "anticlockwise": "clockwise"}
_WORDS = re.compile(r"[^\W\d_]+")


def mirrored_classes(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of classes whose names become each other when left and right are exchanged.

    Args:
        names: the classes; ``turned_left`` and ``turned_right`` are such a pair.
    """
    known = {_words(name): name for name in names}
    found = []
    for words, name in known.items():
        other = known.get(tuple(_EXCHANGED.get(word, word) for word in words))
        if other is not None and other != name and (other, name) not in found:
            found.append((name, other))
    return found


def mirroring_problem(dataset: Dataset, names: Sequence[str] | None) -> str | None:
    """Tell what is wrong if transforms mirror images of classes that differ in left and right.

    Args:
        dataset: the images of training.
        names: their classes; None if they are not known.

    Returns:
        a message; None if there is nothing to tell.
    """
    flips = [op for op in dataset.transforms.ops if isinstance(op, RandFlipImage) and op.flip_code != 0]
    pairs = mirrored_classes(names or ())
    if not flips or not pairs:
        return None
    one, other = pairs[0]
    return (
        f"RandFlipImage mirrors images of {one!r} and keeps their label, but a mirrored image of {one!r} may "
        f"show {other!r}; if so, give DataLoader.Train.dataset transform_ops without RandFlipImage"
    )


def _words(name: str) -> tuple[str, ...]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # turnedLeft
    return tuple(word.lower() for word in _WORDS.findall(parted)) + tuple(re.findall(r"\d+", name))
