"""YAML files with overrides, checked completely before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppcls.config.arch import ArchSpec
from ppcls.config.checks.recipe import check_recipe
from ppcls.config.image_size import with_image_shape
from ppcls.config.interpolation import resolve
from ppcls.config.lazily import require_dynamic_mode
from ppcls.config.loading import find_recipe, override, read, texts_of
from ppcls.config.mistakes import Findings
from ppcls.config.nodes import RecipeTree, plain, single
from ppcls.config.places import Places
from ppcls.config.plugins import with_plugins
from ppcls.config.schema import REQUIRED, Recipe
from ppcls.config.section import ComponentSpec
from ppcls.config.yaml_text import MAX_NODES_OF_DATA, dump_yaml, parse_yaml, read_yaml
from ppcls.errors import ConfigError, Place, hint, show

__all__ = [
    "MAX_NODES_OF_DATA",
    "ArchSpec",
    "ComponentSpec",
    "Recipe",
    "RecipeTree",
    "complete_config",
    "dump_yaml",
    "load_config",
    "load_plugins",
    "parse_yaml",
    "plain",
    "read_yaml",
    "single",
]


def load_config(path: str | Path, overrides: Sequence[str] = (), mode: str = "train") -> Recipe:
    """Read a YAML file, apply overrides, fill in defaults and check everything.

    Args:
        path: a file, or the name of a packaged recipe such as ``ImageNet/ResNet/ResNet18.yaml``.
        overrides: texts of the form ``key.sub.0.sub=value``; the value is read as YAML.
        mode: ``train``, ``eval``, ``infer`` or ``export``; decides which sections are required.

    Returns:
        The recipe: every section with every key, interpolations resolved, components in the form that their
        builders read. What is changed later is checked when the recipe is used, see :func:`complete_config`.

    Raises:
        ConfigError: if the file cannot be read, or with all mistakes at once, each with its config path; also
            if Paddle is in static mode.
    """
    _check_mode(mode)
    require_dynamic_mode()
    overrides = texts_of(overrides)
    file = find_recipe(path)
    tree = read(file)
    findings = Findings()
    for text in overrides:
        try:
            override(tree, text)
        except ConfigError as error:
            findings.add(replace(error.mistakes[0], path="", place=Place(f"-o {text}")))
    find = Places(file, overrides).find
    tree = _resolved(tree, findings, str(path), find)
    recipe = check_recipe(with_plugins(tree, file, findings), mode, findings)
    findings.finish(str(path), find)
    return recipe.mark_checked(mode)


def load_plugins(path: str | Path) -> None:
    """Load the plug-ins in ``Global.plugins`` of a YAML file, so that their components are registered.

    Raises:
        ConfigError: if the file cannot be read, or a plug-in cannot be loaded.
    """
    file = find_recipe(path)
    findings = Findings()
    with_plugins(_resolved(read(file), findings, str(path)), file, findings)


def _resolved(
    tree: RecipeTree, findings: Findings, title: str, find: Callable[[str], Place | None] | None = None
) -> RecipeTree:
    """Return a recipe with its interpolations resolved.

    Raises:
        ConfigError: if `Global`, to which they refer, is no section; see :meth:`Findings.finish`.
    """
    settings = tree.get("Global")
    if not isinstance(settings, dict | str | None):  # a text may be an interpolation
        findings.error("Global", value=settings, expected="a section with keys such as epochs")
        findings.finish(title, find)
    return resolve(with_image_shape(tree))


def _check_mode(mode: str) -> None:
    if mode not in REQUIRED:
        raise ConfigError(
            f"unknown mode {mode!r}, expected one of {', '.join(REQUIRED)}.{hint(mode, REQUIRED)}"
        )


def complete_config(config: Mapping[str, Any], mode: str) -> Recipe:
    """Return a copy of a configuration as a recipe with every section and key.

    Defaults are filled in and everything is checked, unless it is a :class:`Recipe` that was checked for this
    mode, by :func:`load_config` or here, and has not been changed since.

    Raises:
        ConfigError: for an unknown mode, if it is not a mapping, or with all mistakes at once.
    """
    _check_mode(mode)
    require_dynamic_mode()
    tree = plain(config)
    if not isinstance(tree, dict):
        raise ConfigError(f"expected a configuration, got {show(config)}; load_config reads one from a file")
    findings = Findings()
    if isinstance(config, Recipe) and config.is_checked(mode):
        return Recipe.from_dict(with_plugins(tree, "the configuration", findings)).mark_checked(mode)
    tree = _resolved(tree, findings, "the configuration")
    recipe = check_recipe(with_plugins(tree, "the configuration", findings), mode, findings)
    findings.finish("the configuration")
    return recipe.mark_checked(mode)
