"""Compare runs: one row for each, and mean and standard deviation over the seeds of one recipe."""

from __future__ import annotations

import hashlib
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.errors import ConfigError
from ppcls.report.record import NetworkFacts, Record, read_record
from ppcls.report.run_sections import loss_names, loss_texts
from ppcls.report.runs import find_runs

# Settings of which the result of a run does not depend, or that name its place.
_LEFT_OUT = frozenset(
    f"Global.{name}"
    for name in (
        *(
            "seed",
            "output_dir",
            "run_name",
            "checkpoints",
            "save_inference_dir",
            "device",
            "plugins",
            "report",
        ),
        *("print_batch_step", "print_mem_info", "log_ranks", "use_visualdl", "use_tensorboard"),
        *("save_interval", "save_steps", "keep_last"),
        *("export_format", "export_onnx", "infer_add_softmax"),
    )
)
_SECTIONS_LEFT_OUT = ("Infer",)
_SHOWN_DIFFERENCES = 4
_IMAGES = ".images"  # after the config path of a dataset: how many images a run had, and which


@dataclass(frozen=True)
class Row:
    """One run in a comparison.

    Attributes:
        record: the run.
        name: its folder, without what all have in common.
        group: number of its recipe: runs that differ only in their seeds have the same.
        differences: settings that are not the same in all runs, by their last names.
    """

    record: Record
    name: str
    group: int
    differences: Mapping[str, str]

    @property
    def network(self) -> str:
        """The student."""
        return self.record.student.network if self.record.student is not None else ""

    @property
    def teacher(self) -> str:
        """The networks that taught it."""
        return ", ".join(teacher.network for teacher in self.record.teachers)

    @property
    def losses(self) -> str:
        """The losses of training."""
        return " + ".join(loss_texts(self.record.run.config))

    @property
    def method(self) -> str:
        """The names of the losses of training, in short."""
        return " + ".join(loss_names(self.record.run.config))

    @property
    def differs_in(self) -> str:
        """The settings by which the runs differ, as one text."""
        shown = [f"{key}={value}" for key, value in self.differences.items()]
        more = f", {len(shown) - _SHOWN_DIFFERENCES} more" if len(shown) > _SHOWN_DIFFERENCES else ""
        return ", ".join(shown[:_SHOWN_DIFFERENCES]) + more

    @property
    def score(self) -> float | None:
        """The accuracy of the best evaluation; without one, the value that chose it."""
        student = self.record.student
        own = None if student is None else self.record.accuracy(student)
        return own if own is not None else self.record.best.get(self.record.criterion)

    @property
    def score_name(self) -> str:
        """What the score is, such as ``top1``."""
        return "top1" if "top1" in self.record.best else self.record.criterion

    @property
    def teacher_accuracy(self) -> float | None:
        """Accuracy of the first teacher."""
        return self._of_teacher(self.record.accuracy)

    @property
    def agreement(self) -> float | None:
        """Agreement with the first teacher."""
        return self._of_teacher(self.record.agreement)

    def _of_teacher(self, ask: Any) -> float | None:
        teachers: list[NetworkFacts] = self.record.teachers
        value: float | None = ask(teachers[0]) if teachers else None
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return everything about the run, as JSON has it."""
        run = self.record.run
        student = self.record.student
        return {
            "name": self.name,
            "folder": str(run.folder),
            "recipe": self.group + 1,
            "network": self.network,
            "teacher": self.teacher,
            "losses": self.losses,
            "differs_in": dict(self.differences),
            "seed": run.settings.get("seed"),
            "epochs": run.epochs,
            "epochs_done": run.epochs_done,
            "finished": run.finished,
            "best_epoch": run.best_epoch,
            "score": None if self.score is None or not math.isfinite(self.score) else self.score,
            "score_name": self.score_name,
            "teacher_top1": self.teacher_accuracy,
            "agreement": self.agreement,
            "parameters": None if student is None else student.parameters,
            "seconds": self.record.seconds,
            "best": {k: v if math.isfinite(v) else None for k, v in self.record.best.items()},
        }


@dataclass(frozen=True)
class Group:
    """The runs of one recipe.

    Attributes:
        number: its number, from 0.
        rows: its runs.
    """

    number: int
    rows: Sequence[Row]

    @property
    def counted(self) -> list[Row]:
        """The runs that are averaged: the finished ones, as long as there are any.

        A copy of a run, which has its seed and its score, is no further one.
        """
        rows = [row for row in self.rows if row.record.run.finished] or self.rows
        return list({(row.record.run.settings.get("seed"), row.score): row for row in rows}.values())

    @property
    def scores(self) -> list[float]:
        """Their scores, as far as they are known and finite."""
        return [row.score for row in self.counted if row.score is not None and math.isfinite(row.score)]

    @property
    def mean(self) -> float | None:
        """Mean score; None without any."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the scores of several seeds (with n - 1); None for one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


def compare(folders: Sequence[Path]) -> list[Row]:
    """Read the runs in some folders.

    Args:
        folders: folders of runs, or folders that contain some.

    Raises:
        ConfigError: for a folder without any run.
    """
    places: dict[Path, None] = {}
    for folder in folders:
        found = find_runs(Path(folder)) if Path(folder).is_dir() else []
        if not found:
            read_record(Path(folder))  # says what the folder is instead
        places.update(dict.fromkeys(Path(os.path.abspath(path)) for path in found))
    if not places:
        raise ConfigError("expected folders of runs, got none")
    return rows_of([read_record(path) for path in places])


def rows_of(records: Sequence[Record]) -> list[Row]:
    """Return a row for each run, those of one recipe together, the best recipe first."""
    settings = [{**settings_of(record.run.config), **_images_of(record)} for record in records]
    keys = dict.fromkeys(key for found in settings for key in found)
    differing = [key for key in keys if len({found.get(key, "–") for found in settings}) > 1]
    # A setting that only some runs have is said by their networks and losses, unless it differs among these.
    told = [
        key
        for key in differing
        if key != "Arch.name" and len({found[key] for found in settings if key in found}) > 1
    ]
    short = short_names(told, with_owner=True)
    names = _names([record.folder for record in records])
    rows = []
    for record, found, name, group in zip(
        records, settings, names, _groups(settings, differing), strict=True
    ):
        shown = {short[key]: found[key] for key in told if key in found}
        rows.append(Row(record, name, group, shown))
    order = sorted(groups_of(rows), key=_rank, reverse=True)
    places = {group.number: place for place, group in enumerate(order)}
    rows = [Row(row.record, row.name, places[row.group], row.differences) for row in rows]
    return sorted(rows, key=lambda row: row.group)


def _groups(settings: Sequence[Mapping[str, str]], differing: Sequence[str]) -> list[int]:
    """Return for each run the number of its recipe.

    A run that does not tell its images (of an earlier version, or before its first checkpoint) belongs to the
    first recipe that is otherwise the same.
    """
    recipes: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
    count = 0
    found = [0] * len(settings)
    told = [any(key.endswith(_IMAGES) for key in one) for one in settings]
    for place in sorted(range(len(settings)), key=lambda place: not told[place]):
        one = settings[place]
        base = tuple(one.get(key, "–") for key in differing if not key.endswith(_IMAGES))
        images = tuple(one.get(key, "–") for key in differing if key.endswith(_IMAGES))
        known = recipes.setdefault(base, {})
        if not told[place] and known:
            found[place] = next(iter(known.values()))
            continue
        if images not in known:
            known[images] = count
            count += 1
        found[place] = known[images]
    return found


def _rank(group: Group) -> tuple[bool, float]:
    """Return what is larger for a better recipe: by the shown scores, those with an accuracy first."""
    if group.mean is None:
        return False, -math.inf
    is_loss = score_names(group.rows) == {"loss"}
    return not is_loss, -group.mean if is_loss else group.mean


def score_names(rows: Sequence[Row]) -> set[str]:
    """Return what the scores of runs are, as far as they have any."""
    return {row.score_name for row in rows if row.score is not None}


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """Return the runs by their recipes, in order of their numbers."""
    numbers = sorted({row.group for row in rows})
    return [Group(number, [row for row in rows if row.group == number]) for number in numbers]


def _images_of(record: Record) -> dict[str, str]:
    """Return what tells the images of a run from others, by the config path of the dataset."""
    states = record.run.progress or record.run.best
    lists = {} if states is None else states.lists
    return {
        f"{where}{_IMAGES}": f"{known['count']} ({known['digest'][:6]})" for where, known in lists.items()
    }


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a recipe on which its results depend besides the seed, by their config paths."""
    return dict(_flat({name: node for name, node in config.items() if name not in _SECTIONS_LEFT_OUT}, ""))


def _flat(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield every setting of a recipe that can change the result, as text by its config path."""
    if path in _LEFT_OUT:
        return
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if entries is not None:
        for key, value in entries:
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif node is not None and ".loader." not in path:
        yield path, str(node)


def short_names(keys: Sequence[str], *, with_owner: bool = False) -> dict[str, str]:
    """Return the shortest ends of config paths by which they can be told apart; none begins with a number.

    Args:
        keys: the config paths.
        with_owner: options of losses and of networks among several keep the name of these.
    """
    least = [2 if with_owner and key.startswith(("Loss.", "Arch.models.")) else 1 for key in keys]
    ends = [
        {".".join(key.split(".")[-n:]) for n in range(fewest, key.count(".") + 2)}
        for key, fewest in zip(keys, least, strict=True)
    ]
    counts = Counter(end for own in ends for end in own)
    found = {}
    for key, own in zip(keys, ends, strict=True):
        fitting = [end for end in own if counts[end] == 1 and not end.partition(".")[0].isdecimal()]
        found[key] = min(fitting, key=len, default=key)
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest parts of paths by which they can be told apart."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    if len(paths) == 1:
        return [paths[0].name]
    home = Path(os.path.commonpath(paths))
    names = [path.relative_to(home) for path in paths]
    shorter = [str(name.parent) for name in names]
    if len(set(shorter)) == len(names) and "." not in shorter:
        return shorter
    return [str(name) for name in names]


# Options of a dataset that do not decide which images it holds.
_NOT_IMAGES = frozenset(("transform_ops", "batch_transform_ops", "class_num", "class_names", "delimiter"))


def evaluations_differ(rows: Sequence[Row]) -> bool:
    """Tell whether runs were evaluated on different images, as far as they or their lists show it."""
    noted = {_images_of(row.record).get(f"DataLoader.Eval.dataset{_IMAGES}") for row in rows}
    if None not in noted:
        return len(noted) > 1
    return len({_evaluated_on(row.record.run.config) for row in rows}) > 1


def _evaluated_on(config: Mapping[str, Any]) -> str:
    """Return what tells the images of an evaluation from others; copies of a list are the same."""
    node: Any = config
    for step in ("DataLoader", "Eval", "dataset"):
        node = node.get(step) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return ""
    options = {key: value for key, value in node.items() if key not in _NOT_IMAGES and value is not None}
    file = Path(str(options.get("cls_label_path", "")))
    if file.is_file():
        options["cls_label_path"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return str(sorted(options.items(), key=str))
