"""Logging in PaddleClas's line format, a progress bar on terminals, and scalars for later reading."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppcls.errors import ConfigError, TrainingError, mask_credentials

LOGGER = logging.getLogger("ppcls")


class _Formatter(logging.Formatter):
    """Keep passwords and tokens in addresses out of console and log file."""

    def format(self, record: logging.LogRecord) -> str:
        return mask_credentials(super().format(record))


_FORMAT = _Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%Y/%m/%d %H:%M:%S")
METRICS = "metrics.jsonl"
_BAR = "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
_COUNT = "{desc} {n_fmt} {elapsed} {rate_fmt}"  # of an unknown number
_SHORT = "short"  # attribute of a record
SCALAR_FOLDERS = {"use_visualdl": "vdl", "use_tensorboard": "tensorboard"}  # within the folder of a run
_REMEDY = "Earlier checkpoints are intact. Free some space, then continue with --resume auto"


class _ConsoleHandler(logging.Handler):
    """Write lines to the console without damaging a progress bar on the screen.

    A line that cannot be written is dropped: a run does not depend on it. On a terminal, a line with values
    is shortened to its width, see :func:`log_values`; files and pipes get it as it is.

    Args:
        to_stderr: write to standard error instead of standard output.
    """

    def __init__(self, to_stderr: bool = False) -> None:
        super().__init__()
        self.to_stderr = to_stderr

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if self.to_stderr else sys.stdout  # of this moment: scripts replace them
        line = self.format(record)
        short = vars(record).get(_SHORT)
        if isinstance(short, ShortLine) and stream is not None and (stream.isatty() or in_notebook()):
            if short.in_bar and in_notebook():
                return  # cells keep every line
            time = _FORMAT.formatTime(record, "%H:%M:%S")
            line = f"[{time}] {short.fitting(shutil.get_terminal_size((80, 24)).columns - len(time) - 3)}"
        try:
            tqdm.write(line, file=stream)
            stream.flush()
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
        except (OSError, ValueError, AttributeError):  # full, without a reader, closed, or missing (None)
            pass


@dataclass(frozen=True)
class ShortLine:
    """A line for a terminal: a beginning, and as many values as there is room for.

    Attributes:
        head: the beginning.
        values: texts, the most important ones first.
        in_bar: the progress bar shows the same, so a notebook leaves the line out.
    """

    head: str
    values: Sequence[str]
    in_bar: bool = False

    def fitting(self, width: int) -> str:
        """Return the line in at most `width` letters; its beginning is always whole."""
        line = self.head
        for value in self.values:
            if len(line) + 2 + len(value) <= width:
                line += f"  {value}"
        return line


def log_values(message: str, *arguments: object, short: ShortLine) -> None:
    """Log a line of PaddleClas's format, and on a terminal a short one instead.

    Args:
        message: the line, with the places of the arguments.
        arguments: as for `logging.Logger.info`.
        short: what a terminal shows.
    """
    LOGGER.info(message, *arguments, extra={_SHORT: short})


class _FileHandler(logging.FileHandler):
    """Report once, in one line, that the log cannot be written (a full disk): a run does not depend on it."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if not self._told:
            self._told = True
            print(f"ppcls: cannot write {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it tries once more to write the rest
            super().close()


class _HeldLines(MemoryHandler):
    """Keep the lines of a start until the log file may be written."""

    def __init__(self) -> None:
        super().__init__(capacity=0, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the name is logging's
        return False


def setup_logging(
    *, quiet: bool = False, hold: bool = False, to_stderr: bool | None = False
) -> logging.Logger:
    """Send the logger ``ppcls`` to the console.

    Args:
        quiet: no console output (processes that are not named in ``Global.log_ranks``).
        hold: also keep the lines for a file, see :func:`open_log`; lines that are already kept stay.
        to_stderr: write to standard error, because standard output is for results; None for where the
            earlier call sent the lines.
    """
    if to_stderr is None:
        to_stderr = any(h.to_stderr for h in LOGGER.handlers if isinstance(h, _ConsoleHandler))
    held = [handler for handler in LOGGER.handlers if hold and isinstance(handler, _HeldLines)]
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        if handler not in held:
            handler.close()
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    handlers: list[logging.Handler] = [] if quiet else [_ConsoleHandler(to_stderr)]
    if hold:
        handlers += held or [_HeldLines()]
    for handler in handlers or [logging.NullHandler()]:
        handler.setFormatter(_FORMAT)
        LOGGER.addHandler(handler)
    return LOGGER


def open_log(log_file: Path) -> None:
    """Append the kept lines and all further ones to `log_file`; without kept lines do nothing.

    Args:
        log_file: its folder is created. If it cannot be written, a warning says so.
    """
    held = next((handler for handler in LOGGER.handlers if isinstance(handler, _HeldLines)), None)
    if held is None:
        return
    LOGGER.removeHandler(held)
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        target = _FileHandler(log_file, encoding="utf-8")
    except OSError as error:  # evaluating a run in a read-only folder is fine
        LOGGER.warning("%s: %s; the log goes only to the console", log_file, error.strerror)
    else:
        target.setFormatter(_FORMAT)
        held.setTarget(target)
        held.flush()
        LOGGER.addHandler(target)
    held.close()


@contextlib.contextmanager
def dropping_held_lines() -> Iterator[None]:
    """Drop the lines that are still kept at the end of the block: those of a failed start."""
    try:
        yield
    finally:
        for handler in [handler for handler in LOGGER.handlers if isinstance(handler, _HeldLines)]:
            LOGGER.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def only_warnings() -> Iterator[None]:
    """Log only warnings and errors while the block runs."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def in_notebook() -> bool:
    """Tell whether this process computes the cells of a notebook."""
    return "ipykernel.zmqshell" in sys.modules


def progress_bar(total: int | None, title: str) -> tqdm[Any]:
    """Return a bar over `total` batches; None if their number is unknown.

    It is visible only if standard error is a terminal or a notebook, and only in processes that log to the
    console.
    """
    quiet = not any(isinstance(handler, _ConsoleHandler) for handler in LOGGER.handlers)
    disable = quiet or not (sys.stderr.isatty() or in_notebook())
    form = _COUNT if total is None else _BAR
    return tqdm(total=total, desc=title, leave=False, dynamic_ncols=True, disable=disable, bar_format=form)


_NOT_FINITE: dict[Any, float] = {str(value): value for value in (math.nan, math.inf, -math.inf)}


def _plain_number(value: Any) -> Any:
    """Return NaN and infinity as text, because JSON does not have them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Any) -> Any:
    """Return a value of ``metrics.jsonl`` as it was before :func:`_plain_number`."""
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _kept_rows(content: bytes, keep: Callable[[dict[str, Any]], bool]) -> tuple[list[bytes], int]:
    """Return the rows of a ``metrics.jsonl`` that `keep` accepts, and the number of damaged lines.

    The last line of a killed run may be incomplete; it does not count as damaged.
    """
    kept = []
    damaged = 0
    for line in content.splitlines(keepends=True):
        row = _parsed(line)
        if row is not None and line.endswith(b"\n"):
            if keep(row):
                kept.append(line)
        elif line.endswith(b"\n"):
            damaged += 1
    return kept, damaged


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a row of ``metrics.jsonl``; None if it is not one."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of thousands of digits, deep nesting
        return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    return row if all(type(row.get(name)) is int for name in ("epoch", "step")) else None


def require_scalar_packages(*, use_visualdl: bool = False, use_tensorboard: bool = False) -> None:
    """Check that the required packages can be imported, before any work is done.

    Raises:
        ConfigError: naming the extra and the setting.
    """
    asked = (
        (use_visualdl, "visualdl", "VisualDL", "visualdl"),
        (use_tensorboard, "tensorboardX", "tensorboardX", "tensorboard"),
    )
    for wanted, module, title, extra in asked:
        if not wanted:
            continue
        try:
            importlib.import_module(module)
        except (ImportError, TypeError) as error:  # TypeError: an old package with a new protobuf
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            problem = "is not installed" if absent else f"cannot be imported ({error})"
            raise ConfigError(
                f"Global.use_{extra}: {title} {problem}; pip install 'ppcls[{extra}]', "
                f"or -o Global.use_{extra}=false"
            ) from None


def cut_back(path: Path, keep: Callable[[dict[str, Any]], bool]) -> bytes | None:
    """Return the content of a ``metrics.jsonl`` without damaged rows and those that `keep` rejects.

    Returns:
        None if the file does not exist, or nothing is removed.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    kept, damaged = _kept_rows(content, keep)
    if damaged:
        LOGGER.warning("%s: %d damaged lines were left out", path, damaged)
    cut = b"".join(kept)
    return None if cut == content else cut


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a ``metrics.jsonl``, and the number of damaged lines; none if there is no file.

    NaN and infinity, which JSON does not have, are numbers again.
    """
    if not path.exists():
        return [], 0
    kept, damaged = _kept_rows(path.read_bytes(), lambda row: True)
    rows = (_parsed(line) or {} for line in kept)
    return [{name: _number(value) for name, value in row.items()} for row in rows], damaged


class ScalarWriter:
    """Append scalars to ``metrics.jsonl`` and, if wanted, to VisualDL and TensorBoard.

    Args:
        folder: folder of ``metrics.jsonl`` and of the folders ``vdl`` and ``tensorboard``.
        use_visualdl: also write VisualDL records.
        use_tensorboard: also write TensorBoard events.
        start: number of steps done before; TensorBoard drops later entries of the interrupted run. (Those of
            ``metrics.jsonl`` were removed when the run opened its folder, see :func:`cut_back`.)

    Raises:
        ConfigError: if VisualDL or TensorBoard is wanted but not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        use_visualdl: bool = False,
        use_tensorboard: bool = False,
        start: int = 0,
    ) -> None:
        require_scalar_packages(use_visualdl=use_visualdl, use_tensorboard=use_tensorboard)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS
        # unbuffered, so that a killed run loses no line
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._visualdl: Any = None
        if use_visualdl:
            from visualdl import LogWriter

            self._visualdl = LogWriter(logdir=str(folder / SCALAR_FOLDERS["use_visualdl"]))
        self._tensorboard: Any = None
        if use_tensorboard:
            from tensorboardX import SummaryWriter

            logdir = str(folder / SCALAR_FOLDERS["use_tensorboard"])
            purge = start + 1 if start else None
            self._tensorboard = SummaryWriter(logdir, purge_step=purge, flush_secs=5)

    def write(self, kind: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Record `values` at one step.

        Args:
            kind: ``"train"``, ``"epoch"``, ``"eval"`` or ``"teacher"``.
            step: optimizer steps done since the start of the run.
            epoch: current epoch, from 1.
            values: scalars by name.
        """
        row = {"kind": kind, "epoch": epoch, "step": step}
        line = (json.dumps(row | {k: _plain_number(v) for k, v in values.items()}) + "\n").encode()
        try:
            complete = self._file.write(line) == len(line)
        except OSError as error:
            raise TrainingError(f"cannot write {self._path}: {error.strerror}. {_REMEDY}") from None
        if not complete:
            raise TrainingError(f"cannot write {self._path}: no space left on device. {_REMEDY}")
        if self._visualdl is not None:
            for name, value in values.items():
                self._visualdl.add_scalar(tag=f"{kind}/{name}", step=step, value=value)
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._visualdl is not None:
            self._visualdl.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
