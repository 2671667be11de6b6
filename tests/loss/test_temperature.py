"""Temperatures that change from epoch to epoch, and those that are learned against the student."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from support import KL, distilled

import ppcls
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.errors import ConfigError
from ppcls.loss import build_loss

RNG = np.random.default_rng(3)
OUTPUTS = {name: paddle.to_tensor(RNG.normal(0, 3, [6, 5]).astype("float32")) for name in "ST"}
LABEL = paddle.to_tensor(RNG.integers(0, 5, 6))


def loss(name: str, temperature: Any) -> paddle.nn.Layer:
    options = {"model_name_pairs": [["S", "T"]], "temperature": temperature}
    return build_loss([{f"Distillation{name}Loss": options}])


def value(of: paddle.nn.Layer) -> float:
    return float(of(OUTPUTS, LABEL)["loss"])


@pytest.mark.parametrize("name", ["KLDiv", "DKD", "NKD", "WSL", "SKD", "RLD"])
def test_schedule_gives_the_values_of_its_numbers(name: str) -> None:
    scheduled = loss(name, {"name": "Steps", "values": [2.0, 4.0], "epochs": [3]})
    for epoch, temperature in ((1, 2.0), (3, 2.0), (4, 4.0), (9, 4.0)):
        scheduled.set_epoch(epoch)
        assert value(scheduled) == value(loss(name, temperature))


@pytest.mark.parametrize(
    ("temperature", "text"),
    [
        (
            {"name": "CosineDecay", "value": 4.0, "start": 2, "epochs": 5},
            "is 0 in epoch 5, expected numbers above 0",
        ),
        ({"name": "Steps", "values": [4.0, -1.0], "epochs": [7]}, "is -1 in epoch 8"),
        ({"name": "Constant", "value": 0}, "is 0 in epoch 1"),
        ({"name": "Learnable", "range": 0.0}, "range: got 0.0, expected a number above 0"),
        ({"name": "Learnable", "lowest": -1.0}, "lowest: got -1.0"),
        ({"name": "Learnable", "strength": float("inf")}, "strength: got inf"),
        ({"name": "Learnable", "epochs": 0}, "epochs: got 0"),
        ({"name": "Learnable", "epochs": "ten"}, "epochs: .*'ten'"),
        ({"name": "Learnable", "rnage": 3.0}, "has no option 'rnage'. Did you mean: range"),
        ({"name": "Learnabel"}, "unknown schedule 'Learnabel'"),
        (0.0, "got 0.0, expected a number above 0"),
    ],
)
def test_mistake_is_named_with_its_place(temperature: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"DistillationKLDivLoss\.temperature[.:].*{text}"):
        loss("KLDiv", temperature)


@pytest.mark.parametrize("name", ["NKD", "WSL", "SKD"])
def test_loss_that_grows_with_the_temperature_cannot_learn_it(name: str) -> None:
    with pytest.raises(ConfigError, match="temperature: cannot be learned in this loss"):
        loss(name, {"name": "Learnable"})


@pytest.mark.parametrize("epoch", [1, 4, 10, 30])
@pytest.mark.parametrize("name", ["KLDiv", "DKD", "RLD"])
def test_gradient_of_the_temperature_is_reversed(name: str, epoch: int) -> None:
    """Compared with central differences of the loss at fixed temperatures."""
    learned = loss(name, {"name": "Learnable", "lowest": 2.0, "range": 6.0, "strength": 0.5})
    learned.set_epoch(epoch)
    sigmoid = 1 / (1 + math.exp(-1.0))
    temperature = 2.0 + 6.0 * sigmoid
    result = learned(OUTPUTS, LABEL)["loss"]
    assert float(result) == pytest.approx(value(loss(name, temperature)), rel=1e-5)
    result.backward()
    [position] = learned.parameters()
    step = 0.05
    slope = (value(loss(name, temperature + step)) - value(loss(name, temperature - step))) / (2 * step)
    reversal = 0.5 * (1 - math.cos(math.pi * min(epoch, 10) / 10)) / 2
    wanted = -reversal * slope * 6.0 * sigmoid * (1 - sigmoid)
    assert float(position.grad.numpy()[0]) == pytest.approx(wanted, rel=2e-3)


def test_student_gets_the_gradient_of_the_fixed_temperature() -> None:
    gradients = []
    for temperature in ({"name": "Learnable"}, 1.0 + 20.0 / (1 + math.exp(-1.0))):
        student = OUTPUTS["S"].clone()
        student.stop_gradient = False
        loss("KLDiv", temperature)({"S": student, "T": OUTPUTS["T"]})["loss"].backward()
        gradients.append(student.grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-7)


class SeesTheEnd(ppcls.Hook):
    def __init__(self, seen: list[np.ndarray]) -> None:
        self.seen = seen

    def after_train(self, run: Any) -> None:
        self.seen += [
            value.numpy() for name, value in run.parts.loss.named_parameters() if "temperature" in name
        ]


def test_run_learns_the_temperature_and_resumes_with_it(
    recipe: dict, write_recipe: Any, tmp_path: Path
) -> None:
    recipe = distilled(recipe, **KL)
    for entry in recipe["Loss"]["Train"]:
        if "DistillationKLDivLoss" in entry:
            entry["DistillationKLDivLoss"]["temperature"] = {"name": "Learnable", "epochs": 1}
    recipe["Global"]["eval_during_train"] = False
    recipe["Optimizer"]["lr"] = {"name": "ConstLR", "learning_rate": 0.05}
    path = write_recipe(recipe)

    def learned(folder: str, epochs: int) -> np.ndarray:
        options = [f"Global.epochs={epochs}", f"Global.output_dir={tmp_path / folder}"]
        seen = []
        Engine(load_config(path, [*options, "Global.checkpoints=auto"])).train(hooks=[SeesTheEnd(seen)])
        return seen[0]

    whole = learned("whole", 2)
    half = learned("parts", 1)
    assert len({1.0, half.item(), whole.item()}) == 3
    np.testing.assert_array_equal(learned("parts", 2), whole)
