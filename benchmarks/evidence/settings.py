"""Where methods are compared: images, networks, and the recipe that all runs of a setting share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence.images import UNLABELLED, cifar_lists

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECIPES = ROOT / "configs" / "_base_" / "cifar" / "methods"
CIFAR_EPOCHS = 240  # of the recipes whose schedules are shortened


@dataclass(frozen=True)
class Places:
    """Where user's data lie, and where runs write.

    Attributes:
        work: folder of lists, stores and runs.
        cifar: folder with ``train/<class>/*`` and ``test/<class>/*``; None if it was not given.
        teacher: weights of resnet56 with option-A shortcuts on CIFAR-10.
        small_teacher: weights of resnet20 of the same kind.
        fashion: what ``dataset/prepare_fashion_mnist.py --full`` wrote.
    """

    work: Path
    cifar: Path | None = None
    teacher: Path | None = None
    small_teacher: Path | None = None
    fashion: Path | None = None

    def given(self, option: str, setting: str) -> Path:
        """Return the file or folder of an option of the command.

        Raises:
            SystemExit: if it was not given, or is not there.
        """
        path: Path | None = getattr(self, option)
        if path is None:
            raise SystemExit(f"{setting} needs --{option.replace('_', '-')}, see --help")
        is_weights = option.endswith("teacher")
        if not (path.is_file() if is_weights else path.is_dir()):
            kind = "file" if is_weights else "folder"
            raise SystemExit(f"--{option.replace('_', '-')} {path}: no such {kind}")
        return path.resolve()


@dataclass(frozen=True)
class Variant:
    """One run of an ablation: a method with other options.

    Attributes:
        name: in the results.
        method: the method.
        options: overrides of its recipe, as after ``-o``.
        views: views of the teacher's store; None: those of the setting.
        reused: whether its runs are those of the method in the setting `Setting.reference`.
        two_teachers: whether the mean of both teachers teaches.
    """

    name: str
    method: str
    options: tuple[str, ...] = ()
    views: int | None = None
    reused: bool = False
    two_teachers: bool = False


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Attributes:
        key: its name in commands; results are in ``docs/results_<key>.jsonl``.
        title: in tables and plots.
        base: files below configs that the runs start from.
        epochs: length of a run.
        views: views of a teacher's store.
        networks: the options of Teacher and Student.
        stages: for each network the last blocks of its stages, such as ``blocks[8]``.
        alike: of these, the pairs whose maps are equally large, for methods that compare them place by place.
        pooled: for each network the output before the classifier.
        peer: the second network of methods without a trained teacher.
        alpha_mgd: factor of MGD.
        text: the conditions, a paragraph of the page.
        at_weight: weight of AT.
        chosen: the methods to compare; empty: all.
        variants: the runs of an ablation.
        reference: the setting with whose labels alone these are compared.
        stores: the setting whose stores of the teacher's outputs are used; empty: its own.
        labels: labelled images for each class of CIFAR-10.
        full: whether all further images of Fashion-MNIST are the training images.
        weights: the option of the command with the teacher's weights; empty: they are among its options.
        second: the options of a second teacher, whose weights come from ``--teacher``.
        changes: what else differs from `base`.
    """

    key: str
    title: str
    base: tuple[str, ...]
    epochs: int
    views: int
    networks: dict[str, dict[str, Any]]
    stages: dict[str, list[str]]
    alike: dict[str, list[str]]
    pooled: dict[str, str]
    peer: dict[str, Any]
    alpha_mgd: float
    text: str
    at_weight: float = 1000.0
    chosen: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    reference: str = ""
    stores: str = ""
    labels: int = 0
    full: bool = False
    weights: str = ""
    second: dict[str, Any] = field(default_factory=dict)
    batch: int = 32  # half that of the recipes, because there are few images
    changes: dict[str, Any] = field(default_factory=dict)

    def methods(self, all_methods: Mapping[str, Any]) -> list[str]:
        """Return the names of the methods that are compared; images without labels are those of CIFAR-10."""
        if self.chosen or self.variants:
            return list(self.chosen)
        return [name for name, method in all_methods.items() if self.labels or not method.unlabelled]

    @property
    def results(self) -> Path:
        """File of results, a line per run."""
        return DOCS / f"results_{self.key}.jsonl"

    @property
    def bns(self) -> list[str]:
        """The BatchNorm before the addition, of each stage of the teacher in `alike`."""
        return [f"{stage}.conv1.bn" for stage in self.alike["Teacher"]]

    def taps(self, kind: str) -> dict[str, list[str]]:
        """Return for each network what it returns beside the logits.

        Args:
            kind: ``last``: the last map and the pooled feature.
                ``heads``: the same of the teacher, all stages of the student.
                ``mgd``: the same of the teacher, the last map of that size of the student.
                ``stages``, ``afd``: the last map of each stage.
                ``adds``: those of the stages in `alike`, before their last ReLU.
                ``review``: those of all stages before their last ReLU, and the pooled feature.
                ``maps``: all of them.
        """
        found = {}
        for name, stages in self.stages.items():
            adds, pooled = [f"{stage}.add" for stage in stages], [self.pooled[name]]
            last = [stages[-1], *pooled] if stages else pooled
            found[name] = {
                "last": last,
                "heads": stages if name == "Student" else last,
                "mgd": self.alike[name][-1:] if name == "Student" else last,
                "stages": stages,
                "afd": stages,
                "adds": [f"{stage}.add" for stage in self.alike[name]],
                "review": [*adds, *pooled],
                "maps": [*stages, *adds, *pooled],
            }[kind]
        return found

    @property
    def arguments(self) -> str:
        """What the command needs beside the name of the setting."""
        found = " --cifar FOLDER" if self.labels else " --fashion FOLDER" if self.full else ""
        if self.weights == "small_teacher":
            found += " --small-teacher resnet20.pth"
        return f"{found} --teacher resnet56.pth" if self.weights == "teacher" or self.second else found

    def data(self, places: Places, unlabelled: bool) -> dict[str, Any]:
        """Return the changes of the recipe that name the images, and write their lists.

        Raises:
            SystemExit: if the folder of images is missing.
        """
        if self.full:
            folder = places.given("fashion", self.key)
            if not (folder / "teacher_list.txt").is_file():
                raise SystemExit(f"--fashion {folder}: no teacher_list.txt; see dataset/README.md")
            full = {"image_root": str(folder), "cls_label_path": str(folder / "teacher_list.txt")}
            return {"DataLoader": {"Train": {"dataset": full}}}
        if not self.labels:
            return {}
        folder = places.given("cifar", self.key)
        lists = cifar_lists(folder, places.work / "lists", self.labels)
        train = {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(lists["unlabelled" if unlabelled else "train"]),
        }
        test = {**train, "cls_label_path": str(lists["test"])}
        return {
            "DataLoader": {
                "Train": {
                    "dataset": train,
                    "sampler": {"batch_size": self.batch},
                    "loader": {"num_workers": 1},
                },
                "Eval": {"dataset": test, "loader": {"num_workers": 1}},
            },
        }

    def with_weights(self, places: Places, two_teachers: bool = False) -> dict[str, dict[str, Any]]:
        """Return the options of the networks, the teachers' with their files of weights, the student last.

        Raises:
            SystemExit: if a file was not given.
        """
        teacher = dict(self.networks["Teacher"])
        if self.weights:
            teacher["pretrained"] = str(places.given(self.weights, self.key))
        student = {"Student": self.networks["Student"]}
        if not two_teachers:
            return {"Teacher": teacher, **student}
        second = {**self.second, "pretrained": str(places.given("teacher", self.key))}
        return {"First": teacher, "Second": second, **student}

    def epochs_of(self, unlabelled: bool) -> int:
        """Return the number of epochs, so that every method sees the same number of images."""
        labelled = 10 * self.labels
        return max(1, round(self.epochs * labelled / UNLABELLED)) if unlabelled else self.epochs
