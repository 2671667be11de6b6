"""The defaults of a project: networks, image size, schedule. ``docs/first_project.md`` gives the reasons."""

from __future__ import annotations

from dataclasses import dataclass, field

from ppcls.config.nodes import Node
from ppcls.errors import ConfigError, WeightsError, hint, show
from ppcls.project.methods import METHODS
from ppcls.project.summary import DataSummary
from ppcls.report.network_tables import network_names, usual_shape
from ppcls.weights.sources import official_url

SIZES = (32, 48, 64, 96, 128, 160, 224)
# Up to this side, networks for small images are chosen: the others make an image 32 times smaller.
SMALL = 64
DEFAULT_METHOD = "dkd"
_PAIRS = {True: ("resnet32x4", "resnet8x4"), False: ("ResNet50_vd", "PPLCNet_x1_0")}
_LARGEST = 4096


@dataclass(frozen=True)
class Training:
    """How one network is trained.

    Attributes:
        network: its registered name.
        pretrained: whether it begins with official ImageNet weights.
        epochs: passes over the images of training.
        learning_rate: the highest one, after the warm-up.
        warmup: epochs in which it rises.
        weight_decay: coefficient of the L2 regularizer.
    """

    network: str
    pretrained: bool
    epochs: int
    learning_rate: float
    warmup: int
    weight_decay: float


@dataclass(frozen=True)
class Plan:
    """All defaults of a project.

    Attributes:
        image_size: side of the images that the networks get.
        small: whether the images pass through the chain for small images.
        batch_size: images of a step.
        teacher: how the teacher is trained.
        teacher_node: a teacher that is trained already, as in ``Arch.models``; None if the project trains it.
        student: how the student is trained, alone and with the teacher.
        method: name of the distillation method.
        notes: sentences about choices that may disappoint.
    """

    image_size: int
    small: bool
    batch_size: int
    teacher: Training
    teacher_node: Node | None
    student: Training
    method: str
    notes: list[str] = field(default_factory=list)


def plan(
    summary: DataSummary,
    *,
    teacher: str | None = None,
    student: str | None = None,
    method: str = DEFAULT_METHOD,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    teacher_node: Node | None = None,
    from_scratch: bool = False,
) -> Plan:
    """Choose what the user has not chosen.

    Args:
        summary: the data.
        teacher: name of the teacher's network.
        student: name of the student's network.
        method: a key of :data:`ppcls.project.methods.METHODS`.
        image_size: side of the images that the networks get.
        epochs: passes over the images of training, for all three recipes.
        batch_size: images of a step; the learning rate changes with it.
        teacher_node: a teacher that was trained on these classes, with its weights, as in ``Arch.models``;
            then no recipe trains one.
        from_scratch: begin with random weights, also where there are official ImageNet weights.

    Raises:
        ConfigError: for an unknown network or method, or numbers out of range.
    """
    check_choices(None, student, method, image_size=image_size, epochs=epochs, batch_size=batch_size)
    side = image_size or usual_size(summary.short_side)
    small = side <= SMALL
    batch = batch_size or _usual_batch(len(summary.train), 64 if small else 32)
    chosen = str(teacher_node["name"]) if teacher_node else _known(teacher or _PAIRS[small][0], "teacher")
    student = student or _PAIRS[small][1]
    names = dict.fromkeys([student] if teacher_node else [chosen, student])
    notes = [text for name in names if (text := _unfit(name, side))]
    if batch > len(summary.train):
        notes.append(f"A batch of {batch} is more than the {len(summary.train)} images to train on.")
    trainings = [
        _training(name, len(summary.train), batch, epochs, from_scratch) for name in (chosen, student)
    ]
    return Plan(side, small, batch, trainings[0], teacher_node, trainings[1], method, notes)


def check_choices(
    teacher: str | None = None,
    student: str | None = None,
    method: str = DEFAULT_METHOD,
    *,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> None:
    """Check what a user has chosen before the data are looked at; see :func:`plan`.

    Raises:
        ConfigError: for an unknown network or method, or numbers out of range.
    """
    for option, value, least, most in (
        ("image_size", image_size, 8, _LARGEST),
        ("epochs", epochs, 1, 100_000),
        ("batch_size", batch_size, 2, 100_000),
    ):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{option}: expected a whole number, got {show(value)}")
        if not least <= value <= most:
            raise ConfigError(f"{option}: expected {least} to {most}, got {value}")
    if method not in METHODS:
        known = f"{', '.join(METHODS)}.{hint(method, METHODS)}"
        raise ConfigError(
            f"method: unknown method {method!r}; expected one of {known} Other methods need names of layers; "
            "take a recipe of such a method in configs/ as an example"
        )
    for role, name in (("teacher", teacher), ("student", student)):
        if name is not None:
            _known(name, role)


def usual_size(short_side: int) -> int:
    """Return the largest usual size that needs no enlarging by more than a tenth; at least 32."""
    fitting = [size for size in SIZES if size <= 1.1 * short_side]
    return max(fitting, default=SIZES[0])


def _usual_batch(images: int, most: int) -> int:
    """Return a batch size, a power of two, with which an epoch has ten steps if that is possible."""
    batch = most
    while batch > 8 and images < 10 * batch:
        batch //= 2
    return min(batch, max(images, 2))


def _known(name: str, option: str) -> str:
    known = network_names()
    if name not in known:
        raise ConfigError(f"{option}: unknown network {name!r}.{hint(name, known)} `ppcls models` lists all")
    return name


def is_for_small_images(name: str) -> bool:
    """Tell whether a network was made for images of about 32 pixels."""
    return usual_shape(name)[1] <= SMALL


def _unfit(name: str, side: int) -> str:
    """Return a sentence about a network that does not fit the size of the images; empty if it does."""
    if is_for_small_images(name):
        if side <= 2 * SMALL:
            return ""
        return (
            f"{name} was made for images of 32 pixels; at {side} it is slow and sees little at once. Choose "
            f"a smaller image size, or a network such as {' or '.join(_PAIRS[False])}."
        )
    if side > SMALL:
        return ""
    return (
        f"{name} makes images 32 times smaller, so little is left of {side} x {side} pixels. Choose a larger "
        f"image size, or a network such as {' or '.join(_PAIRS[True])}."
    )


def _training(name: str, images: int, batch: int, epochs: int | None, from_scratch: bool) -> Training:
    try:
        pretrained = not from_scratch and bool(official_url(name))
    except WeightsError:
        pretrained = False
    if pretrained:
        usual, rate, warmup, decay = (30 if images >= 1000 else 60), 0.02 * batch / 32, 1, 0.00004
    else:
        usual, rate, warmup, decay = 240, 0.05 * batch / 64, 5, 0.0005
    count = epochs or usual
    return Training(name, pretrained, count, float(f"{rate:.3g}"), min(warmup, count // 10), decay)
