"""How networks that stand still answer: by themselves, or through an engine that runs them as programs."""

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
from ppcls.teacher.answer import AUTO, EAGER, Answer, Choice
from ppcls.teacher.logits import KnownLogits
from ppcls.teacher.stored import StoredAnswer, StoredOutputs

__all__ = [
    "Answer",
    "Choice",
    "KnownLogits",
    "StoredOutputs",
    "answer_by_themselves",
    "answer_frozen",
    "answering_now",
    "answering_still",
    "frozen_outputs",
    "leave_out_frozen",
    "names_of_frozen",
    "store_frozen",
]


def answer_frozen(
    model: nn.Layer,
    image_shape: tuple[int, ...],
    images: int,
    earlier: Mapping[str, Choice] | None = None,
) -> dict[str, Answer]:
    """Let the frozen networks of a model that is about to train answer through engines.

    Args:
        model: with the weights it starts with.
        image_shape: [C, H, W] of the images to train with.
        images: how many of them each network has to answer for.
        earlier: what the run to resume chose, by network; None for a run that begins.

    Returns:
        what stands in for each, by the dotted name of the network.

    Raises:
        ConfigError: if a network that comes as a file was given an engine that does not run it.
    """
    found: dict[str, Answer] = {}
    for name, group, key, wish in _frozen(model, "", DEFAULT):
        before = None if earlier is None else earlier.get(name, Choice("", EAGER))
        answer = Answer(group.network(key), name, wish, images, earlier=before)
        group.answer_with(key, answer)
        found[name] = answer
    if not is_main():
        wait_for_main()  # it makes the programs, the others find them in the cache
    for answer in found.values():
        answer.prepare(image_shape)
    if is_main():
        wait_for_main()
    return found


def names_of_frozen(model: nn.Layer) -> list[str]:
    """Return the dotted names of the frozen networks that give the same answer to the same image."""
    return [name for name, *_ in _frozen(model, "", DEFAULT)]


def leave_out_frozen(model: nn.Layer) -> None:
    """Drop these networks from a model whose training does not ask them, with their memory."""
    for _, group, key, _ in list(_frozen(model, "", DEFAULT)):
        group.leave_out(key)


def store_frozen(model: nn.Layer, outputs: StoredOutputs, answers: Mapping[str, Answer]) -> None:
    """Let outputs of frozen networks in training come from a store, and go there.

    Args:
        model: the networks.
        outputs: the store of the run.
        answers: what :func:`answer_frozen` returned, which answers what is not stored.
    """
    for name, group, key, _ in _frozen(model, "", DEFAULT):
        group.answer_with(key, StoredAnswer(outputs, name, answers.get(name) or group.network(key)))


def frozen_outputs(model: nn.Layer, x: Any) -> dict[str, Any]:
    """Return the outputs of the frozen networks alone for images [N, C, H, W], by dotted name."""
    return {name: group.run(key, x) for name, group, key, _ in _frozen(model, "", DEFAULT)}


def answer_by_themselves(model: nn.Layer) -> None:
    """Take back what :func:`answer_frozen` did: from now on every network itself answers."""
    if isinstance(model, NetworkGroup):
        for name in model.names:
            model.answer_with(name, None)
            answer_by_themselves(model.network(name))


@contextmanager
def answering_now(
    model: nn.Layer, names: Collection[str], images: int, *, quiet: bool
) -> Iterator[Callable[[Any], Any]]:
    """Give a function that runs a model that trains, but not in the block, through programs where that pays.

    Args:
        model: in eval mode.
        names: of its networks that train and have to answer; of a model of one network none.
        images: how many each has to answer for.
        quiet: do not log what was chosen.
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
    """Return how a network that trains is evaluated: its program serves once, so it has to pay."""
    engine = answering_of(network).engine or ("eager" if default.engine == "eager" else "auto")
    return Answering(engine, "float32")


@contextmanager
def answering_still(
    model: nn.Layer, title: str, default: Answering, images: int
) -> Iterator[Callable[[Any], Any]]:
    """Give a function that runs a model of which nothing trains, through engines where that pays.

    Args:
        model: in eval mode, with weights.
        title: name of a model of one network, for messages.
        default: what the recipe says for networks without options of their own.
        images: how many of them it has to answer for.

    Raises:
        ConfigError: if a network that comes as a file was given an engine that does not run it.
    """
    if not isinstance(model, DistillationModel):
        yield Answer(model, title, _wish(model, title, default), images)
        return
    for name in model.names:
        # A student is evaluated as it was trained, whatever the precision of its teachers.
        known = default if name in model.frozen else Answering(default.engine)
        wish = _wish(model.network(name), name, known)
        model.answer_with(name, Answer(model.network(name), name, wish, images))
    try:
        yield model
    finally:
        answer_by_themselves(model)


def _frozen(
    model: nn.Layer, prefix: str, default: Answering
) -> Iterator[tuple[str, NetworkGroup, str, Answering]]:
    """Yield the frozen networks that take images: dotted name, the group they are in, name there, wish."""
    if not isinstance(model, NetworkGroup):
        return
    default = answering_of(model).otherwise(default)
    for name in model.names[:1] if isinstance(model, AttentionModel) else model.names:
        network = model.network(name)
        title = f"{prefix}{name}"
        if model.stands_still(name):
            yield title, model, name, _wish(network, title, default)
        elif name in model.frozen:
            if answering_of(network) != Answering():
                LOGGER.info("%s answers by itself: with frozen_mode: train its statistics move", title)
        else:
            yield from _frozen(network, f"{title}.", default)


def _wish(network: nn.Layer, title: str, default: Answering) -> Answering:
    """Return engine and precision of a network; a file has its own engine.

    Raises:
        ConfigError: if a file was given another one.
    """
    own = answering_of(network)
    if not isinstance(network, ForeignModel):
        return own.otherwise(default).otherwise(DEFAULT)
    fits = "onnxruntime" if isinstance(network, OnnxModel) else "paddle_inference"
    if own.engine not in (None, AUTO, fits):
        raise ConfigError(
            f"frozen_engine of {title}: {own.engine}, but {type(network).__name__} is a file for {fits}; "
            "leave it out"
        )
    if own.precision not in (None, "float32") and fits == "onnxruntime":
        raise ConfigError(f"frozen_precision of {title}: {own.precision}, but ONNX Runtime has only float32")
    precision = "float32" if fits == "onnxruntime" else own.otherwise(default).precision
    return Answering("auto", precision)
