"""Logging in PaddleClas's line format, a progress bar on terminals, and scalars for later reading."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ppcls.errors import ConfigError

LOGGER = logging.getLogger("ppcls")
_FORMAT = logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%Y/%m/%d %H:%M:%S")


class _ConsoleHandler(logging.Handler):
    """Write lines to standard output without tearing a progress bar that is on screen."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def setup_logging(log_file: Path | None = None, *, quiet: bool = False) -> logging.Logger:
    """Send the logger ``ppcls`` to the console and, if given, append to `log_file`.

    Args:
        log_file: its folder is created.
        quiet: no console output (processes that are not named in ``Global.log_ranks``).
    """
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    handlers: list[logging.Handler] = [] if quiet else [_ConsoleHandler()]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    for handler in handlers or [logging.NullHandler()]:
        handler.setFormatter(_FORMAT)
        LOGGER.addHandler(handler)
    return LOGGER


def progress_bar(total: int, title: str) -> tqdm[Any]:
    """Return a bar over `total` batches; it shows itself only when standard error is a terminal."""
    return tqdm(total=total, desc=title, leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty())


def _plain_number(value: Any) -> Any:
    """JSON has no NaN or infinity: write them as text rather than as an invalid file."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _is_kept(line: str, keep: Callable[[dict[str, Any]], bool]) -> bool:
    """Apply `keep` to a row; the last row of a killed run may be half of one."""
    try:
        return line.endswith("\n") and keep(json.loads(line))
    except json.JSONDecodeError:
        return False


class ScalarWriter:
    """Append scalars to ``metrics.jsonl`` and, when asked, to VisualDL.

    Args:
        folder: where ``metrics.jsonl`` and the folder ``vdl`` lie.
        use_visualdl: also write VisualDL records.

        keep: tells which rows of an existing ``metrics.jsonl`` a resumed run keeps; what the interrupted
            run wrote after its last checkpoint is written again.

    Raises:
        ConfigError: if VisualDL is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        use_visualdl: bool = False,
        keep: Callable[[dict[str, Any]], bool] = lambda row: True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text("".join(line for line in lines if _is_kept(line, keep)), encoding="utf-8")
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._visualdl: Any = None
        if use_visualdl:
            try:
                from visualdl import LogWriter
            except ImportError as error:
                raise ConfigError(
                    "Global.use_visualdl: VisualDL is not installed; pip install 'ppcls[visualdl]', "
                    "or -o Global.use_visualdl=false"
                ) from error
            self._visualdl = LogWriter(logdir=str(folder / "vdl"))

    def write(self, kind: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Record `values` of one moment.

        Args:
            kind: ``"train"`` or ``"eval"``.
            step: optimizer steps done since the start of the run.
            epoch: current epoch, from 1.
            values: scalars by name.
        """
        row = {"kind": kind, "epoch": epoch, "step": step}
        self._file.write(json.dumps(row | {k: _plain_number(v) for k, v in values.items()}) + "\n")
        self._file.flush()
        if self._visualdl is not None:
            for name, value in values.items():
                self._visualdl.add_scalar(tag=f"{kind}_{name}", step=step, value=value)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._visualdl is not None:
            self._visualdl.close()
