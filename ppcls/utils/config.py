"""Functions about recipes with the names that scripts written for PaddleClas use."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ppcls.config import load_config, plain
from ppcls.config.interpolation import resolve
from ppcls.config.loading import find_recipe, override, read

__all__ = ["AttrDict", "get_config", "override_config", "parse_args", "parse_config", "print_config"]

AttrDict = DictConfig


def get_config(fname: str, overrides: Iterable[str] | None = None, show: bool = False) -> DictConfig:
    """Return the checked configuration of a recipe; see :func:`ppcls.config.load_config`.

    Keys and attributes may be read and written. Changes are checked by the ``Engine`` that gets it.

    Args:
        fname: a path, or the name of a packaged recipe.
        overrides: texts of the form ``key.sub=value``, as after ``-o``.
        show: log the configuration.

    Raises:
        ConfigError: with all mistakes of the recipe.
    """
    config: DictConfig = OmegaConf.create(load_config(fname, list(overrides or ())).to_dict())
    if show:
        print_config(config)
    return config


def parse_config(cfg_file: str) -> DictConfig:
    """Return a recipe with bases merged and interpolations resolved; nothing else is checked.

    Raises:
        ConfigError: if the file cannot be read.
    """
    return OmegaConf.create(resolve(read(find_recipe(cfg_file))))


def override_config(config: Any, options: Iterable[str] | None = None) -> Any:
    """Apply texts such as ``key.sub.0.sub=value`` to a configuration, in place; the value is read as YAML.

    Returns:
        `config`.

    Raises:
        ConfigError: if a text is not of that form.
    """
    tree: Any = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    for text in options or ():
        override(tree, text)
    if isinstance(config, DictConfig):
        for section, value in tree.items():  # not merged: a new section replaces all old keys
            config[section] = value
    return config


def print_config(config: Mapping[str, Any]) -> None:
    """Log a configuration as YAML."""
    tree = config if isinstance(config, DictConfig) else OmegaConf.create(plain(config))
    logging.getLogger("ppcls").info("\n%s", OmegaConf.to_yaml(tree))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line of a script: ``-c FILE`` and any number of ``-o key=value``.

    Returns:
        ``config`` and ``override``, which is a list.
    """
    parser = argparse.ArgumentParser(description="run with a recipe")
    parser.add_argument("-c", "--config", default="configs/config.yaml", help="recipe (YAML)")
    parser.add_argument("-o", "--override", action="append", default=[], help="change one setting")
    parser.add_argument("-p", "--profiler_options", default=None, help="accepted for old scripts")
    return parser.parse_args(argv)
