"""Read YAML files with ``_base_`` and ``-o`` overrides. Nothing is checked against a schema."""

from __future__ import annotations

import difflib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppcls.config.image_size import sized
from ppcls.config.nodes import RecipeTree
from ppcls.config.yaml_text import MAX_DEPTH, NotYaml, parse_yaml, read_yaml
from ppcls.errors import ConfigError, Mistake, Place, hint, shorten, show
from ppcls.plugins import placed

PACKAGED = Path(__file__).resolve().parents[1] / "configs"
BASE_KEY = "_base_"
_SETTINGS = "Global"  # the section that is never off, so that null says nothing
# The largest number of files of a recipe; a base of several files is counted each time it is merged.
_MAX_BASES = 200


def find_recipe(path: str | Path) -> Path:
    """Return the file `path`: the local file if it exists, else the packaged recipe.

    Names of packaged recipes are ``ImageNet/...``, ``configs/ImageNet/...`` and
    ``ppcls/configs/ImageNet/...``, in any working directory.

    Raises:
        ConfigError: if neither exists; the message names the most similar file.
    """
    local = Path(os.path.expanduser(path))
    if os.path.isfile(local):  # unlike Path.is_file, False for names that no system accepts
        return local
    if os.path.isdir(local):
        raise ConfigError(f"{path} is a folder, not a YAML file")
    if not local.is_absolute():
        parts = [part for part in local.parts if part != "."]
        for prefix in (["ppcls", "configs"], ["configs"]):
            if parts[: len(prefix)] == prefix:
                parts = parts[len(prefix) :]
                break
        packaged = PACKAGED.joinpath(*parts)
        if os.path.isfile(packaged):
            return packaged
    raise ConfigError(
        f"{shorten(str(path))}: no such file, here or among the packaged recipes.{_nearest(local)}"
    )


def _wrong(file: Path, text: str) -> ConfigError:
    return ConfigError.of(Mistake("", text, place=Place(str(file))))


def _nearest(missing: Path) -> str:
    candidates = {str(p.relative_to(PACKAGED)): p.name for p in PACKAGED.glob("**/*.yaml")}
    if os.path.isdir(missing.parent):
        candidates |= {str(p): p.name for p in missing.parent.glob("*.y*ml")}
    close = difflib.get_close_matches(missing.name, sorted(set(candidates.values())), n=3, cutoff=0.5)
    found = [full for name in close for full in sorted(candidates) if candidates[full] == name]
    return f" Did you mean: {', '.join(found[:3])}?" if found else ""


def read(path: Path) -> RecipeTree:
    """Return the YAML file `path` as a plain dict with its bases; interpolations are not resolved.

    Raises:
        ConfigError: for a file that is not UTF-8 or not YAML (with file and line), a key given twice, a
            missing base or a circle of bases.
    """
    return _Reader().read(path, ())


class _Reader:
    """Reads a file with its bases, each file only once."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, Any]] = {}
        self._merged = 0

    def read(self, path: Path, above: tuple[Path, ...]) -> RecipeTree:
        """Return the content of `path` over that of its bases; `above` are the files that led here."""
        here = path.resolve()
        if here in above:
            circle = " -> ".join(p.name for p in (*above[above.index(here) :], here))
            raise _wrong(path, f"{BASE_KEY} goes round in a circle: {circle}")
        if here in self._known:
            return self._known[here]
        if len(above) > MAX_DEPTH:
            raise _wrong(path, f"a chain of more than {MAX_DEPTH} files, each the {BASE_KEY} of the next")
        own = _sections(path)
        settings = own.get("Global")
        if isinstance(settings, dict) and "plugins" in settings:  # a base names what lies beside the base
            own["Global"] = {**settings, "plugins": placed(settings["plugins"], path.absolute().parent)}
        bases = own.pop(BASE_KEY, None) or []
        if isinstance(bases, str):
            bases = [bases]
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise _wrong(path, f"{BASE_KEY} must be a path or a list of paths, got {show(bases)}")
        self._merged += len(bases)
        if self._merged > _MAX_BASES:
            raise _wrong(path, f"more than {_MAX_BASES} files given as {BASE_KEY} altogether")
        merged: dict[str, Any] = {}
        for base in bases:
            merged = _merge_into(path, merged, self.read(find_base(path, base), (*above, here)))
        self._known[here] = _merge_into(path, merged, own)
        return self._known[here]


def find_base(path: Path, base: str) -> Path:
    """Return the file that ``_base_: base`` in the file `path` names.

    Raises:
        ConfigError: if there is none.
    """
    base = os.path.expanduser(base)
    beside = path.parent / base
    if os.path.isfile(beside):
        return beside
    # A copy of a packaged recipe names its base from where the original lies: ../_base_/own_images.yaml.
    parts = list(itertools.dropwhile(lambda part: part == "..", Path(base).parts))
    copied = PACKAGED.joinpath(*parts)
    if parts and not Path(base).is_absolute() and os.path.isfile(copied):
        return copied
    try:
        return find_recipe(base)
    except ConfigError as error:
        raise _wrong(path, f"{BASE_KEY}: {error}") from None


def _merge_into(path: Path, below: RecipeTree, above: RecipeTree) -> RecipeTree:
    try:
        return merge(*sized(below, above))
    except ConfigError as error:
        raise _wrong(path, f"{error}") from None


def merge(below: RecipeTree, above: RecipeTree, where: str = "") -> RecipeTree:
    """Return `below` with the changes of `above`: maps merge; everything else, including lists, is replaced.

    If a list in `below` meets a map with only numbers as keys in `above`, these entries are changed and the
    others kept, like ``-o`` with a number.

    Args:
        below: the content of the bases.
        above: the changes.
        where: the path of both in the recipe, for messages.

    Raises:
        ConfigError: if a list has no entry of that number, or comes after the changes to its entries.
    """
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _overlay(merged.get(key), value, f"{where}.{key}".lstrip("."))
    return merged


def _overlay(old: Any, new: Any, where: str) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return merge(old, new, where)
    if isinstance(old, list) and _numbers_entries(new):
        entries = list(old)
        for number, value in new.items():
            if not 0 <= number < len(entries):
                raise ConfigError(f"{where} has {len(entries)} entries, counted from 0: none is {number}")
            entries[number] = _overlay(entries[number], value, f"{where}.{number}")
        return entries
    if new is None and where == _SETTINGS:
        return old  # a heading without settings
    if isinstance(new, list) and _numbers_entries(old):
        # Otherwise the changes would be lost silently.
        raise ConfigError(
            f"{where}: the list comes after changes to its entries; "
            f"name the file with the list first in {BASE_KEY}"
        )
    return new


def _numbers_entries(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(key, int) for key in value)


def _sections(path: Path) -> RecipeTree:
    tree = read_yaml(path)
    if tree is None or tree == {}:
        raise _wrong(path, "the file is empty")
    if not isinstance(tree, dict):
        raise _wrong(path, "expected sections such as 'Global:' at the top level")
    return tree


def texts_of(overrides: object) -> list[str]:
    """Return overrides as a list of texts.

    Raises:
        ConfigError: for something else, such as a text alone, which would be read character by character.
    """
    if isinstance(overrides, Iterable) and not isinstance(overrides, str | Mapping):
        texts = list(overrides)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise ConfigError(f"overrides: expected a list such as ['Global.epochs=10'], got {show(overrides)}")


def override(tree: RecipeTree, text: str) -> None:
    """Apply one ``key.sub.0.sub=value`` to `tree`, in place; the value is parsed as YAML.

    A missing key is created; later checks report unknown keys.

    Raises:
        ConfigError: if the text is not of that form, or its path leads through a value that is not a section.
    """
    steps = override_steps(text)
    value_text = text.partition("=")[2]
    if not steps:
        raise ConfigError("expected key=value, for example Global.epochs=10")
    if len(steps) > MAX_DEPTH:
        raise ConfigError(f"{len(steps)} steps, at most {MAX_DEPTH}")
    value = _value(value_text)
    if value is None and steps == [_SETTINGS]:
        return
    node: Any = tree
    for position, step in enumerate(steps[:-1]):
        node = _descend(node, step, steps[:position])
    _check_step(node, steps[-1], steps[:-1])
    node[int(steps[-1]) if isinstance(node, list) else steps[-1]] = value
    if len(steps) > 1 and steps[0] == "Global":
        layer: RecipeTree = {"Global": {steps[1]: tree["Global"][steps[1]]}}
        below, above = sized(tree, layer)
        tree["Global"] = {**below["Global"], **above["Global"]}


def override_steps(text: str) -> list[str]:
    """Return the config path of an override ``key.sub.0.sub=value`` as its steps; none if it has no path."""
    key, equals, _ = text.partition("=")
    steps = key.strip().replace("[", ".").replace("]", "").split(".")
    return steps if equals and all(steps) else []


def override_of(key: str, text: str) -> str:
    """Return an override that sets a text, also one that YAML would read as a date, a list or a comment."""
    return f"{key}={json.dumps(text, ensure_ascii=False)}"


def _value(text: str) -> Any:
    try:
        return parse_yaml(text, "value")
    except NotYaml:
        remedy = "put the value in quotes"
        if text.strip()[:1] in ("{", "["):
            remedy = "close brackets and quotes, and leave a blank after each colon: {name: value}"
        raise ConfigError(f"{show(text)} is not YAML; {remedy}") from None
    except ConfigError as error:
        raise ConfigError(error.text) from None


def _descend(node: Any, step: str, before: Sequence[str]) -> Any:
    _check_step(node, step, before)
    if isinstance(node, list):
        return node[int(step)]
    if node.get(step) is None:
        node[step] = {}
    return node[step]


def _check_step(node: Any, step: str, before: Sequence[str]) -> None:
    where = ".".join(before)
    if isinstance(node, list):
        if not step.isdecimal():
            raise ConfigError(f"{where} is a list: {step!r} must be a number from 0 to {len(node) - 1}")
        if len(step) > 9 or int(step) >= len(node):
            raise ConfigError(
                f"{where} has {len(node)} entries: {shorten(step, 20)} is past the last, {len(node) - 1}"
            )
    elif not isinstance(node, dict):
        raise ConfigError(f"{where} is {show(node)}, not a section")
    elif before and before[-1].isdecimal() and "name" not in node and len(node) == 1 and step not in node:
        # An entry of a list is one name with options, so a second key is always a mistake.
        (only,) = node
        raise ConfigError(f"{where} has no {step!r}.{hint(step, node)} Its options are at {where}.{only}")
