"""Where the methods are compared: images, networks, and the recipe that all runs of a setting share."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECIPES = ROOT / "configs" / "_base_" / "cifar" / "methods"
CIFAR_EPOCHS = 240  # of the recipes whose schedules are shortened
_UNLABELLED = 8_000  # images, those with labels among them
_TEST = 500  # images of each class, half of all


@dataclass(frozen=True)
class Places:
    """Where user's data lie, and where runs write.

    Attributes:
        work: folder of lists, stores and runs.
        cifar: folder with ``train/<class>/*`` and ``test/<class>/*``; None if it was not given.
        teacher: weights of resnet56 with option-A shortcuts on CIFAR-10.
    """

    work: Path
    cifar: Path | None = None
    teacher: Path | None = None


@dataclass(frozen=True)
class Variant:
    """One run of an ablation: a method with other options.

    Attributes:
        name: in the results.
        method: the method.
        options: overrides of its recipe, as after ``-o``.
        views: views of the teacher's store; None: those of the setting.
    """

    name: str
    method: str
    options: tuple[str, ...] = ()
    views: int | None = None


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
        variants: the runs of an ablation; they are compared with the labels alone of the setting `stores`.
        stores: the setting whose stores of the teacher's outputs are used; empty: its own.
        labels: labelled images for each class of CIFAR-10.
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
    stores: str = ""
    labels: int = 0
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

    def data(self, places: Places, unlabelled: bool) -> dict[str, Any]:
        """Return the changes of the recipe that name the images, and write their lists.

        Raises:
            SystemExit: if the folder of images is missing.
        """
        if not self.labels:
            return {}
        if places.cifar is None:
            raise SystemExit(f"{self.key} needs --cifar FOLDER")
        lists = cifar_lists(places.cifar, places.work / "lists", self.labels)
        train = {
            "name": "ImageNetDataset",
            "image_root": str(places.cifar),
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

    def with_weights(self, places: Places) -> dict[str, dict[str, Any]]:
        """Return the options of the networks, the teacher's with its file of weights.

        Raises:
            SystemExit: if the file was not given.
        """
        if "pretrained" in self.networks["Teacher"]:
            return self.networks
        if places.teacher is None:
            raise SystemExit(f"{self.key} needs --teacher FILE")
        return {**self.networks, "Teacher": {**self.networks["Teacher"], "pretrained": str(places.teacher)}}

    def epochs_of(self, unlabelled: bool) -> int:
        """Return the number of epochs, so that every method sees the same number of images."""
        labelled = 10 * self.labels
        return max(1, round(self.epochs * labelled / _UNLABELLED)) if unlabelled else self.epochs


def cifar_lists(folder: Path, target: Path, labels: int) -> dict[str, Path]:
    """Write lists: `labels` images of each class, 8,000 images without labels, half of the test images.

    Which images these are is drawn once, with a fixed seed, for all runs.
    """
    target.mkdir(parents=True, exist_ok=True)
    found = {"train": target / f"train_{labels}.txt", "test": target / "test.txt"}
    found["unlabelled"] = target / "unlabelled.txt"
    classes = sorted(path.name for path in (folder / "train").glob("*") if path.is_dir())
    if len(classes) != 10:
        raise SystemExit(f"{folder}/train: expected 10 folders of classes, found {len(classes)}")
    lines: dict[str, list[str]] = {name: [] for name in found}
    for number, name in enumerate(classes):
        images = sorted((folder / "train" / name).glob("*.*"))
        random.Random(number).shuffle(images)
        for kind, count in (("train", labels), ("unlabelled", _UNLABELLED // 10)):
            lines[kind] += [f"{path.relative_to(folder)} {number}" for path in images[:count]]
        test = sorted((folder / "test" / name).glob("*.*"))
        lines["test"] += [f"{path.relative_to(folder)} {number}" for path in test[:_TEST]]
    for kind, path in found.items():
        path.write_text("\n".join(lines[kind]) + "\n", encoding="utf-8")
    return found


def _stages(count: int) -> list[str]:
    """Return the last blocks of three stages of `count` blocks each."""
    return [f"blocks[{count * stage - 1}]" for stage in (1, 2, 3)]


_RESNET8 = {"name": "resnet8", "width": 0.75, "input_size": 16}
_RESNET56 = {"name": "resnet56", "shortcut": "A", "frozen_engine": "onnxruntime"}
_FLATTEN = {"Teacher": "flatten", "Student": "flatten"}

FASHION = Setting(
    key="fashion_mnist",
    title="Fashion-MNIST, 1,000 labels, resnet14 → resnet8",
    base=("quick_start/fashion_mnist_kd.yaml",),
    epochs=33,
    views=33,
    networks={
        "Teacher": {
            "name": "resnet14",
            "input_image_channel": 1,
            "pretrained": "./dataset/fashion_mnist_teacher.pdparams",
        },
        "Student": {"name": "resnet8", "input_image_channel": 1, "width": 0.75},
    },
    stages={"Teacher": _stages(2), "Student": _stages(1)},
    alike={"Teacher": _stages(2), "Student": _stages(1)},
    pooled=_FLATTEN,
    peer={"name": "resnet14", "input_image_channel": 1},
    text=(
        "1,000 labelled images of Fashion-MNIST, 100 for each class, seen at 20 x 20 pixels; evaluated on "
        "2,000 images of the official test set. The teacher resnet14 reaches 91.80 %. 825 steps of 40 "
        "images, the optimizer of `make demo`."
    ),
    alpha_mgd=0.5,  # by `tune`; the authors' 7e-5 * C * H * W would be 0.112
)


def _cifar(
    key: str, title: str, text: str, labels: int, epochs: int, student: dict[str, Any], **more: Any
) -> Setting:
    return Setting(
        key=key,
        title=title,
        base=("_base_/small_images.yaml", "_base_/distillation.yaml"),
        epochs=epochs,
        networks={"Teacher": _RESNET56, "Student": student},
        pooled=more.pop("pooled", _FLATTEN),
        peer=student,
        text=text,
        at_weight=250.0,  # 1000 for maps of the teacher's size; the student's are a quarter of it
        alpha_mgd=0.287,  # 7e-5 * 64 * 8 * 8
        labels=labels,
        changes={
            "Arch": {"class_num": 10},
            # The recipes' rate, falling smoothly, because a run of unlabelled images has two epochs.
            "Optimizer": {
                "name": "Momentum",
                "momentum": 0.9,
                "lr": {"name": "Cosine", "learning_rate": 0.05},
                "regularizer": {"name": "L2", "coeff": 0.0005},
            },
        },
        **more,
    )


CIFAR = _cifar(
    "cifar10",
    "CIFAR-10, 1,000 labels, resnet56 (32 px) → resnet8 (16 px)",
    "1,000 labelled images of CIFAR-10, 100 for each class; evaluated on 5,000 images of the official "
    "test set. The teacher resnet56 (option-A short cuts, 0.86 M parameters) sees 32 x 32 pixels and "
    "reaches 83.2 % on these JPEG files. The student resnet8 (width 0.75, 44,000 parameters) sees the "
    "same images at 16 x 16 pixels. 1,024 steps of 32 images, crops and flips, learning rate 0.05 with "
    "a cosine. The teacher's outputs are stored for eight views of each image.",
    100,
    32,
    _RESNET8,
    views=8,
    stages={"Teacher": _stages(9), "Student": _stages(1)},
    alike={"Teacher": _stages(9)[1:], "Student": _stages(1)[:2]},  # 16 x 16 and 8 x 8 positions
)
_FEW = ("baseline", "KD", "DKD", "NKD", "WKD-F")
_LOSS = "Loss.Train.1.DistillationKLDivLoss"
_SAME = "As in the comparison of all methods on CIFAR-10, with"


def _kd(temperature: int, weight: float, *, standardize: bool) -> Variant:
    method, word = ("KD standardised", "standardised, ") if standardize else ("KD", "")
    options = (f"{_LOSS}.temperature={temperature}", f"{_LOSS}.weight={weight}")
    return Variant(f"{word}temperature {temperature}, weight {weight:g}", method, options)


PPLCNET = replace(
    CIFAR,
    key="cifar10_pplcnet",
    title="CIFAR-10, 1,000 labels, resnet56 → PPLCNet_x0_25",
    text=f"{_SAME} a student of another kind, PPLCNet_x0_25, which sees 32 x 32 pixels.",
    networks={"Teacher": _RESNET56, "Student": {"name": "PPLCNet_x0_25"}},
    stages={"Teacher": _stages(9), "Student": ["blocks3", "blocks4", "blocks5", "blocks6"]},
    pooled={"Teacher": "flatten", "Student": "flatten"},
    chosen=("baseline", "KD", "KD standardised", "DKD", "DIST", "NKD", "WTTM", "OFA", "RKD", "WKD-F"),
    stores="cifar10",
)
LABELS = tuple(
    replace(
        CIFAR,
        key=f"cifar10_{name}",
        title=f"CIFAR-10, {10 * count:,} labels, resnet56 (32 px) → resnet8 (16 px)",
        text=f"{_SAME} {count:,} labels for each class, and {epochs} epochs.",
        labels=count,
        epochs=epochs,
        views=min(8, epochs),
        chosen=_FEW,
    )
    for name, count, epochs in (("10_labels", 10, 320), ("1000_labels", 1000, 3), ("all_labels", 5000, 2))
)
KD = replace(
    CIFAR,
    key="cifar10_kd",
    title="CIFAR-10, KD: temperature, weight and views",
    text=f"{_SAME} other options of KD and of its store, one change at a time.",
    variants=(
        *(
            _kd(temperature, weight, standardize=standardize)
            for standardize, weights in ((False, (0.3, 0.9, 3.0)), (True, (1.0, 9.0, 27.0)))
            for temperature in (1, 2, 4, 8)
            for weight in weights
        ),
        *(Variant(f"KD, {views} views", "KD", (), views) for views in (1, 2, 32)),
    ),
    stores="cifar10",
)
REASONS = replace(
    CIFAR,
    key="cifar10_reasons",
    title="CIFAR-10, methods that lose with the settings for CIFAR-100",
    text=f"{_SAME} the settings of these methods for ImageNet, or the original weight of AT.",
    variants=(
        Variant(
            "WKD-L, temperature 2, gamma 30",
            "WKD-L",
            tuple(f"Loss.Train.1.DistillationWKDLogitLoss.{o}" for o in ("temperature=2.0", "gamma=30.0")),
        ),
        Variant(
            "RLD, temperature 1, beta 0.5",
            "RLD",
            tuple(f"Loss.Train.1.DistillationRLDLoss.{o}" for o in ("temperature=1.0", "beta=0.5")),
        ),
        Variant("DIST, tau 1", "DIST", ("Loss.Train.1.DistillationDISTLoss.tau=1.0",)),
        Variant("AT, weight 1000", "AT", ("Loss.Train.1.DistillationPairLoss.weight=1000.0",)),
    ),
    stores="cifar10",
)
SETTINGS = {setting.key: setting for setting in (FASHION, CIFAR, PPLCNET, *LABELS, KD, REASONS)}
