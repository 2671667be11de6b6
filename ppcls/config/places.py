"""Find where a setting of a recipe is written: the override, or the file and line, of a config path.

Files are read again for this, but only after a mistake was found.
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
        file: the recipe, which was read before without a mistake.
        overrides: overrides of the command line, in their order.
    """

    def __init__(self, file: Path, overrides: Sequence[str] = ()) -> None:
        self._file = file
        self._overrides = [(override_steps(text), text) for text in overrides]

    def find(self, path: str) -> Place | None:
        """Return the place of a config path, or of the nearest path above it; None if there is none.

        Overrides are searched before the file, and the file before its bases, because they have priority.
        """
        steps = path.split(".") if path else []
        for known, text in reversed(self._overrides):
            if known and steps[: len(known)] == known:
                return Place(f"-o {text}")
        best = 0
        found = None
        for file, root in self._roots:
            depth, line = _follow(root, steps)
            if depth > best:
                best = depth
                found = Place(str(file), line)
        if best < len(steps):  # an override may have created keys that are not in the files
            made = [text for known, text in self._overrides if known[: len(steps)] == steps]
            return Place(f"-o {made[-1]}") if made else found
        return found

    @cached_property
    def _roots(self) -> list[tuple[Path, yaml.Node]]:
        return list(_files(self._file))


def _files(file: Path) -> Iterator[tuple[Path, yaml.Node]]:
    """Yield a recipe and its bases with their content, the file with the highest priority first."""
    root = compose_yaml(file)
    if root is None:
        return
    yield file, root
    for base in reversed(_bases(root)):
        try:
            yield from _files(find_base(file, base))
        except ConfigError:  # it existed when the recipe was read
            continue


def _bases(root: yaml.Node) -> list[str]:
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == BASE_KEY:
            return [node.value for node in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return []


def _follow(node: yaml.Node, steps: Sequence[str]) -> tuple[int, int]:
    """Return how many steps exist below `node`, and the line (from 1) of the last one."""
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
