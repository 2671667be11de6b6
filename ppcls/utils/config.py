"""``get_config`` under the name scripts written for PaddleClas import it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from ppcls.config import load_config


def get_config(fname: str, overrides: Sequence[str] | None = None, show: bool = False) -> DictConfig:
    """Return the checked configuration of the YAML file `fname`; see :func:`ppcls.config.load_config`.

    Args:
        fname: a path, or the name of a packaged recipe.
        overrides: texts of the form ``key.sub=value``, as after ``-o``.
        show: log the configuration.
    """
    config = load_config(fname, overrides or ())
    if show:
        logging.getLogger("ppcls").info("\n%s", OmegaConf.to_yaml(config))
    return config
