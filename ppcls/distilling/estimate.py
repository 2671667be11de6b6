"""How long a training will take on this machine, from a few steps on random images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import paddle
from paddle.nn import functional as F

from ppcls.arch import build_model
from ppcls.arch.base import Network
from ppcls.config import ArchSpec, Recipe
from ppcls.config.nodes import Node

_IMAGES = 8  # as many images are enough to tell; the time grows with their number
_STEPS = 2


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        learning: seconds of a step of training, without reading the image.
        answering: seconds of a forward pass.
    """

    learning: float
    answering: float


def measure(node: Node, side: int, batch: int) -> Cost:
    """Return what an image costs a network, measured on random weights and images.

    Args:
        node: its entry in ``Arch``; weights are not loaded.
        side: height and width of the images.
        batch: images of a step.
    """
    network = build_model(ArchSpec.read(node).without_weights())
    count = min(batch, _IMAGES)
    image = paddle.to_tensor(np.zeros((count, 3, side, side), np.float32))
    learning = 0.0
    if not network.always_frozen:
        network.train()
        learning = _fastest(partial(_learn, network, image)) / count
    network.eval()
    with paddle.no_grad():
        return Cost(learning, _fastest(lambda: float(_logits(network, image).sum())) / count)


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some runs after the first, which prepares what others use."""
    run()
    seconds = []
    for _ in range(_STEPS):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _learn(network: Network, image: paddle.Tensor) -> None:
    """Run a step of training, without an update."""
    loss = F.cross_entropy(_logits(network, image), paddle.zeros([len(image)], "int64"))
    loss.backward()
    float(loss)  # waits for the device
    network.clear_gradients()


def _logits(network: Network, image: paddle.Tensor) -> paddle.Tensor:
    outputs = network(image)
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def expected_seconds(config: Recipe, images: int, held: int, costs: dict[str, Cost]) -> float:
    """Return how long the training of a recipe will take.

    Args:
        config: the recipe.
        images: images to train on.
        held: images to evaluate.
        costs: the cost of each network, by its name in the recipe.
    """
    learning = answering = 0.0
    for network in config.arch.children or (config.arch,):
        cost = costs[network.title]
        learning += cost.answering if network.frozen else cost.learning
        answering += cost.answering
    settings = config.Global
    evaluations = settings.epochs // settings.eval_interval if settings.eval_during_train else 0
    return settings.epochs * images * learning + evaluations * held * answering


def in_words(seconds: float) -> str:
    """Return a duration as people say it, such as ``about 12 minutes``."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
