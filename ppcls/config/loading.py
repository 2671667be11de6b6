"""Reading YAML: finding the file, ``_base_`` and ``-o`` overrides. Nothing is checked against a schema."""

from __future__ import annotations

import difflib
import io
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ppcls.config.nodes import show
from ppcls.errors import ConfigError, hint

PACKAGED = Path(__file__).resolve().parents[1] / "configs"
BASE_KEY = "_base_"


def find_recipe(path: str | Path) -> Path:
    """Return the file `path` names: the local file if there is one, else the packaged recipe.

    Packaged recipes answer to ``ImageNet/...``, ``configs/ImageNet/...`` and ``ppcls/configs/ImageNet/...``
    from any folder.

    Raises:
        ConfigError: if there is neither; the message names the nearest existing file.
    """
    local = Path(path)
    if local.is_file():
        return local
    if local.is_dir():
        raise ConfigError(f"{path} is a folder, not a YAML file")
    if not local.is_absolute():
        parts = [part for part in local.parts if part != "."]
        for prefix in (["ppcls", "configs"], ["configs"]):
            if parts[: len(prefix)] == prefix:
                parts = parts[len(prefix) :]
                break
        packaged = PACKAGED.joinpath(*parts)
        if packaged.is_file():
            return packaged
    raise ConfigError(f"{path}: no such file, here or among the packaged recipes.{_nearest(local)}")


def _nearest(missing: Path) -> str:
    candidates = {str(p.relative_to(PACKAGED)): p.name for p in PACKAGED.glob("**/*.yaml")}
    if missing.parent.is_dir():
        candidates |= {str(p): p.name for p in missing.parent.glob("*.y*ml")}
    close = difflib.get_close_matches(missing.name, sorted(set(candidates.values())), n=3, cutoff=0.5)
    found = [full for name in close for full in sorted(candidates) if candidates[full] == name]
    return f" Did you mean: {', '.join(found[:3])}?" if found else ""


def read(path: Path) -> dict[str, Any]:
    """Return the YAML file `path` as a plain dict, its bases merged in, interpolations left as they are.

    Raises:
        ConfigError: for a file that is not UTF-8 or not YAML (with file and line), a key given twice, a
            missing base or a circle of bases.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    here = path.resolve()
    if here in above:
        circle = " -> ".join(p.name for p in (*above[above.index(here) :], here))
        raise ConfigError(f"{path}: {BASE_KEY} goes round in a circle: {circle}")
    own = _parse(path)
    bases = own.pop(BASE_KEY, None) or []
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} must be a path or a list of paths, got {show(bases)}")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = merge(merged, _read(_find_base(path, base), (*above, here)))
    return merge(merged, own)


def _find_base(path: Path, base: str) -> Path:
    beside = path.parent / base
    if beside.is_file():
        return beside
    # A copy of a packaged recipe names its base from where the original lies: ../_base_/own_images.yaml.
    parts = list(itertools.dropwhile(lambda part: part == "..", Path(base).parts))
    copied = PACKAGED.joinpath(*parts)
    if parts and not Path(base).is_absolute() and copied.is_file():
        return copied
    try:
        return find_recipe(base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {BASE_KEY}: {error}") from None


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` overlaid with `above`: maps merge, everything else, lists too, is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise ConfigError(f"{path}:{line}: not UTF-8 ({byte}); save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        config = OmegaConf.load(io.StringIO(text))
    except yaml.MarkedYAMLError as error:
        wrong = _line(error, text)
        place = str(path) if wrong is None else f"{path}:{wrong}"
        raise ConfigError(f"{place}: {_problem(error)}") from None
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    tree = OmegaConf.to_container(config, resolve=False)
    # OmegaConf reads a file that is one bare word as a key without a value.
    if not isinstance(tree, dict) or (len(tree) == 1 and ":" not in text):
        raise ConfigError(f"{path}: expected sections such as 'Global:' at the top level")
    if not tree:
        raise ConfigError(f"{path}: the file is empty")
    return dict(tree)


# What begins on one line and is missed on a later one: the line where it begins is the one to correct.
_OPENED = ("a flow sequence", "a flow mapping", "a quoted scalar", "a simple key")


def _line(error: yaml.MarkedYAMLError, text: str) -> int | None:
    """Return the line to correct, counted from 1; the parser itself names the one where it gave up."""
    if error.context_mark and str(error.context).endswith(_OPENED):
        return int(error.context_mark.line) + 1
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return None
    filled = [n for n, content in enumerate(text.splitlines(), 1) if content.partition("#")[0].strip()]
    above = max((n for n in filled if n <= mark.line), default=None)
    at_end = mark.line >= max(filled, default=0)
    # A line without its colon is read as text that continues in the next line.
    unfinished = str(error.problem).startswith(_AFTER_A_LINE_WITHOUT_COLON)
    if above is not None and (at_end or (unfinished and ":" not in text.splitlines()[above - 1])):
        return above
    return int(mark.line) + 1


_AFTER_A_LINE_WITHOUT_COLON = ("mapping values are not allowed", "did not find expected key")
_REMEDIES = {
    "mapping values are not allowed": ". Expected 'key: value' here: a colon is missing, there is one colon "
    "too many, or the indentation is wrong",
    "found character that cannot start any token": ". Indent with spaces, not tabs; put text that "
    "begins with @, ` or % in quotes",
    "found a tab character": ". Indent with spaces, not tabs",
    "did not find expected key": ". A colon is missing, or the indentation differs from the lines above",
    "could not find expected ':'": ". Expected 'key: value'",
}


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "not YAML"
    if problem.startswith("found duplicate key"):
        return f"the key {problem.removeprefix('found duplicate key').strip()!r} is given twice"
    remedy = next((advice for start, advice in _REMEDIES.items() if problem.startswith(start)), "")
    context = f" ({error.context})" if error.context and error.problem else ""
    return f"not YAML: {problem}{context}{remedy}"


def override(tree: dict[str, Any], text: str) -> None:
    """Apply one ``key.sub.0.sub=value`` to `tree`, in place; the value is parsed as YAML.

    A key that is not there is created: the checks that follow know whether it may be.

    Raises:
        ConfigError: if the text is not of that form, or leads through something that is no section.
    """
    key, equals, value_text = text.partition("=")
    steps = key.strip().replace("[", ".").replace("]", "").split(".")
    if not equals or not all(steps):
        raise ConfigError("expected key=value, for example Global.epochs=10")
    try:
        loaded = OmegaConf.from_dotlist([f"value={value_text}"])
        value = OmegaConf.to_container(loaded, resolve=False)["value"]  # type: ignore[call-overload, index]
    except (yaml.YAMLError, OmegaConfBaseException):
        raise ConfigError(f"{value_text!r} is not YAML; put the value in quotes") from None
    node: Any = tree
    for position, step in enumerate(steps[:-1]):
        node = _descend(node, step, steps[:position])
    _check_step(node, steps[-1], steps[:-1])
    node[int(steps[-1]) if isinstance(node, list) else steps[-1]] = value


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
        if int(step) >= len(node):
            raise ConfigError(f"{where} has {len(node)} entries: {step} is past the last, {len(node) - 1}")
    elif not isinstance(node, dict):
        raise ConfigError(f"{where} is {show(node)}, not a section")
    elif before and before[-1].isdecimal() and "name" not in node and len(node) == 1 and step not in node:
        # An entry of a list is one name with options: a second key beside the name is never meant.
        (only,) = node
        raise ConfigError(f"{where} has no {step!r}.{hint(step, node)} Its options are at {where}.{only}")


def resolve(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `tree` with interpolations such as ``${Arch.class_num}`` replaced by their values.

    Text that begins with ``~`` is a path below a home folder, and comes back as that path.

    Raises:
        ConfigError: if one cannot be resolved, or a value is left as ``???``.
    """
    text = str(tree)
    if "${" not in text and "???" not in text:
        return dict(_at_home(tree))
    try:
        config = OmegaConf.create(tree)
        return dict(_at_home(OmegaConf.to_container(config, resolve=True, throw_on_missing=True)))
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{where}{_unresolved(str(error).splitlines()[0])}") from None


def _at_home(node: Any) -> Any:
    """Return a copy of a tree in which paths that begin with ``~`` begin with the home folder."""
    if isinstance(node, dict):
        return {key: _at_home(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_at_home(value) for value in node]
    return os.path.expanduser(node) if isinstance(node, str) and node.startswith("~") else node


def _unresolved(problem: str) -> str:
    missing = re.search(r"Environment variable '(\w+)' not found", problem)
    if missing is None:
        return problem
    name = missing[1]
    return f"the environment variable {name} is not set; set it, or write ${{oc.env:{name},some default}}"
