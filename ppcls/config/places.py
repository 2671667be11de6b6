"""Where a setting of a recipe is written: the override, or the file and line, that a config path leads to.

Files are read again for it, and only after a mistake was found: a valid recipe costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import yaml

from ppcls.config.loading import BASE_KEY, find_base, override_steps
from ppcls.config.yaml_text import compose_yaml
from ppcls.errors import ConfigError, Place


class Places:
    """Finds where the settings of a recipe are written.

    Args:
        file: the recipe, which was read without a mistake before.
        overrides: those of the command line, in their order.
    """

    def __init__(self, file: Path, overrides: Sequence[str] = ()) -> None:
        self._file = file
        self._overrides = [(override_steps(text), text) for text in overrides]

    def find(self, path: str) -> Place | None:
        """Return where a config path is written, or what is nearest above it; None if nothing of it is.

        What stands later has the last word, so overrides come before the file, and it before its bases.
        """
        steps = path.split(".") if path else []
        for known, text in reversed(self._overrides):
            if known and steps[: len(known)] == known:
                return Place(f"-o {text}")
        best, found = 0, None
        for file, root in self._roots:
            depth, line = _follow(root, steps)
            if depth > best:
                best, found = depth, Place(str(file), line)
        if best < len(steps):  # an override may have made what files do not have
            made = [text for known, text in self._overrides if known[: len(steps)] == steps]
            return Place(f"-o {made[-1]}") if made else found
        return found

    @cached_property
    def _roots(self) -> list[tuple[Path, yaml.Node]]:
        return list(_files(self._file))


def _files(file: Path) -> Iterator[tuple[Path, yaml.Node]]:
    """Yield a recipe and its bases with their content, the one that has the last word first."""
    root = compose_yaml(file)
    if root is None:
        return
    yield file, root
    for base in reversed(_bases(root)):
        try:
            yield from _files(find_base(file, base))
        except ConfigError:  # was there when the recipe was read
            continue


def _bases(root: yaml.Node) -> list[str]:
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == BASE_KEY:
            return [node.value for node in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return []


def _follow(node: yaml.Node, steps: Sequence[str]) -> tuple[int, int]:
    """Return how many steps lead on from `node`, and the line (from 1) of the last thing they lead to."""
    line = node.start_mark.line + 1
    for depth, step in enumerate(steps):
        mark = node.start_mark
        if isinstance(node, yaml.MappingNode):
            found = next(((key.start_mark, value) for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
            entry = node.value[int(step)]
            found = (entry.start_mark, entry)
        else:
            found = None
        if found is None:
            return depth, line
        mark, node = found
        line = mark.line + 1
    return len(steps), line
