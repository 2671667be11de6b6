"""The comparisons: which networks learn from which images, with what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evidence.methods import METHODS
from evidence.settings import Setting, Variant


def _stages(count: int) -> list[str]:
    """Return the last blocks of three stages of `count` blocks each."""
    return [f"blocks[{count * stage - 1}]" for stage in (1, 2, 3)]


_RESNET8 = {"name": "resnet8", "width": 0.75, "input_size": 16}
_RESNET56 = {"name": "resnet56", "shortcut": "A", "frozen_engine": "onnxruntime"}
_RESNET20 = {**_RESNET56, "name": "resnet20"}
_COSINE = {"name": "Cosine", "learning_rate": 0.05}
_MOMENTUM = {
    "name": "Momentum",
    "momentum": 0.9,
    "lr": _COSINE,
    "regularizer": {"name": "L2", "coeff": 0.0005},
}
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
        weights="teacher",
        changes={
            "Arch": {"class_num": 10},
            # The recipes' rate, falling smoothly, because a run of unlabelled images has two epochs.
            "Optimizer": _MOMENTUM,
        },
        **more,
    )


CIFAR = _cifar(
    "cifar10",
    "CIFAR-10, 1,000 labels, resnet56 (32 px) → resnet8 (16 px)",
    "1,000 labelled images of CIFAR-10, 100 for each class; evaluated on 5,000 images of the official "
    "test set. The teacher resnet56 (option-A short cuts, 0.86 M parameters) sees 32 x 32 pixels and "
    "reaches 83.0 % on these JPEG files. The student resnet8 (width 0.75, 44,000 parameters) sees the "
    "same images at 16 x 16 pixels. 1,024 steps of 32 images, crops and flips, learning rate 0.05 with "
    "a cosine. The teacher's outputs are stored for eight views of each image.",
    100,
    32,
    _RESNET8,
    views=8,
    stages={"Teacher": _stages(9), "Student": _stages(1)},
    alike={"Teacher": _stages(9)[1:], "Student": _stages(1)[:2]},  # 16 x 16 and 8 x 8 positions
)
FEW_METHODS = ("baseline", "KD", "DKD", "WKD-F")
_ALL_LABELS = tuple(name for name, method in METHODS.items() if not method.unlabelled)
# All but those that compare the maps of every stage place by place.
_OTHER_KIND = tuple(name for name in METHODS if name not in ("AT", "ReviewKD", "OverHaul"))
_SAME = "As in the comparison of all methods on CIFAR-10, with"
_SHUFFLENET = {"name": "ShuffleNetV2_x0_25", "input_size": 64}
OTHER_KIND = replace(
    CIFAR,
    key="cifar10_shufflenet",
    title="CIFAR-10, 1,000 labels, resnet56 → ShuffleNetV2_x0_25",
    text=(
        f"{_SAME} a student of another kind, ShuffleNetV2_x0_25 (100,000 parameters, depthwise convolutions, "
        "channels that are split and shuffled). It was made for 224 x 224 pixels and halves its input five "
        "times, so it sees the images of 32 x 32 pixels enlarged to 64 x 64. The learning rate rises during "
        "the first epoch."
    ),
    networks={"Teacher": _RESNET56, "Student": _SHUFFLENET},
    peer=_SHUFFLENET,
    stages={"Teacher": _stages(9), "Student": ["2_4", "3_8", "4_4"]},
    alike={"Teacher": _stages(9)[1:], "Student": ["_max_pool", "2_4"]},  # 16 x 16 and 8 x 8 positions
    pooled={"Teacher": "flatten", "Student": "_flatten"},
    chosen=_OTHER_KIND,
    stores="cifar10",
    changes={**CIFAR.changes, "Optimizer": {**_MOMENTUM, "lr": {**_COSINE, "warmup_epoch": 1}}},
)
FASHION_OTHER_KIND = replace(
    FASHION,
    key="fashion_mnist_shufflenet",
    title="Fashion-MNIST, 1,000 labels, resnet14 → ShuffleNetV2_x0_25",
    text=(
        "As in the comparison of all methods on Fashion-MNIST, with a student of another kind, "
        "ShuffleNetV2_x0_25 (100,000 parameters), which sees the images of 20 x 20 pixels enlarged to "
        "40 x 40."
    ),
    networks={
        "Teacher": FASHION.networks["Teacher"],
        "Student": {"name": "ShuffleNetV2_x0_25", "input_image_channel": 1, "input_size": 40},
    },
    stages={"Teacher": _stages(2), "Student": OTHER_KIND.stages["Student"]},
    alike={"Teacher": _stages(2)[1:], "Student": ["_max_pool", "2_4"]},  # 10 x 10 and 5 x 5 positions
    pooled={"Teacher": "flatten", "Student": "_flatten"},
    peer={"name": "ShuffleNetV2_x0_25", "input_image_channel": 1, "input_size": 40},
    chosen=tuple(name for name in _OTHER_KIND if not METHODS[name].unlabelled),
    stores="fashion_mnist",
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
        chosen=methods,
    )
    for name, count, epochs, methods in (
        ("10_labels", 10, 320, FEW_METHODS),
        ("1000_labels", 1000, 3, FEW_METHODS),
        ("all_labels", 5000, 2, _ALL_LABELS),
    )
)
FASHION_ALL = replace(
    FASHION,
    key="fashion_mnist_all_labels",
    title="Fashion-MNIST, 47,000 labels, resnet14 → resnet8",
    text=(
        "47,000 labelled images of Fashion-MNIST, those on which the teacher was trained, two epochs of "
        "1,175 steps without warm-up; the rest as in the comparison with 1,000 labels."
    ),
    epochs=2,
    views=2,
    chosen=_ALL_LABELS,
    full=True,
    changes={"Optimizer": {"lr": {"warmup_epoch": 0}}},
)
_ONE_EPOCH = "one epoch, in whose first three per cent the learning rate rises."
OTHER_KIND_ALL = replace(
    OTHER_KIND,
    key="cifar10_shufflenet_all_labels",
    title="CIFAR-10, 50,000 labels, resnet56 → ShuffleNetV2_x0_25",
    text=(
        "As in the comparison of all methods with ShuffleNetV2_x0_25 on CIFAR-10, with 5,000 labels for each "
        f"class, and {_ONE_EPOCH}"
    ),
    labels=5000,
    epochs=1,
    views=1,
    chosen=FASHION_OTHER_KIND.chosen,
    stores="",
    changes={**CIFAR.changes, "Optimizer": {**_MOMENTUM, "lr": {**_COSINE, "warmup_epoch": 0.03}}},
)
FASHION_OTHER_KIND_ALL = replace(
    FASHION_OTHER_KIND,
    key="fashion_mnist_shufflenet_all_labels",
    title="Fashion-MNIST, 47,000 labels, resnet14 → ShuffleNetV2_x0_25",
    text=(
        "As in the comparison of all methods with ShuffleNetV2_x0_25 on Fashion-MNIST, with the 47,000 "
        f"labelled images on which the teacher was trained, and {_ONE_EPOCH}"
    ),
    epochs=1,
    views=1,
    stores="",
    full=True,
    changes={"Optimizer": {"lr": {"warmup_epoch": 0.03}}},
)
BY_LABELS = (LABELS[0], CIFAR, *LABELS[1:])
TOGETHER = (  # the comparisons of methods, with titles for a column
    (FASHION, "Fashion-MNIST, 1,000 labels"),
    (FASHION_ALL, "Fashion-MNIST, 47,000 labels"),
    (CIFAR, "CIFAR-10, 1,000 labels"),
    (LABELS[-1], "CIFAR-10, 50,000 labels"),
    (OTHER_KIND, "CIFAR-10, 1,000 labels, ShuffleNetV2"),
    (FASHION_OTHER_KIND, "Fashion-MNIST, 1,000 labels, ShuffleNetV2"),
    (FASHION_OTHER_KIND_ALL, "Fashion-MNIST, 47,000 labels, ShuffleNetV2"),
    (OTHER_KIND_ALL, "CIFAR-10, 50,000 labels, ShuffleNetV2"),
)
KINDS = (OTHER_KIND, FASHION_OTHER_KIND, FASHION_OTHER_KIND_ALL, OTHER_KIND_ALL)
KD_TEMPERATURES = (1, 4, 8)
KD_WEIGHTS = {False: (0.3, 0.9, 3.0), True: (1.0, 9.0, 27.0)}  # by `standardize`
_KD_LOSS = "Loss.Train.1.DistillationKLDivLoss"
_KD_USUAL = ((False, 4, 0.9), (True, 2, 9.0))  # of the comparison of all methods


def kd_name(standardize: bool, temperature: int, weight: float) -> str:
    """Return the name of the runs of KD with these options."""
    return f"{'standardised, ' if standardize else ''}temperature {temperature}, weight {weight:g}"


def _kd(standardize: bool, temperature: int, weight: float) -> Variant:
    name, method = kd_name(standardize, temperature, weight), "KD standardised" if standardize else "KD"
    if (standardize, temperature, weight) in _KD_USUAL:
        return Variant(name, method, reused=True)
    return Variant(name, method, (f"{_KD_LOSS}.temperature={temperature}", f"{_KD_LOSS}.weight={weight}"))


def views_name(views: int) -> str:
    """Return the name of the runs of KD with a store of so many views."""
    return f"KD, {views} {'view' if views == 1 else 'views'}"


VIEWS = (1, 2, 8, 32)
KD = replace(
    CIFAR,
    key="cifar10_kd",
    title="CIFAR-10, KD: temperature, weight and views",
    text=f"{_SAME} other options of KD and of its store, one change at a time.",
    variants=(
        *(
            _kd(standardize, temperature, weight)
            for standardize, weights in KD_WEIGHTS.items()
            for temperature in KD_TEMPERATURES
            for weight in weights
        ),
        _kd(True, 2, 9.0),
        *(Variant(views_name(views), "KD", views=views, reused=views == CIFAR.views) for views in VIEWS),
    ),
    reference="cifar10",
    stores="cifar10",
)
# top-1 in per cent on the 5,000 test images, as a run logs it before its first step (Global.check_teacher)
TEACHERS = {"resnet20": 81.02, "resnet56": 83.02, "mean of both": 85.10}


def teacher_name(method: str, teacher: str) -> str:
    """Return the name of the runs of a method with a teacher of :data:`TEACHERS`."""
    return f"{method}, {teacher}"


TEACHER_METHODS = ("KD", "DKD", "WKD-F")
TEACHER = replace(
    CIFAR,
    key="cifar10_teachers",
    title="CIFAR-10, teachers of different size",
    text=f"{_SAME} resnet20 as the teacher, or the mean of the logits of resnet20 and resnet56.",
    networks={"Teacher": _RESNET20, "Student": _RESNET8},
    stages={"Teacher": _stages(3), "Student": _stages(1)},
    alike={"Teacher": _stages(3)[1:], "Student": _stages(1)[:2]},
    weights="small_teacher",
    second=_RESNET56,
    variants=(
        *(Variant(teacher_name(method, "resnet56"), method, reused=True) for method in TEACHER_METHODS),
        *(Variant(teacher_name(method, "resnet20"), method) for method in TEACHER_METHODS),
        Variant(teacher_name("KD", "mean of both"), "KD", two_teachers=True),
    ),
    reference="cifar10",
)


def _changed(name: str, method: str, loss: str, *options: str) -> Variant:
    return Variant(name, method, tuple(f"Loss.Train.{loss}.{option}" for option in options))


_PAIR_LOSS = "1.DistillationPairLoss"
_WKD_LOSS = "1.DistillationWKDLogitLoss"
_IMAGENET = ("temperature=2.0", "gamma=30.0")  # of WKD-L
REASONS = replace(
    CIFAR,
    key="cifar10_reasons",
    title="CIFAR-10, methods that lose with the settings for CIFAR-100",
    text=f"{_SAME} other settings: those of the method for ImageNet, or smaller weights.",
    variants=(
        _changed("WKD-L, temperature 2, gamma 30", "WKD-L", _WKD_LOSS, *_IMAGENET),
        _changed("WKD, temperature 2, gamma 30", "WKD", _WKD_LOSS, *_IMAGENET),
        _changed(
            "RLD, temperature 1, beta 0.5", "RLD", "1.DistillationRLDLoss", "temperature=1.0", "beta=0.5"
        ),
        _changed("DIST, tau 1", "DIST", "1.DistillationDISTLoss", "tau=1.0"),
        _changed("TTM, weight 4.5", "TTM", "1.DistillationTTMLoss", "weight=4.5"),
        _changed("RKD, weight 0.1", "RKD", "1.DistillationRKDLoss", "weight=0.1"),
        _changed("UDML, features 0.1", "UDML", "2.DistillationDistanceLoss", "weight=0.1"),
        _changed("AT, weight 1000", "AT", _PAIR_LOSS, "weight=1000.0"),
        _changed("AT, weight 25", "AT", _PAIR_LOSS, "weight=25.0"),
    ),
    reference="cifar10",
    stores="cifar10",
)
WARMED = ("baseline", "KD", "TTM", "WKD-L", "WKD", "RLD", "DIST", "RKD")


def warmed(method: str) -> str:
    """Return the name of the runs of a method with a warm-up."""
    return f"{'labels alone' if method == 'baseline' else method}, warm-up"


WARMUP = replace(
    CIFAR,
    key="cifar10_warmup",
    title="CIFAR-10, with a warm-up of the learning rate",
    text=(
        f"{_SAME} a learning rate that rises during the first 64 of the 1,024 steps, as it does during 50 "
        "steps on Fashion-MNIST with 1,000 labels."
    ),
    variants=tuple(Variant(warmed(method), method, ("Optimizer.lr.warmup_epoch=2",)) for method in WARMED),
    reference="cifar10",
    stores="cifar10",
)
SETTINGS = {
    setting.key: setting
    for setting in (
        FASHION,
        CIFAR,
        OTHER_KIND,
        FASHION_OTHER_KIND,
        *LABELS,
        FASHION_ALL,
        OTHER_KIND_ALL,
        FASHION_OTHER_KIND_ALL,
        TEACHER,
        KD,
        REASONS,
        WARMUP,
    )
}
