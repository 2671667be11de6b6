"""The logger ``ppcls`` with the names that scripts written for PaddleClas use."""

from __future__ import annotations

import logging
from pathlib import Path

from ppcls.logger import LOGGER, open_log, setup_logging

__all__ = ["debug", "error", "info", "init_logger", "warning"]

debug = LOGGER.debug
info = LOGGER.info
warning = LOGGER.warning
error = LOGGER.error


def init_logger(
    name: str = "ppcls",
    log_file: str | None = None,
    log_level: int = logging.INFO,
    log_ranks: str | int | list[int] = "0",
) -> None:
    """Send log lines to the console and, if given, to `log_file`.

    Args:
        name: accepted for old scripts; the logger is always ``ppcls``.
        log_file: lines are appended.
        log_level: the lowest level to show.
        log_ranks: accepted for old scripts; ``Global.log_ranks`` chooses the processes that log.
    """
    setup_logging(hold=log_file is not None)
    if log_file is not None:
        open_log(Path(log_file))
    LOGGER.setLevel(log_level)
