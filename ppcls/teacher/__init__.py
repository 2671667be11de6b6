"""How networks compute outputs without training: by their own layers, or as a program that an engine runs.

Here a network *answers* for images when it computes its outputs for them. An *engine* is a library that runs
a network as a finished program: Paddle Inference or ONNX Runtime. An :class:`Answer` replaces a network that
does not change, and decides which of the two ways is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from paddle import nn

from ppcls.arch.answering import DEFAULT, Answering, answering_of
from ppcls.arch.distillation import AttentionModel, DistillationModel, NetworkGroup
from ppcls.arch.foreign import ForeignModel, OnnxModel
from ppcls.arch.theseus import TheseusLayer
from ppcls.distributed import is_main, wait_for_main
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.teacher.ahead import Lookahead
from ppcls.teacher.answer import AUTO, EAGER, Answer, Choice
from ppcls.teacher.logits import KnownLogits
from ppcls.teacher.stored import StoredAnswer, StoredOutputs

__all__ = [
    "Answer",
    "Choice",
    "KnownLogits",
    "Lookahead",
    "StoredOutputs",
    "answer_frozen",
    "frozen_outputs",
    "leave_out_frozen",
    "names_of_frozen",
    "remove_answers",
    "running_frozen",
    "running_trained",
    "store_frozen",
    "trained_networks",
]


def answer_frozen(
    model: nn.Layer,
    image_shape: tuple[int, ...],
    images: int,
    earlier: Mapping[str, Choice] | None = None,
) -> dict[str, Answer]:
    """Let engines run the frozen networks of a model that is about to train.

    Args:
        model: the model with its initial weights.
        image_shape: [C, H, W] of the images to train with.
        images: number of images that each network will get.
        earlier: the choices of the run to resume, by network; None for a new run.

    Returns:
        what replaces each network, by its dotted name.

    Raises:
        ConfigError: if an engine in the recipe cannot run the network, or not in its precision.
    """
    found: dict[str, Answer] = {}
    for name, group, key, wish in _frozen(model, "", DEFAULT):
        before = None if earlier is None else earlier.get(name, Choice("", EAGER))
        answer = Answer(group.network(key), name, wish, images, earlier=before)
        group.answer_with(key, answer)
        found[name] = answer
    if not is_main():
        wait_for_main()  # the main process makes the programs, the others find them in the cache
    for answer in found.values():
        answer.prepare(image_shape)
    if is_main():
        wait_for_main()
    return found


def names_of_frozen(model: nn.Layer) -> list[str]:
    """Return the dotted names of the frozen networks whose outputs for an image never change."""
    return [name for name, *_ in _frozen(model, "", DEFAULT)]


def trained_networks(model: nn.Layer) -> Iterator[nn.Layer]:
    """Yield each network of a group that gets images and of which something trains."""
    names = model.names[:1] if isinstance(model, AttentionModel) else model.names
    for name in names:
        network = model.network(name)
        if name in model.frozen:
            continue
        if isinstance(network, NetworkGroup):
            yield from trained_networks(network)
        else:
            yield network


def leave_out_frozen(model: nn.Layer) -> None:
    """Remove these networks from a model whose training does not run them, to free their memory."""
    for _, group, key, _ in list(_frozen(model, "", DEFAULT)):
        group.leave_out(key)


def store_frozen(model: nn.Layer, outputs: StoredOutputs, answers: Mapping[str, Answer]) -> None:
    """Let training read outputs of frozen networks from a store, and write new outputs to it.

    Args:
        model: the networks.
        outputs: the store of the run.
        answers: what :func:`answer_frozen` returned; it computes the outputs that are not stored.
    """
    for name, group, key, _ in _frozen(model, "", DEFAULT):
        group.answer_with(key, StoredAnswer(outputs, name, answers.get(name) or group.network(key)))


def frozen_outputs(model: nn.Layer, x: Any) -> dict[str, Any]:
    """Return only the outputs of the frozen networks for images [N, C, H, W], by dotted name."""
    return {name: group.run(key, x) for name, group, key, _ in _frozen(model, "", DEFAULT)}


def remove_answers(model: nn.Layer) -> None:
    """Undo what :func:`answer_frozen` did: from now on every network computes its outputs itself."""
    if isinstance(model, NetworkGroup):
        for name in model.names:
            model.answer_with(name, None)
            remove_answers(model.network(name))


@contextmanager
def running_trained(
    model: nn.Layer, names: Collection[str], images: int, *, quiet: bool
) -> Iterator[Callable[[Any], Any]]:
    """Yield a function that runs a model whose training pauses in the block, as programs if that saves time.

    Args:
        model: the model in eval mode.
        names: its networks that train and whose outputs are needed; empty for a model of one network.
        images: number of images that each network will get.
        quiet: log the choices for debugging only.
    """
    if not isinstance(model, NetworkGroup):
        wish = _wish_of_trained(model, Answering())
        title = model.registered_name if isinstance(model, TheseusLayer) else type(model).__name__
        yield Answer(model, title, wish, images, keep=False, quiet=quiet)
        return
    for name in names:
        wish = _wish_of_trained(model.network(name), answering_of(model))
        model.answer_with(name, Answer(model.network(name), name, wish, images, keep=False, quiet=quiet))
    try:
        yield model
    finally:
        for name in names:
            model.answer_with(name, None)


def _wish_of_trained(network: nn.Layer, default: Answering) -> Answering:
    """Return how a network that trains is evaluated: in float32, with an engine if the program saves time."""
    engine = answering_of(network).engine or ("eager" if default.engine == "eager" else "auto")
    return Answering(engine, "float32")


@contextmanager
def running_frozen(
    model: nn.Layer, title: str, default: Answering, images: int
) -> Iterator[Callable[[Any], Any]]:
    """Yield a function that runs a model of which nothing trains, through engines if that saves time.

    Args:
        model: the model in eval mode, with weights.
        title: name for messages, if the model is a single network.
        default: engine and precision for networks without these options.
        images: number of images that it will get.

    Raises:
        ConfigError: if an engine in the recipe cannot run the network, or not in its precision.
    """
    if not isinstance(model, DistillationModel):
        yield Answer(model, title, _wish(model, title, default), images)
        return
    for name in model.names:
        # A student is evaluated in the precision of its training, not in that of its teachers.
        known = default if name in model.frozen else Answering(default.engine)
        wish = _wish(model.network(name), name, known)
        model.answer_with(name, Answer(model.network(name), name, wish, images))
    try:
        yield model
    finally:
        remove_answers(model)


def _frozen(
    model: nn.Layer, prefix: str, default: Answering
) -> Iterator[tuple[str, NetworkGroup, str, Answering]]:
    """Yield each frozen network that gets images: dotted name, group, name in the group, wished engine."""
    if not isinstance(model, NetworkGroup):
        return
    default = answering_of(model).otherwise(default)
    for name in model.names[:1] if isinstance(model, AttentionModel) else model.names:
        network = model.network(name)
        title = f"{prefix}{name}"
        if model.never_changes(name):
            yield title, model, name, _wish(network, title, default)
        elif name in model.frozen:
            if answering_of(network) != Answering():
                LOGGER.info("%s runs without an engine: its statistics change (frozen_mode: train)", title)
        else:
            yield from _frozen(network, f"{title}.", default)


def _wish(network: nn.Layer, title: str, default: Answering) -> Answering:
    """Return engine and precision of a network; a file decides its engine.

    Raises:
        ConfigError: if the recipe names another engine for a file, or a precision that the engine lacks.
    """
    own = answering_of(network)
    if not isinstance(network, ForeignModel):
        wish = own.otherwise(default).otherwise(DEFAULT)
        if wish == Answering("onnxruntime", "bfloat16"):
            raise ConfigError(
                f"frozen_engine of {title}: onnxruntime, which has only float32, but its frozen_precision is "
                "bfloat16; set frozen_precision: float32, or frozen_engine: paddle_inference"
            )
        return wish
    fits = "onnxruntime" if isinstance(network, OnnxModel) else "paddle_inference"
    if own.engine not in (None, AUTO, fits):
        raise ConfigError(
            f"frozen_engine of {title}: {own.engine}, but {type(network).__name__} is a file for {fits}; "
            "leave this option out"
        )
    if own.precision not in (None, "float32") and fits == "onnxruntime":
        raise ConfigError(f"frozen_precision of {title}: {own.precision}, but ONNX Runtime has only float32")
    precision = "float32" if fits == "onnxruntime" else own.otherwise(default).precision
    return Answering("auto", precision)
