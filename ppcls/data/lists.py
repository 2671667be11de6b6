"""List files with one ``path<delimiter>label`` per line: read once and checked completely before training."""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from ppcls.class_names import shown_name
from ppcls.data.folders import SUFFIXES, in_order
from ppcls.data.list_cache import load_list, reading_of, store_list
from ppcls.data.names import Names, NamesCollected
from ppcls.errors import DataError, hint
from ppcls.logger import LOGGER
from ppcls.texts import is_windows_path, lines_of, near_path, other_spelling, read_text, sentence

_SHOWN = 10
_LONGEST = 200
_BEGINNING = 1 << 16
_AT_A_TIME = 10_000  # names
_SPLIT = 1 << 20  # characters
# Up to this many names in one folder, checking each is cheaper than listing the folder, which may be huge.
_ASK_EACH = 64
_NUMBER = r"[-+]?\d+(?:\.\d*)?"
# Several labels in one field, as lists for many labels have them: 0,1,0 or [0, 1].
_SEVERAL = re.compile(rf"\s({_NUMBER}(?:[,;|:/]{_NUMBER})+|[\[(]\s*{_NUMBER}(?:[\s,;|]+{_NUMBER})*\s*[\])])$")
# The text between the name of a file and its last number, if there are several numbers: a.jpg 0 1.
_MORE_LABELS = re.compile(rf"\.[A-Za-z]{{3,4}}[\s,;|]+({_NUMBER}(?:[\s,;|]+{_NUMBER})*)$")
_OTHER_DELIMITER = re.compile(rf"([,;|]){_NUMBER}$")


@dataclass
class ImageList:
    """The content of a list file.

    Attributes:
        names: paths as written.
        labels: int32 [N]; int64 if a label needs it.
    """

    names: Names
    labels: np.ndarray


@dataclass
class _Report:
    """Mistakes found so far; the text shows the first ones and counts all."""

    path: Path
    counts: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _SHOWN:
            self.first.append((line, text))

    def raise_if_any(self, lines: int) -> None:
        if not self.counts:
            return
        total = sum(self.counts.values())
        kinds = ", ".join(f"{kind}: {count}" for kind, count in self.counts.items())
        shown = [f"  {self.path}:{line}: {text}" for line, text in sorted(self.first)[:_SHOWN]]
        if total > len(shown):
            shown.append(f"  ... and {total - len(shown)} more")
        noun = "mistake" if total == 1 else "mistakes"
        raise DataError("\n".join([f"{self.path}: {total} {noun} in {lines} lines ({kinds})", *shown]))


def read_list(
    path: str | Path,
    root: str | Path = "",
    *,
    delimiter: str | None = None,
    class_num: int | None = None,
    mapping: Mapping[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    labelled: bool = True,
) -> ImageList:
    """Read and check a list file. A long one that has not changed is not checked again, see list_cache.

    Blank lines, a byte order mark, Windows line ends and blanks around a line are allowed.

    Args:
        path: the list, UTF-8; one ``path<delimiter>label`` per line.
        root: folder that relative paths start from.
        delimiter: what separates path and label. By default the last blank or tab, so that a path may
            contain blanks. Behind the name of an image file and a tab, all is the label.
        class_num: labels must lie in ``0..class_num-1``.
        mapping: new label of each label in the list; others are mistakes.
        class_names: names by class, for a list whose labels are names; None for numbers.
        labelled: False accepts lines without a label, and any label; whatever is no class becomes 0.

    Raises:
        DataError: with the first mistakes, each with its line, and their counts.
    """
    path = Path(path)
    reading = reading_of(path, str(root), delimiter, class_num, mapping, class_names, labelled)
    classes = _Classes(class_num, mapping, class_names)
    split = _split if labelled else _split_unlabelled
    stored = load_list(reading) if reading is not None else None
    if stored is not None:
        return ImageList(*stored)
    names = NamesCollected()
    block: list[str] = []
    labels = array("q")
    numbers = array("I")
    files = _Files(str(root), path)
    right: dict[str, int] = {}  # labels as written, of which there are far fewer than lines
    report = _Report(path)
    number = 0
    for number, raw in enumerate(_lines(read_text(path)), 1):
        line = raw.strip()
        if not line:
            continue
        name, label = split(line, delimiter)
        if not name or label not in right:
            problem = classes.problem(line, name, label)
            if problem:
                report.add(number, *problem)
                continue
            right[label] = classes.number(label)
        block.append(name)
        if len(block) == _AT_A_TIME:
            names.extend(block)
            files.extend(block)
            block.clear()
        labels.append(right[label])
        numbers.append(number)
    names.extend(block)
    files.extend(block)
    if not len(names) and not report.counts:
        raise DataError(
            f"{path}: the list is empty; expected one line 'path{delimiter or ' '}label' per image"
            if labelled
            else f"{path}: the list is empty; expected one path per line"
        )
    files.check(numbers, report, may_have_header=class_names is not None)
    report.raise_if_any(number - (not raw))
    dtype = np.int32 if max(right.values()) < 2**31 else np.int64
    found = ImageList(names.names(), np.asarray(labels, dtype))
    if reading is not None:
        store_list(reading, found.names, found.labels, files.folders)
    return found


def path_in_list(path: str) -> str:
    """Return a relative path of an image as a line of a list may begin with it.

    Raises:
        DataError: for a path that a list cannot hold.
    """
    if "\n" in path or "\r" in path:
        raise DataError(f"{path!r}: a list holds no names with a line break; rename the file or folder")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(f"{path!r}: the name is not UTF-8; rename the file or folder") from None
    return path if path == path.lstrip() else f"./{path}"  # blanks around a line do not count


def _lines(text: str) -> Iterator[str]:
    """Yield what `lines_of` returns, without all lines in memory at once."""
    start = 0
    while start + _SPLIT < len(text):
        stop = text.rfind("\n", start, start + _SPLIT) + 1
        if not stop:  # a list with the line ends of old Macs, or a file that is no list
            break
        yield from lines_of(text[start : stop - 1].removesuffix("\r"))
        start = stop
    yield from lines_of(text[start:])


def class_mapping(path: str | Path, delimiter: str | None = None) -> dict[int, int]:
    """Return ``{label: 0..n-1}`` for the distinct labels of a list, in ascending order.

    It does not check that the files exist, because the list of another dataset may name missing ones.

    Raises:
        DataError: if the list cannot be read.
    """
    found = set()
    for number, line in enumerate(lines_of(read_text(Path(path))), 1):
        if line.strip():
            label = _split(line.strip(), delimiter)[1]
            if label not in found:
                if not _is_int(label):
                    raise DataError(f"{path}:{number}: the label must be a whole number, got {label!r}")
                found.add(label)
    return {label: place for place, label in enumerate(sorted(set(map(int, found))))}


def label_names(
    path: str | Path, delimiter: str | None = None, given: Sequence[str] | None = None
) -> list[str] | None:
    """Return the distinct labels of a list whose labels are names, in order of classes; None for numbers.

    It does not check that the files exist. A list in which any label has no letter has numbers as labels,
    unless one of `given` that is no whole number is a label.

    Args:
        path: the list.
        delimiter: see :func:`read_list`.
        given: names by class, if they are known; they are returned if the labels are names.

    Raises:
        DataError: if the list cannot be read.
    """
    if given is not None and not all(map(_is_name, given)):  # 0-9, 18+
        wanted = {name for name in given if not _is_int(name)}
        labels = {shown_name(label) for _, label in _distinct_labels(path, delimiter)} if wanted else set()
        if labels & wanted:
            return list(given)
        unlike = [label for label in labels if label in given and given.index(label) != int(label)]
        if unlike and labels <= set(given):
            LOGGER.warning(
                "%s: its labels are read as numbers of classes, although %s is the name of class %d, too",
                path,
                min(unlike),
                given.index(min(unlike)),
            )
    if not _begins_with_a_name(Path(path), delimiter):
        return None
    found = set()
    for name, label in _distinct_labels(path, delimiter):
        if not name or not _is_name(label):
            return None
        found.add(shown_name(label))
    return in_order(found) if given is None else list(given)


def _distinct_labels(path: str | Path, delimiter: str | None) -> Iterator[tuple[str, str]]:
    """Yield each label of a list once, with a path in front of it, which is empty if there is none."""
    found = set()
    for raw in lines_of(read_text(Path(path))):
        line = raw.strip()
        if line:
            name, label = _split(line, delimiter)
            if label not in found:
                found.add(label)
                yield name, label


def _begins_with_a_name(path: Path, delimiter: str | None) -> bool:
    """Tell whether the label in the first line may be a name, without reading a long list."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING).decode("utf-8-sig", "replace")
    except OSError:
        return False  # read_list says what is wrong
    first = next((line for line in map(str.strip, lines_of(beginning)) if line), "")
    name, label = _split(first, delimiter)
    return bool(name) and _is_name(label)


def _is_name(label: str) -> bool:
    """Tell whether a label may be the name of a class; ``0,1,0`` and the end of a path are none."""
    return any(map(str.isalpha, label)) and not _ends_as_image(label)


def _ends_as_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _split(line: str, delimiter: str | None) -> tuple[str, str]:
    if delimiter is None and "\t" in line:  # the name of a class may contain blanks
        name, label = map(str.strip, line.rsplit("\t", 1))
        # The path may contain a tab, before the last blank.
        if " " not in label or not _is_int(label.split()[-1]) or _ends_as_image(name):
            return name, label
    parts = line.rsplit(None if delimiter in (None, " ") else delimiter, 1)
    return (parts[0].strip(), parts[1].strip()) if len(parts) == 2 else ("", line)


def _split_unlabelled(line: str, delimiter: str | None) -> tuple[str, str]:
    """Return path and label of a line that may be a path alone; the label is 0 if it is no class."""
    if _ends_as_image(line):
        return line, "0"
    name, label = _split(line, delimiter)
    if not name:
        return line, "0"
    return name, label if label[:1] not in "+-" and _is_int(label) else "0"


def _is_int(text: str) -> bool:
    """Tell whether `text` is a whole number that fits into 64 bits."""
    digits = text[1:] if text[:1] in "+-" else text
    return digits.isascii() and digits.isdigit() and len(digits) <= 18


class _Classes:
    """Which labels there may be, and the class of each.

    Args:
        class_num: number of classes; None for any.
        mapping: class of each number; None: the number itself.
        names: names by class; None: labels are numbers.
    """

    def __init__(
        self, class_num: int | None, mapping: Mapping[int, int] | None, names: Sequence[str] | None
    ) -> None:
        self.class_num = class_num
        self.mapping = mapping
        self.numbers = None if names is None else {name: number for number, name in enumerate(names)}

    def number(self, label: str) -> int:
        """Return the class of a label that is right."""
        if self.numbers is not None:
            return self.numbers[shown_name(label)]
        return int(label) if self.mapping is None else self.mapping[int(label)]

    def problem(self, line: str, name: str, label: str) -> tuple[str, str] | None:
        """Return the kind of mistake and its text, or None for a good line."""
        if self.numbers is not None and name:
            if shown_name(label) in self.numbers:
                return None
            near = hint(shown_name(label), self.numbers)
            return "unknown class", f"{_cut(label)!r} is none of the {len(self.numbers)} classes.{near}"
        if not (name and _is_int(label)):
            return _unreadable(line, name, label)
        if self.mapping is not None:
            if int(label) not in self.mapping:
                return (
                    "label outside the relabel list",
                    f"label {label} does not occur in the list of relabel",
                )
            label = str(self.mapping[int(label)])
        if int(label) < 0 or (self.class_num is not None and int(label) >= self.class_num):
            before = _MORE_LABELS.search(name)
            if before is not None:
                return _several_labels(f"{before[1]} {label}")
            most = self.class_num
            bound = "at least 0" if most is None else f"in 0..{most - 1} (class_num {most})"
            return "label out of range", f"the label must be {bound}, got {label}"
        return None


def _unreadable(line: str, name: str, label: str) -> tuple[str, str]:
    """Return the kind of mistake in a line without a path or a whole number, and its text."""
    several = _SEVERAL.search(line) or (_MORE_LABELS.search(line) if " " in label else None)
    if several is not None:
        return _several_labels(several[1])
    if not name:
        other = _OTHER_DELIMITER.search(line)
        remedy = f"; set delimiter: '{other[1]}' in the dataset" if other else ""
        remedy = (
            remedy or "; images without labels belong in DataLoader.UnLabelTrain, or have labelled: False"
        )
        return "no label", f"expected a path and a label, got {_cut(line)!r}{remedy}"
    text = f"the label must be a whole number, got {_cut(label)!r} in {_cut(line)!r}"
    if _is_name(label):
        text += "; the labels of a list are either all numbers or all names, and a list has no header"
    elif not any(map(str.isalpha, label)) and not re.fullmatch(_NUMBER, label):
        text += "; class names without a letter must be listed in the dataset's class_names"
    return "label is no whole number", text


def _several_labels(labels: str) -> tuple[str, str]:
    text = f"several labels ({_cut(labels)}): multi-label lists are not supported; give each image one class"
    return "several labels", text


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class _Files:
    """The files of a list, by folder, in little memory.

    Args:
        root: folder that relative paths start from.
        path: the list.

    Raises:
        DataError: if `root` is no folder.
    """

    def __init__(self, root: str, path: Path) -> None:
        if root and not os.path.isdir(root):
            raise DataError(f"{path}: image_root {root} is no folder{sentence(near_path(root))}")
        self._root = root
        self._by_folder: dict[str, tuple[NamesCollected, array[int]]] = {}
        self._count = 0

    @property
    def folders(self) -> list[str]:
        """The folders of the files, relative to the root."""
        return list(self._by_folder)

    def extend(self, names: Sequence[str]) -> None:
        """Add the next files."""
        bases: dict[str, list[str]] = {}
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names, self._count):
            folder = _parent(name)
            bases.setdefault(folder, []).append(name[len(folder) :])
            places.setdefault(folder, []).append(place)
        for folder, own in bases.items():
            if folder not in self._by_folder:
                self._by_folder[folder] = (NamesCollected(), array("I"))
            collected, where = self._by_folder[folder]
            collected.extend(own)
            where.extend(places[folder])
        self._count += len(names)

    def check(self, numbers: Sequence[int], report: _Report, *, may_have_header: bool) -> None:
        """Report the files that are missing.

        Args:
            numbers: the line of each file.
            report: gets the mistakes.
            may_have_header: the first line may be one, because labels are names.
        """
        for folder, (collected, places) in self._by_folder.items():
            bases = list(collected.names())
            present = _present(os.path.join(self._root, folder), bases)
            if present.issuperset(bases):
                continue
            for place, base in zip(places, bases, strict=True):
                if base not in present:
                    kind, text = _why_missing(folder + base, self._root)
                    if may_have_header and numbers[place] == 1 and not _ends_as_image(base):
                        text += "; if this line is a header, take it away, because a list has none"
                    report.add(numbers[place], kind, text)


def _parent(name: str) -> str:
    """Return the folder of a file with the separator at its end; empty for none."""
    if os.altsep:  # Windows has two separators
        return name[: len(name) - len(os.path.basename(name))]
    return name[: name.rfind("/") + 1]


def _why_missing(name: str, root: str) -> tuple[str, str]:
    """Return the kind of mistake that a missing file is likely to be, and its text."""
    missing = f"no such file: {os.path.join(root, name)}"
    other = other_spelling(name, root)
    if other is not None:
        return "other Unicode form", f"{missing}. {other}"
    labels = _MORE_LABELS.search(name)
    if labels is not None:
        return _several_labels(f"{labels[1]} ...")
    if is_windows_path(name):
        parts = PureWindowsPath(name).parts
        inner = parts[1:] if PureWindowsPath(name).anchor else parts
        rest = next((r for r in _endings(inner) if os.path.isfile(os.path.join(root, r))), None)
        remedy = f"write {rest}, which exists" if rest else "write it with / and from image_root on"
        return "path of Windows", f"{missing}; it is a path of Windows: {remedy}"
    bare = name.rstrip(",;|").strip("\"'").rstrip()
    if bare != name and os.path.isfile(os.path.join(root, bare)):
        quoted = name[:1] in "\"'"
        remedy = "take the quotes away" if quoted else f"set delimiter: '{name[-1]}' in the dataset"
        return ("path in quotes" if quoted else "other delimiter"), f"{missing}; {bare} exists: {remedy}"
    own = Path(os.path.normpath(name)).parts
    above = Path(os.path.normpath(root)).parts if root else ()
    for count in range(min(len(own) - 1, len(above)), 0, -1):
        rest = os.path.join(*own[count:])
        if own[:count] == above[-count:] and os.path.isfile(os.path.join(root, rest)):
            text = f"{missing}; image_root {root} is put before every path, so write {rest}"
            return "image_root repeated", text
    rest = next((r for r in _endings(own[1:]) if os.path.isfile(os.path.join(root, r))), None)
    beside = "" if rest is None else f"; but {rest} exists below image_root {root}"
    return "missing file", f"{missing}{beside}"


def _endings(parts: Sequence[str]) -> Iterator[str]:
    """Yield a path, then the path without its first folder, without its first two, and so on."""
    for start in range(len(parts)):
        yield "/".join(parts[start:])


def _present(folder: str, names: list[str]) -> set[str]:
    """Return those of `names`, and perhaps others, that exist in `folder`."""
    if len(names) < _ASK_EACH:
        return {name for name in names if os.path.isfile(os.path.join(folder, name))}
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
