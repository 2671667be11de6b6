"""How far losses and gradients of all methods move if outputs of the teacher are stored in half precision.

    python benchmarks/store_precision.py [recipe.yaml ...]

For each recipe of the pair resnet32x4 and resnet8x4, the networks get random weights, BatchNorm statistics of
the batch, and logits with a standard deviation of 4 (teacher) and 2 (student), as trained networks have on
CIFAR-100. Prints the relative difference of the whole loss and of the gradient of all parameters between a
store in float32 and one in float16 or bfloat16.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from ppcls.arch import build_model
from ppcls.config import load_config, plain
from ppcls.loss import build_loss
from ppcls.teacher import store_frozen
from ppcls.teacher.columns import Columns, Keeping

RECIPES = Path(__file__).parents[1] / "configs" / "cifar"
SIDE = 16
BATCH = 8
SPREAD = {"Teacher": 4.0, "Student": 2.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", type=Path)
    recipes = parser.parse_args().recipes or sorted(RECIPES.glob("resnet32x4_resnet8x4_*.yaml"))
    logging.disable(logging.INFO)
    print("| method | loss, float16 | gradient, float16 | loss, bfloat16 | gradient, bfloat16 |")
    print("|---|---|---|---|---|")
    for path in recipes:
        if path.stem.endswith("_dml"):  # all its networks train, so nothing can be stored
            continue
        found = [measure(path, precision) for precision in ("float16", "bfloat16")]
        cells = [f"{value:.0e}" for pair in found for value in pair]
        print(f"| {path.stem.rpartition('resnet8x4_')[2]} | {' | '.join(cells)} |", flush=True)


def measure(path: Path, precision: str) -> tuple[float, float]:
    """Return the relative differences of the loss and of the gradient of a recipe."""
    config = load_config(str(path), ["Global.device=cpu"], mode="train")
    paddle.seed(1)
    arch = _without_weights(plain(config["Arch"]))
    arch.pop("frozen_mode", None)  # OFD's default, in which the outputs of the teacher change
    model: Any = build_model(arch)
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.standard_normal((BATCH, 3, SIDE, SIDE), np.float32))
    labels = paddle.to_tensor(rng.integers(0, 100, (BATCH, 1)))
    model.prepare((3, SIDE, SIDE))
    _as_trained(model, images)
    assert config.Loss.Train is not None  # it has been checked for training
    loss = build_loss(config.Loss.Train, main=config.arch.main_name)
    loss.prepare(model(images), {name: model.network(name) for name in model.names})
    exact = _step(model, loss, images, labels)
    store_frozen(model, Rounded(precision), {})  # type: ignore[arg-type]  # has what is needed of a store
    rounded = _step(model, loss, images, labels)
    of_loss, of_gradient = (
        float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-30))
        for one, other in zip(exact, rounded, strict=True)
    )
    return of_loss, of_gradient


class Rounded:
    """Stands for a store: outputs go through its precision and come back at once."""

    def __init__(self, precision: str) -> None:
        self._keeping = Keeping(precision, precision)
        self._columns: dict[str, Columns] = {}

    def answer(self, name: str, x: Tensor, live: Any) -> Any:
        """Return the output of a network as a store gives it."""
        output = live(x)
        columns = self._columns.setdefault(name, Columns.of_outputs({name: output}, self._keeping))
        values = columns.encode(name, output, x.shape[0], np.random.default_rng(0))
        return columns.decode(values, name)


def _without_weights(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_weights(value) for key, value in node.items() if key != "pretrained"}
    return [_without_weights(value) for value in node] if isinstance(node, list) else node


def _as_trained(model: Any, images: Tensor) -> None:
    """Set BatchNorm statistics to those of the images, and the spread of the logits."""
    layers = [layer for layer in model.sublayers() if isinstance(layer, nn.BatchNorm2D | nn.BatchNorm1D)]
    momenta = [layer._momentum for layer in layers]
    for layer in model.sublayers(include_self=True):
        layer.training = True
    for layer in layers:
        layer._momentum = 0.0
    with paddle.no_grad():
        model(images)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer._momentum = momentum
        model.train()
        for name, output in model(images).items():
            logits = output["logits"] if isinstance(output, dict) else output
            heads = [each for each in model.network(name).sublayers() if isinstance(each, nn.Linear)]
            head = [each for each in heads if each.weight.shape[1] == logits.shape[1]][-1]
            head.weight.set_value(head.weight * SPREAD[name] / float(logits.std()))


def _step(model: Any, loss: Any, images: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss, and the gradient of all parameters."""
    for parameter in [*model.parameters(), *loss.parameters()]:
        parameter.clear_gradient()
    paddle.seed(7)  # MGD masks features at random
    values = loss(model(images), labels)
    values["loss"].backward()
    gradients = [each.grad.numpy().ravel() for each in model.parameters() if each.grad is not None]
    return np.array(float(values["loss"])), np.concatenate(gradients)


if __name__ == "__main__":
    main()
