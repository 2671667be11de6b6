"""Plug-ins that a recipe names: ``Global.plugins: [./my_loss.py, my_package]``.

A file or a package folder is imported once per process, under its own name if no other module has it, and its
folder is added to the end of the places that modules are imported from; so it may import what lies beside it.
Processes of the loader import those that they need again (:func:`files_of`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ppcls import registry
from ppcls.contracts import package_of
from ppcls.errors import ConfigError, describe_failure
from ppcls.texts import near_path, sentence

_loaded: set[str] = set()  # what was loaded: the path of a file, or the name of a module
_files: dict[str, str] = {}  # the file or package folder of each module that was imported from one


def is_path(entry: str) -> bool:
    """Tell whether an entry of ``Global.plugins`` is a file or folder rather than the name of a module."""
    return entry.endswith(".py") or entry.startswith((".", "~")) or "/" in entry or os.sep in entry


def placed(entries: Any, folder: Path) -> Any:
    """Return the entries of ``Global.plugins`` with absolute paths for what is found in `folder`.

    Args:
        entries: as a recipe gives them; what is no list of texts comes back as it is.
        folder: of the file that names them.
    """
    if not isinstance(entries, list):
        return entries
    return [_placed(entry, folder) if isinstance(entry, str) else entry for entry in entries]


def _placed(entry: str, folder: Path) -> str:
    path = folder / Path(entry).expanduser()
    return os.path.abspath(path) if is_path(entry) and path.exists() else entry


def any_loaded() -> bool:
    """Tell whether a plug-in was loaded in this process."""
    return bool(_loaded)


def load_plugins(entries: Sequence[str]) -> None:
    """Import plug-ins that a command names; paths are relative to the working directory.

    Raises:
        ConfigError: see :func:`load_plugin`.
    """
    for entry in placed(list(entries), Path.cwd()):
        load_plugin(entry, [Path.cwd()])


def load_plugin(entry: str, folders: Sequence[Path]) -> str | None:
    """Import a plug-in, whose components are known by their names afterwards.

    Args:
        entry: an absolute path, or a module, with ``:function`` for one that registers when it is called.
        folders: where a relative path was looked for, for the message.

    Returns:
        what is odd about it; None if nothing is.

    Raises:
        ConfigError: if there is no such file or module, or if it fails in whatever way; the message has the
            line of the plug-in that failed. Nothing of it is registered then.
    """
    registry.load_components()  # so that a name of ours is taken, whatever comes first
    _require(entry, folders)
    key = os.path.realpath(entry) if is_path(entry) else entry
    if key in _loaded:
        return None
    if is_path(entry):
        if _imported_from(key):
            _loaded.add(key)
            return None
        _require_own_neighbours(Path(entry))
    before = {kind: kind.entries for kind in registry.registries()}
    known = set(sys.modules)
    try:
        _import(entry)
    except (Exception, SystemExit) as error:
        _forget(known, before, key)
        raise ConfigError(f"{entry} cannot be loaded: {describe_failure(error, _root(key))}") from error
    _loaded.add(key)
    new = any(kind.entries.keys() != entries.keys() for kind, entries in before.items())
    if not new and entry.partition(":")[0] not in known:
        return f"{entry} registers nothing, so it has no effect; see docs/plugins.md"
    return None


def _require(entry: str, folders: Sequence[Path]) -> None:
    """Refuse what names no file, package folder or module.

    Raises:
        ConfigError: saying what is missing.
    """
    if not is_path(entry):
        module = entry.partition(":")[0].partition(".")[0]
        if module not in sys.modules and registry.source_of(module) is None:
            beside = [
                str(folder / f"{module}.py") for folder in folders if (folder / f"{module}.py").is_file()
            ]
            advice = f"; write ./{module}.py for {beside[0]}" if beside else ""
            raise ConfigError(f"{entry!r}: no module of that name can be imported{advice}")
    elif not os.path.isabs(entry):
        places = " and ".join(dict.fromkeys(str(folder) for folder in folders))
        raise ConfigError(f"{entry}: no such file in {places}{sentence(near_path(folders[0] / entry))}")
    elif not os.path.exists(entry):
        raise ConfigError(f"{entry}: no such file{sentence(near_path(entry))}")
    elif os.path.isdir(entry) and not os.path.isfile(os.path.join(entry, "__init__.py")):
        raise ConfigError(f"{entry} is a folder without __init__.py, so it is no package")
    elif os.path.isfile(entry) and not entry.endswith(".py"):
        raise ConfigError(f"{entry}: expected a Python file, whose name ends in .py")


def _import(entry: str) -> None:
    if is_path(entry):
        _import_file(Path(entry))
        return
    module, colon, function = entry.partition(":")
    found = importlib.import_module(module)
    if colon:
        if function not in vars(found):
            raise AttributeError(f"module {module} has no function {function!r}")
        vars(found)[function]()


def _imported_from(path: str) -> bool:
    """Tell whether a script has imported this file or package already, or is it itself."""
    file = os.path.join(path, "__init__.py") if os.path.isdir(path) else path
    files = [getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())]
    return any(
        isinstance(other, str)
        and os.path.basename(other) == os.path.basename(file)  # quicker than to resolve all
        and os.path.realpath(other) == file
        for other in files
    )


def _import_file(path: Path) -> None:
    name = path.stem.replace(".", "_")
    other = _other_module(name, str(path))
    if name != path.stem or name in sys.modules or (other and _is_installed(name, other)):
        name = f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    import_file(name, str(path))


def import_file(name: str, place: str) -> None:
    """Import a file or package folder under a name, unless there is a module of this name."""
    if name in sys.modules:
        return
    path = Path(place)
    file = path / "__init__.py" if path.is_dir() else path
    inside = [place] if path.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    _files[name] = place


def files_of(modules: Iterable[str]) -> dict[str, str]:
    """Return those of these modules that are plug-ins from files, for :func:`import_file` elsewhere."""
    return {name: _files[name] for name in modules if name in _files}


def _require_own_neighbours(path: Path) -> None:
    """Refuse a plug-in that imports what lies beside it, if the name already means another plug-in's file.

    What is installed comes first, as in every import, because the folder is at the end of the places.

    Raises:
        ConfigError: naming both files.
    """
    meant = {name: (own, _other_module(name, own)) for name, own in _neighbours(path.parent).items()}
    meant = {name: pair for name, pair in meant.items() if not _is_installed(name, pair[1] or pair[0])}
    if not any(other for _, other in meant.values()):
        return
    imported = sorted(_imports(path) & meant.keys())
    for name in imported:  # it grows by what they import in turn
        own, other = meant[name]
        if other:
            raise ConfigError(
                f"{path} imports {name!r}, which lies beside it, {own}, "
                f"but in this process the name means {other}; rename one of them"
            )
        imported += sorted((_imports(Path(own)) & meant.keys()).difference(imported))


def _imports(place: Path) -> set[str]:
    """Return the names of the top-level modules that a file, or those of a package folder, import."""
    names: set[str] = set()
    for file in place.rglob("*.py") if place.is_dir() else [place]:
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (OSError, SyntaxError, ValueError):
            continue  # if it is imported, Python says what is wrong
        for node in nodes:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name.partition(".")[0] for name in names}


def _neighbours(folder: Path) -> dict[str, str]:
    """Return the modules and packages in a folder by name."""
    places = [*folder.glob("*.py"), *(file.parent for file in folder.glob("*/__init__.py"))]
    names = {place.name.removesuffix(".py"): str(place) for place in places}
    return {name: place for name, place in names.items() if name.isidentifier()}


def _other_module(name: str, place: str) -> str | None:
    """Return the file that `import name` reads, if that is another than `place`."""
    found = registry.source_of(name)
    return None if found is None or os.path.realpath(found) == os.path.realpath(place) else found


def _is_installed(name: str, file: str) -> bool:
    if name == "ppcls" or name in sys.stdlib_module_names:
        return True
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _root(key: str) -> str | None:
    """Return the file or folder that a plug-in consists of; None if it is not known."""
    return key if is_path(key) else registry.source_of(key.partition(":")[0].partition(".")[0])


def _forget(known: set[str], before: Mapping[registry.Registry, Mapping[str, Any]], key: str) -> None:
    """Undo what a plug-in that failed has registered and imported.

    A module that stayed would not run again, so what it had registered would be missing for ever. Of what is
    installed, only packages that registered something go: not all can be imported twice.

    Args:
        known: the names of the modules before.
        before: what was registered before.
        key: the path or the name of the plug-in.
    """
    undone = set()
    for kind, entries in before.items():
        undone |= {package_of(kind.entries[name]) for name in kind.entries.keys() - entries.keys()} - known
        kind.restore(entries)
    for name in set(sys.modules) - known:
        package = name.partition(".")[0]
        file = _file_of(sys.modules[name])
        if package in undone or (file and (_lies_in(file, key) or not _is_installed(package, file))):
            del sys.modules[name]
            _files.pop(name, None)


def _file_of(module: ModuleType) -> str | None:
    """Return the file of a module, or a folder of a package without ``__init__.py``; None if it has none."""
    spec = getattr(module, "__spec__", None)  # not everything there is a module
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    return next(filter(None, places), None)


def _lies_in(file: str, key: str) -> bool:
    root = _root(key)
    return root is not None and os.path.realpath(file).startswith(root)
