"""The position of a run, in ``tag.pdstates``: JSON with its own checksum.

The last entry, ``crc32``, is the checksum of all bytes before it. A damaged, cut-off or manually changed file
is refused with a message, without a traceback. Files of format 1, which had no checksum, can be read too;
their structure is checked in the same way.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ppcls.errors import WeightsError, hint

FORMAT = 2
WITHOUT_CHECKSUM = 1  # the format before
EMA = "_ema"  # the end of the names of metrics of averaged weights
LARGEST = 64 * 2**20  # bytes; a thousand processes with a hundred meters each take less
_END = re.compile(rb',\n "crc32": "([0-9a-f]{8})"\n\}\Z')


class Declared:
    """Base of classes whose objects hooks may change: a misspelt attribute is an error, not a new one.

    Classes that derive from it have to use ``dataclass(slots=True)``.
    """

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a declared attribute.

        Raises:
            AttributeError: naming the most similar attributes.
        """
        try:
            object.__setattr__(self, name, value)
        except AttributeError:
            declared = [field for field in type(self).__slots__ if not field.startswith("_")]
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}.{hint(name, declared)}"
            ) from None


@dataclass(slots=True)
class StudentBest:
    """The best evaluation of a student other than the network to deploy; scores as in :class:`Progress`."""

    score: float | None = None
    epoch: int | None = None
    ema_score: float | None = None


@dataclass(slots=True)
class Progress(Declared):
    """The position of a run: everything that a resumed run needs besides tensors.

    Attributes:
        epoch: current epoch, from 1.
        batch: number of its batches that are done. A checkpoint counts the batches that `batches` describes;
            while a run with another number of processes trains, those of its own processes.
        step: number of optimizer steps since the start.
        seen_batches: number of batches since the start; 0 in runs that an earlier version began.
        seen_images: number of images in them, in all processes; 0 likewise.
        best: metrics of the best evaluation so far, empty before the first one.
        best_score: the number by which evaluations are compared; larger is better.
        best_epoch: epoch of `best`.
        best_ema_score: like `best_score`, of the averaged weights.
        best_ema: metrics of the evaluation in which these were best; empty in old checkpoints.
        best_ema_epoch: epoch of `best_ema`.
        best_by: what `best_score` measures, such as ``top1 of Student``; empty in old checkpoints.
        students: the best evaluation of each other student, by name.
        judged_epoch: last epoch whose evaluation early stopping has judged.
        judged_score: score of the last improvement.
        waited: number of evaluations since then.
        lists: fingerprints of the lists of images by the config paths of their datasets; empty in old
            checkpoints.
        threads: CPU threads that the run computes with; 0 in old checkpoints.
        teacher_threads: further CPU threads, with which frozen networks run beside the training; 0 if they do
            not.
        batches: what forms the batches: ``processes``, ``update_freq``, and the batch size of each part of
            the data, such as ``Train``. A run keeps the batches that it was started with when its number of
            processes changes. Empty in old checkpoints.
        seed: seed of the run; every random choice derives from it and the position.
        schedule: state of the learning-rate schedule.
        meters: sums and counts behind the averages of the current epoch, for each process.
        engines: engine of each frozen network in the recipe, and the engine that it used, by network; ``""``
            means the networks that train, in evaluations. Empty in old checkpoints.
        hooks: states of hooks by their names, see :meth:`ppcls.engine.hooks.base.Hook.state`.
        finished: the run has completed all its epochs.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    seen_batches: int = 0
    seen_images: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_score: float | None = None
    best_epoch: int | None = None
    best_ema_score: float | None = None
    best_ema: dict[str, float] = field(default_factory=dict)
    best_ema_epoch: int | None = None
    best_by: str = ""
    students: dict[str, StudentBest] = field(default_factory=dict)
    judged_epoch: int | None = None
    judged_score: float | None = None
    waited: int = 0
    lists: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: int = 0
    teacher_threads: int = 0
    batches: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    schedule: dict[str, Any] = field(default_factory=dict)
    meters: list[dict[str, list[float]]] = field(default_factory=list)
    engines: dict[str, dict[str, str]] = field(default_factory=dict)
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False

    @property
    def averages_are_better(self) -> bool:
        """Whether the averaged weights were better than the weights themselves, each at its best."""
        if self.best_ema_score is None:
            return False
        return self.best_score is None or self.best_ema_score > self.best_score

    @property
    def chosen(self) -> dict[str, float]:
        """Metrics of the better of the weights and their averages at their best, under the plain names."""
        if not (self.averages_are_better and self.best_ema):
            return self.best
        _, averaged = split_averages(self.best_ema)
        return {**self.best_ema, **averaged}

    @property
    def chosen_epoch(self) -> int | None:
        """The epoch of `chosen`."""
        return self.best_ema_epoch if self.averages_are_better and self.best_ema else self.best_epoch


def split_averages(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics of the weights, and those of averaged weights under the same names."""
    own = {name: value for name, value in metrics.items() if not name.endswith(EMA)}
    averaged = {name[: -len(EMA)]: value for name, value in metrics.items() if name.endswith(EMA)}
    return own, averaged


def encode_states(progress: Progress, files: Mapping[str, Mapping[str, int]]) -> bytes:
    """Return the content of a ``.pdstates`` file.

    Args:
        progress: the position of the run.
        files: size and CRC-32 of the other files of the checkpoint, by suffix.
    """
    text = json.dumps({"format": FORMAT, "files": files, **asdict(progress)}, indent=1)
    body = text.removesuffix("\n}").encode()
    return body + f',\n "crc32": "{zlib.crc32(body):08x}"\n}}'.encode()


def read_states(path: Path) -> tuple[Progress, dict[str, dict[str, int]]]:
    """Read a ``.pdstates`` file.

    Returns:
        the position of the run; size and CRC-32 of the other files of the checkpoint, by suffix.

    Raises:
        WeightsError: if the file cannot be read, is damaged, or was not written by ppcls.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    if size > LARGEST:
        raise WeightsError(f"{path} has {size} bytes; the states of a run never have more than {LARGEST}")
    try:
        states = json.loads(content.decode())
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of thousands of digits, deep nesting
        raise WeightsError(
            f"{path} is not a checkpoint state of ppcls, or it is damaged (JSON expected). To start from the "
            "weights beside it use -o Global.pretrained_model=..."
        ) from None
    _check_whole(path, content, states)
    _check_structure(path, states)
    progress = Progress(**{name: states[name] for name in _FIELDS if name in states})
    progress.students = {name: StudentBest(**best) for name, best in states.get("students", {}).items()}
    return progress, states["files"]


def _check_whole(path: Path, content: bytes, states: Any) -> None:
    """Check the format and, if there is one, the checksum."""
    end = _END.search(content)
    if end is not None and zlib.crc32(content[: end.start()]) != int(end[1], 16):
        raise WeightsError(f"{path} is damaged: its content is not that of its checksum")
    found = states.get("format") if isinstance(states, dict) else None
    if type(found) is not int or found not in (FORMAT, WITHOUT_CHECKSUM):
        raise WeightsError(f"{path}: checkpoint format {_short(found)}, this version reads {FORMAT}")
    if found == FORMAT and end is None:
        raise WeightsError(f"{path} is damaged: it does not end in its checksum")


def _check_structure(path: Path, states: Mapping[str, Any]) -> None:
    for name in ("files", "epoch", "batch", "step", "seed"):
        if name not in states:
            raise WeightsError(f"{path} is damaged: it has no {name!r}")
    for name, (fits, expected) in {"files": (_is_files, "sizes and checksums"), **_FIELDS}.items():
        if name in states and not fits(states[name]):
            raise WeightsError(f"{path} is damaged: {name} is {_short(states[name])}, expected {expected}")


def _short(value: Any) -> str:
    """Return a value of any size and depth as a short text for a message."""
    if isinstance(value, dict | list):
        return "a map" if isinstance(value, dict) else "a list"
    return repr(value)[:60]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_position(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_map(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(fits, value.values()))


def _is_files(value: Any) -> bool:
    needed = isinstance(value, dict) and {".pdparams", ".pdopt"} <= value.keys()
    return needed and value.keys() <= {".pdparams", ".pdopt", ".pdema"} and _is_map(value, _is_fingerprint)


def _is_fingerprint(value: Any) -> bool:
    return _is_map(value, _is_count) and value.keys() == {"size", "crc32"}


def _is_meters(value: Any) -> bool:
    def is_pair(pair: Any) -> bool:
        return isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))

    return isinstance(value, list) and all(_is_map(process, is_pair) for process in value)


def _is_batches(value: Any) -> bool:
    return _is_map(value, _is_position) and (not value or {"processes", "update_freq"} <= value.keys())


def _is_best(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"score", "epoch", "ema_score"}
        and all(value[name] is None or _is_number(value[name]) for name in ("score", "ema_score"))
        and (value["epoch"] is None or _is_position(value["epoch"]))
    )


def _is_list_fingerprint(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"name", "count", "digest"}
        and _is_count(value["count"])
        and all(isinstance(value[name], str) for name in ("name", "digest"))
    )


def _is_choice(value: Any) -> bool:
    return _is_map(value, lambda text: isinstance(text, str)) and value.keys() == {"asked", "used"}


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


# The check of each field of Progress, and its description for messages.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epoch": (_is_position, "a whole number from 1"),
    "batch": (_is_count, "a whole number from 0"),
    "step": (_is_count, "a whole number from 0"),
    "seen_batches": (_is_count, "a whole number from 0"),
    "seen_images": (_is_count, "a whole number from 0"),
    "best": (lambda value: _is_map(value, _is_number), "numbers by name"),
    "best_score": (_or_null(_is_number), "a number or null"),
    "best_epoch": (_or_null(_is_position), "a whole number from 1 or null"),
    "best_ema_score": (_or_null(_is_number), "a number or null"),
    "best_ema": (lambda value: _is_map(value, _is_number), "numbers by name"),
    "best_ema_epoch": (_or_null(_is_position), "a whole number from 1 or null"),
    "best_by": (lambda value: isinstance(value, str), "text"),
    "students": (lambda value: _is_map(value, _is_best), "score, epoch and ema_score by name"),
    "judged_epoch": (_or_null(_is_position), "a whole number from 1 or null"),
    "judged_score": (_or_null(_is_number), "a number or null"),
    "waited": (_is_count, "a whole number from 0"),
    "lists": (lambda value: _is_map(value, _is_list_fingerprint), "name, count and digest of each list"),
    "threads": (_is_count, "a whole number from 0"),
    "teacher_threads": (_is_count, "a whole number from 0"),
    "batches": (_is_batches, "processes, update_freq and batch sizes, whole numbers from 1"),
    "seed": (_is_count, "a whole number from 0"),
    "schedule": (lambda value: isinstance(value, dict), "a map"),
    "meters": (_is_meters, "sums and counts by name, for each process"),
    "engines": (lambda value: _is_map(value, _is_choice), "asked and used of each network"),
    "hooks": (lambda value: _is_map(value, lambda state: isinstance(state, dict)), "a map for each hook"),
    "finished": (lambda value: isinstance(value, bool), "true or false"),
}
