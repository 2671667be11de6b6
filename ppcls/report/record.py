"""Everything that a page says about a run, read from its folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ppcls.config import ArchSpec
from ppcls.errors import ConfigError, DataError
from ppcls.report.answers import FILES, Answers, read_answers
from ppcls.report.runs import RunFolder, read_map, read_run

FACTS = "report.json"
LOG = "train.log"
_LINE = re.compile(r"\[(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)\] ppcls\S* ([A-Z]+): (.*)", re.DOTALL)
_START = re.compile(r"[\d,]+ parameters, [\d,]+ of them train; device ")  # a training begins or is resumed
_STEP = re.compile(r"\[(Train|Teacher|Eval)\](\[[^\]]*\])?\[Epoch [1-9]")  # evaluations alone have epoch 0


@dataclass(frozen=True)
class NetworkFacts:
    """One network of a run.

    Attributes:
        title: its name in the recipe; ``""`` for a single network.
        network: its registered name, such as ``resnet8``; of an ensemble, ``mean of A, B``.
        role: ``teacher`` (it stands still), ``ensemble`` (of teachers), ``student`` (the network to deploy)
            or ``other``.
        parameters: number of trainable numbers, without BatchNorm statistics.
        multiply_adds: multiply-adds of one image in convolutions and matrix products.
        bytes: size of the file of its weights.
        latency: milliseconds for one image.
        weights: where its weights came from; empty if unknown.
    """

    title: str
    network: str
    role: str
    parameters: int | None = None
    multiply_adds: int | None = None
    bytes: int | None = None
    latency: float | None = None
    weights: str = ""

    @property
    def shown(self) -> str:
        """What it is called on a page."""
        return f"{self.title} ({self.network})" if self.title else self.network


@dataclass(frozen=True)
class LogFacts:
    """What ``train.log`` says.

    Attributes:
        warnings: the warnings, each once, with how often it came.
        seconds: how long the run took in all its parts; None if unknown.
        began: when it began, as the log writes it; empty if unknown.
    """

    warnings: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None
    began: str = ""


@dataclass(frozen=True)
class Record:
    """A run as the pages show it.

    Attributes:
        run: its folder.
        facts: content of ``report.json``, which the run writes at its end; empty without it.
        answers: the answers of the best evaluation; None if they are not known.
        log: what ``train.log`` says.
        problems: what could not be read, in words.
    """

    run: RunFolder
    facts: Mapping[str, Any]
    answers: Answers | None
    log: LogFacts
    problems: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @cached_property
    def arch(self) -> ArchSpec | None:
        """The networks; None if the saved recipe describes none."""
        try:
            return self.run.arch
        except ConfigError:
            return None

    @cached_property
    def networks(self) -> list[NetworkFacts]:
        """The networks: teachers and their ensembles first, the student last."""
        if self.arch is None:
            return []
        known = {str(entry.get("title")): entry for entry in _maps(self.facts.get("networks"))}
        main = self.arch.main
        children = list(self.arch.children) or [self.arch]
        found = []
        for child in children:
            role = "student" if child.title == main.title else "teacher" if child.frozen else "other"
            entry = known.get(child.title, {})
            weights = entry.get("weights")
            found.append(
                NetworkFacts(
                    child.title,
                    child.head.name,
                    role,
                    _number(entry, "parameters", int),
                    _number(entry, "multiply_adds", int),
                    _number(entry, "bytes", int),
                    _number(entry, "latency", float),
                    weights if isinstance(weights, str) else _source(child),
                )
            )
        for title, members in self.arch.ensembles.items():
            found.append(NetworkFacts(title, f"mean of {', '.join(members)}", "ensemble"))
        order = {"teacher": 0, "ensemble": 1, "other": 2, "student": 3}
        return sorted(found, key=lambda network: order[network.role])

    @property
    def student(self) -> NetworkFacts | None:
        """The network to deploy."""
        return self.networks[-1] if self.networks else None

    @property
    def teachers(self) -> list[NetworkFacts]:
        """The networks that stand still and have the student's classes, as far as is known."""
        return [network for network in self.networks if network.role == "teacher"]

    @property
    def references(self) -> list[NetworkFacts]:
        """The teachers and ensembles that the student can be compared with."""
        return [network for network in self.networks if network.role in ("teacher", "ensemble")]

    @cached_property
    def best(self) -> Mapping[str, float]:
        """The averages of the best evaluation, else of the last one; empty without any."""
        if self.run.best_metrics:
            return self.run.best_metrics
        rows = self.run.rows_of("eval")
        return values_of(rows[-1]) if rows else {}

    @property
    def criterion(self) -> str:
        """The name of the value that chose the best evaluation, such as ``top1``."""
        states = self.run.progress or self.run.best
        chosen = states.best_by.partition(" of ")[0] if states is not None else ""
        if chosen in self.best:
            return chosen
        return next((name for name in ("top1", "loss") if name in self.best), next(iter(self.best), "loss"))

    def accuracy(self, network: NetworkFacts) -> float | None:
        """Return the top-1 accuracy of a network in the best evaluation; None if it is not known."""
        if network.role not in ("teacher", "ensemble"):
            name = "top1" if network.role == "student" else f"top1_{network.title}"
            # The plain name is that of the weights that were chosen; in an evaluation that chose none, both
            # are there.
            values = (self.best.get(key) for key in (name, f"{name}_ema"))
            return next((value for value in values if value is not None and math.isfinite(value)), None)
        found = self.answers.accuracy(network.title) if self.answers is not None else None
        if found is not None:
            return found
        rows = [row for row in self.run.rows_of("teacher") if f"top1_{network.title}" in row]
        return float(rows[-1][f"top1_{network.title}"]) if rows else None

    def agreement(self, teacher: NetworkFacts) -> float | None:
        """Return the share of images for which student and teacher predict the same class."""
        found = self.best.get(f"agreement_{teacher.title}")
        if found is None and self.answers is not None and self.student is not None:
            return self.answers.agreement(self.student.title, teacher.title)
        return found

    @cached_property
    def steps_per_epoch(self) -> float:
        """Steps of one epoch, by which steps become epochs."""
        for kind in ("epoch", "eval", "train"):
            rows = [row for row in self.run.rows_of(kind) if row["epoch"] > 0 and row["step"] > 0]
            if rows:
                return float(rows[-1]["step"] / rows[-1]["epoch"])
        return 1.0

    def series(self, kind: str, name: str) -> tuple[list[float], list[float]]:
        """Return the epochs (fractional) and values of one name in the rows of a kind."""
        rows = [row for row in self.run.rows_of(kind) if isinstance(row.get(name), int | float)]
        return [row["step"] / self.steps_per_epoch for row in rows], [float(row[name]) for row in rows]

    def names(self, kind: str) -> list[str]:
        """Return the names of the values in the rows of a kind, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.run.rows_of(kind) for name in values_of(row)))

    @property
    def seconds(self) -> float | None:
        """Seconds of the run in all its parts; None if unknown."""
        return self.log.seconds or self.training_seconds

    @cached_property
    def training_seconds(self) -> float | None:
        """Seconds of the training steps alone, from ``batch_cost`` and the number of steps between rows."""
        total = 0.0
        before = 0
        progress = self.run.progress
        if progress is not None and progress.seen_batches and progress.step:
            batches = progress.seen_batches / progress.step  # the last step of an epoch may have fewer
        else:
            frequency = self.run.settings.get("update_freq")
            batches = frequency if isinstance(frequency, int) and frequency > 0 else 1
        for row in self.run.rows_of("train"):
            cost = row.get("batch_cost")
            if isinstance(cost, int | float) and math.isfinite(cost):
                total += cost * batches * max(0, row["step"] - before)
                before = row["step"]
        return total or None


def values_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a row of ``metrics.jsonl``, without kind and place."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in ("kind", "epoch", "step") and isinstance(value, int | float)
    }


def read_record(folder: Path) -> Record:
    """Read the folder of a run.

    Raises:
        ConfigError: if it is not the folder of a run.
    """
    run = read_run(folder)
    problems = list(run.problems)
    facts = read_map(run.folder / FACTS, problems)
    return Record(run, facts, _answers(run, problems), read_log(run.folder / LOG), tuple(problems))


def _answers(run: RunFolder, problems: list[str]) -> Answers | None:
    path = run.folder / FILES[run.averages_are_better]
    try:
        answers = read_answers(path)
    except DataError as error:
        problems.append(str(error))
        return None
    states = run.progress or run.best
    # Old checkpoints do not tell the epoch of the best averages.
    is_known = states is not None and (bool(states.best_ema) or not states.averages_are_better)
    if answers is not None and is_known and answers.epoch != run.best_epoch:
        problems.append(
            f"{path} is of epoch {answers.epoch}, the best evaluation of epoch {run.best_epoch}: the run "
            "was interrupted between both, or resumed from an earlier checkpoint"
        )
    return answers


def read_log(path: Path) -> LogFacts:
    """Return what a ``train.log`` says; nothing if it cannot be read.

    Only the time from the start of training on counts: neither pauses between an interruption and the resume,
    nor what ``ppcls eval`` appended before, between or after.
    """
    warnings: dict[str, int] = {}
    seconds = 0.0
    waiting: list[float] = []  # gaps since the last line of the training itself
    began = ""
    before: datetime | None = None
    for time, level, message in _log_entries(path):
        if level in ("WARNING", "ERROR", "CRITICAL"):
            warnings[message] = warnings.get(message, 0) + 1
        now = datetime.strptime(time, "%Y/%m/%d %H:%M:%S")
        began = began or time
        if before is not None:
            waiting.append((now - before).total_seconds())
        before = now
        if _START.search(message):
            # What came before is a pause, an evaluation of its own, or the few seconds of a start.
            waiting.clear()
            began = began if seconds else time
        if _STEP.match(message):
            seconds += sum(waiting)
            waiting.clear()
    return LogFacts(warnings, seconds or None, began)


def _log_entries(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield time, level and message of each entry; a message may have several lines."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    entry: list[str] = []
    for line in [*lines, "[0000/00/00 00:00:00] ppcls END: "]:
        if _LINE.match(line):
            match = _LINE.match("\n".join(entry)) if entry else None
            if match is not None:
                yield match[1], match[2], match[3].rstrip()
            entry = [line]
        elif entry:
            entry.append(line)


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _number(entry: Mapping[str, Any], name: str, kind: type) -> Any:
    value = entry.get(name)
    return kind(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _source(network: ArchSpec) -> str:
    if network.pretrained is True:
        return "official"
    if network.pretrained:
        return str(network.pretrained)
    path = network.options.get("path")
    return path if isinstance(path, str) else ""
