"""Search folders for images: each real folder once, and nothing hidden."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppcls.class_names import shown_name
from ppcls.errors import DataError, hint
from ppcls.logger import LOGGER

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".bmp", ".webp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
# What often lies beside images and is none. All other files are counted, whatever their suffix: they may be
# images of a kind that is not taken, or downloads that were not finished.
_NO_IMAGES = frozenset({
    ".txt", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml",
    ".ini", ".cfg", ".html", ".htm", ".css", ".js", ".py", ".pyc", ".ipynb", ".sh", ".bat", ".npy", ".npz",
    ".mat", ".pkl", ".lst", ".names", ".db", ".lock", ".md5", ".sha256", ".xmp", ".aae", ".lnk", ".url",
})  # fmt: skip
_NO_IMAGE_NAMES = frozenset({"readme", "license", "licence", "copying", "makefile", "md5sums", "sha256sums"})
# Files that systems and tools leave among images, in lower case. Names that begin with a dot are hidden
# anyway.
_BY_SYSTEMS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
_SHOWN = 5


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is not data: ``.ipynb_checkpoints``, ``._x.jpg``, ``Thumbs.db``."""
    return name.startswith(".") or name.lower() in _BY_SYSTEMS


class FolderSearch:
    """One search below a folder. What it leaves out is counted and reported once, by :meth:`report`.

    Links to folders are followed, but no real folder is searched twice, nor one that holds the root. Where a
    folder can be reached by a link and without one, its images have the path without the link.

    Args:
        root: the folder; it may be hidden itself.

    Raises:
        DataError: if a folder cannot be read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        real = os.path.realpath(self.root)
        # A link to one of these leads back up, and would include everything next to the root.
        self._seen = {_identity(str(folder)) for folder in (Path(real), *Path(real).parents)}
        self.hidden: list[str] = []
        self.again: list[str] = []
        self.others: Counter[str] = Counter()

    def class_folders(self) -> list[str]:
        """Return the names of the folders right below the root in order of classes, see :func:`in_order`."""
        folders, links, _ = self._entries(self.root)
        found = [os.path.basename(folder) for folder in folders]
        known = {*self._seen, *map(_identity, folders)}
        for link in links:
            identity = _identity(link)
            if identity in known:
                self.again.append(link)
            else:
                known.add(identity)
                found.append(os.path.basename(link))
        return in_order(found)

    def loose_images(self) -> list[str]:
        """Return the images right in the root, in order of their names."""
        files = FolderSearch(self.root)._entries(self.root)[2]
        return sorted(file for file in files if os.path.splitext(file)[1].lower() in SUFFIXES)

    def images(self, folders: Sequence[str]) -> list[list[str]]:
        """Return the images in each of several folders and all below it, in order of their paths."""
        found: list[list[str]] = [[] for _ in folders]
        waiting = [(os.path.islink(folder), place, folder) for place, folder in enumerate(folders)]
        waiting.sort()  # real folders first, then folders that only links lead to
        while waiting:
            links: list[tuple[bool, int, str]] = []
            for linked, place, folder in waiting:
                if folder == self.root or self._enter(folder, linked):
                    links += [(True, place, link) for link in self._walk(folder, found[place])]
            waiting = sorted(links)
        return [sorted(paths) for paths in found]

    def report(self) -> None:
        """Log what was left out, if anything was."""
        if self.others:
            ordered = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
            LOGGER.warning(
                "%s: not taken from this folder: %s; if they are images, rename them or convert them to JPEG "
                "or PNG",
                self.root,
                _first_names(f"{count} {suffix or 'without a suffix'}" for suffix, count in ordered),
            )
        if self.hidden:
            names = _first_names(dict.fromkeys(map(os.path.basename, sorted(self.hidden))))
            LOGGER.info("%s: %d hidden files and folders skipped: %s", self.root, len(self.hidden), names)
        if self.again:
            names = _first_names(os.path.relpath(link, self.root) for link in sorted(self.again))
            LOGGER.warning(
                "%s: %d %s skipped that lead to folders which are searched anyway or hold this one: %s",
                self.root,
                len(self.again),
                "link" if len(self.again) == 1 else "links",
                names,
            )

    def _enter(self, folder: str, linked: bool) -> bool:
        """Record a folder as searched; return False if it was searched before or does not exist."""
        if not os.path.isdir(folder):
            return False
        identity = _identity(folder)
        if identity in self._seen:
            if linked:
                self.again.append(folder)
            return False
        self._seen.add(identity)
        return True

    def _walk(self, folder: str, found: list[str]) -> list[str]:
        """Add the images below `folder`, links not followed, to `found`; return the links to folders."""
        stack = [folder]
        links = []
        while stack:
            folders, more, files = self._entries(stack.pop())
            links += more
            stack += [inner for inner in folders if self._enter(inner, False)]
            for file in files:
                name, suffix = os.path.splitext(os.path.basename(file).lower())
                if suffix in SUFFIXES:
                    found.append(file)
                elif suffix not in _NO_IMAGES and name not in _NO_IMAGE_NAMES:
                    self.others[suffix] += 1
        return links

    def _entries(self, folder: str) -> tuple[list[str], list[str], list[str]]:
        """Return the paths of the folders, links to folders, and files in `folder`, hidden ones left out."""
        folders: list[str] = []
        links: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        self.hidden.append(entry.path)
                    elif entry.is_symlink():  # os.path.isdir is False for a link to itself
                        (links if os.path.isdir(entry.path) else files).append(entry.path)
                    else:
                        (folders if entry.is_dir() else files).append(entry.path)
        except OSError as error:
            raise DataError(f"{folder}: the folder cannot be read: {error.strerror or error}") from error
        return folders, sorted(links), files


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _first_names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def in_order(folders: Iterable[str]) -> list[str]:
    """Return names of class folders in order of their classes.

    Names that are whole numbers come first, in numerical order, then the others in alphabetical order.
    """
    return sorted(folders, key=lambda name: (0, int(name), name) if _is_number(name) else (1, 0, name))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def match_classes(folders: Iterable[str], class_names: Sequence[str], where: str) -> dict[str, str]:
    """Return the folder of each class that has one.

    Args:
        folders: names of class folders.
        class_names: the classes in order.
        where: the beginning of messages.

    Raises:
        DataError: for folders that belong to no class, each with the class of the most similar name.
    """
    by_name = {shown_name(folder): folder for folder in folders}
    unknown = [name for name in by_name if name not in class_names]
    if unknown:
        named = ", ".join(repr(name) + _nearest(name, class_names) for name in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise DataError(
            f"{where}: folders that are none of the {len(class_names)} classes: {named}{more}. The classes "
            f"are {_first_names(class_names)}; they come from the training data, unless "
            "class_names gives them. Rename the folders, or take them out"
        )
    return by_name


def _nearest(name: str, known: Sequence[str]) -> str:
    near = hint(name, known).strip()
    return f" ({near[0].lower()}{near[1:]})" if near else ""


def list_class_names(root: str | Path) -> list[str]:
    """Return the names of the class folders of `root` in order; nothing below them is read.

    Raises:
        DataError: if `root` cannot be read, or two folders have the same class name.
    """
    return shown_names(FolderSearch(root).class_folders(), str(root))


def shown_names(folders: Sequence[str], where: str) -> list[str]:
    """Return the class names of folders.

    Raises:
        DataError: if two folders have the same class name.
    """
    names = [shown_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(
            f"{where}: two class folders differ in blanks or in the Unicode form of letters alone: "
            f"{twice!r}; rename one, or merge them"
        )
    return names


def text_order(names: Sequence[str]) -> list[str]:
    """Return class names in the order of versions that did not sort numbers: 0, 1, 10, 11, 2.

    Without numbers the order has always been that of the folders, whose names may differ from these.
    """
    return sorted(names) if any(map(_is_number, names)) else list(names)
