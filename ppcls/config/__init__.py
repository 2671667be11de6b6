"""YAML files with overrides, checked completely before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ppcls.config.loading import find_recipe, override, read, resolve
from ppcls.config.nodes import plain, single

__all__ = ["load_config", "plain", "single"]


def load_config(path: str | Path, overrides: Sequence[str] = (), mode: str = "train") -> DictConfig:
    """Read a YAML file, apply overrides, fill in defaults and check everything."""
    tree = read(find_recipe(path))
    for text in overrides:
        override(tree, text)
    config = OmegaConf.create(resolve(tree))
    OmegaConf.set_readonly(config, True)
    return config
