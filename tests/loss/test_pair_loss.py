"""A loss made of one function by `pair_loss`: options, checks, its name in the log, and that it trains."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import Tensor, nn
from support import distilled

import ppcls.loss
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.errors import ConfigError
from ppcls.loss import TensorPairLoss, build_loss, pair_loss
from ppcls.registry import LOSSES

PAIRS = {"model_name_pairs": [["S", "T"]]}
LABEL = paddle.to_tensor([[2], [0], [1]])


@pytest.fixture(autouse=True)
def _registry_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(LOSSES, "_items", dict(LOSSES._items))


def outputs() -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    student, teacher = (rng.standard_normal((3, 4)).astype("float32") for _ in range(2))
    return {"S": paddle.to_tensor(student, stop_gradient=False), "T": paddle.to_tensor(teacher)}


def margin_loss() -> Callable[..., Tensor]:
    @pair_loss("DistillationMarginLoss", name="loss_margin", positive=["temperature"], scheduled=["share"])
    def margin(student: Tensor, teacher: Tensor, *, temperature: float = 2.0, share: float = 1.0) -> Tensor:
        """``share * mean(relu(teacher - student) / T)``: an example, of no paper."""
        return share * F.relu(teacher - student).mean() / temperature

    return margin


def test_a_new_loss_is_one_function():
    formula = margin_loss()
    given = outputs()
    expected = float(formula(given["S"], given["T"], temperature=4.0))
    node = {**PAIRS, "temperature": 4.0, "weight": 3.0, "name": "mine"}
    parts = build_loss([{"DistillationMarginLoss": node}])(given, LABEL)
    assert {k: float(v) for k, v in parts.items()} == pytest.approx(
        {"mine_S_T": 3 * expected, "loss": 3 * expected}
    )
    parts["loss"].backward()
    assert np.abs(given["S"].grad.numpy()).max() > 0
    assert list(build_loss([{"DistillationMarginLoss": PAIRS}])(given)) == ["loss_margin_S_T", "loss"]
    loss = ppcls.loss.DistillationMarginLoss
    assert isinstance(loss(**PAIRS), nn.Layer)
    assert (loss.__name__, loss.__module__, loss.__doc__) == (
        "DistillationMarginLoss",
        __name__,
        formula.__doc__,
    )
    assert " ".join(inspect.signature(loss).parameters) == (
        "model_name_pairs key temperature share name pair_weights class_map"
    )


def test_schedules_of_the_weight_and_of_options():
    margin_loss()
    warmup = {"name": "LinearWarmup", "value": 1.0, "epochs": 4}
    for option in ("weight", "share"):
        loss = build_loss([{"DistillationMarginLoss": {**PAIRS, option: warmup}}])
        seen = []
        for epoch in (1, 2, 4, 9):
            loss.set_epoch(epoch)
            seen.append(float(loss(outputs())["loss"]))
        assert seen == pytest.approx([seen[2] / 4, seen[2] / 2, seen[2], seen[2]])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": 0.0}, "DistillationMarginLoss.temperature: got 0.0"),
        (
            {"temperature": float("inf")},
            "DistillationMarginLoss.temperature: got inf, expected a finite number",
        ),
        ({"share": float("nan")}, "DistillationMarginLoss.share: got nan, expected a finite number"),
        ({"temprature": 1.0}, "no option 'temprature'.*Did you mean: temperature"),
        ({"share": {"name": "Step"}}, r"DistillationMarginLoss\.share\.name: unknown schedule 'Step'"),
        ({"model_name_pairs": [["S"]]}, "expected two names"),
        ({"use_target_as_gt": True}, "no option 'use_target_as_gt'"),
    ],
)
def test_options_are_checked(options, text):
    margin_loss()
    with pytest.raises(ConfigError, match=text):
        build_loss([{"DistillationMarginLoss": {**PAIRS, **options}}])


def test_values_of_a_literal_are_the_only_ones_accepted():
    @pair_loss("DistillationPowerLoss", logits=False)
    def power(a: Tensor, b: Tensor, *, by: Literal["rows", "columns"] | None = None) -> Tensor:
        return (a - b).square().mean()

    assert list(build_loss([{"DistillationPowerLoss": PAIRS}])(outputs())) == [
        "DistillationPowerLoss_S_T",
        "loss",
    ]
    with pytest.raises(ConfigError, match="by: expected 'rows' or 'columns', got 'cells'"):
        build_loss([{"DistillationPowerLoss": {**PAIRS, "by": "cells"}}])
    assert "class_map" not in inspect.signature(LOSSES["DistillationPowerLoss"]).parameters


@pytest.mark.parametrize("soft", [False, True])
def test_labels_come_as_classes_or_as_probabilities(soft):
    seen: list[Tensor] = []

    @pair_loss("DistillationLabelLoss", soft_labels=soft)
    def labelled(student: Tensor, teacher: Tensor, label: Tensor, temperature: float = 1.0) -> Tensor:
        seen.append(label)
        return (student - teacher).square().mean() / temperature

    loss = build_loss([{"DistillationLabelLoss": PAIRS}])
    loss(outputs(), LABEL)
    classes = [2, 0, 1]
    expected = np.eye(4)[classes] if soft else np.array(classes)
    np.testing.assert_array_equal(seen[-1].numpy(), expected)
    assert not loss.uses_unlabelled
    assert bool(loss.hard_label_losses) is not soft
    mixed = paddle.to_tensor(np.full((3, 4), 0.25, "float32"))
    if soft:
        loss(outputs(), mixed)
        np.testing.assert_array_equal(seen[-1].numpy(), mixed.numpy())
    else:
        with pytest.raises(ConfigError, match="DistillationLabelLoss got soft labels.*one class for each"):
            loss(outputs(), mixed)
    without = build_loss([{"DistillationLabelLoss": {**PAIRS, "use_target_as_gt": True}}])
    assert without.uses_unlabelled
    assert without.hard_label_losses == []
    without(outputs())
    assert seen[-1].reshape([3, -1]).shape == ([3, 4] if soft else [3, 1])


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (lambda s, t: None, r"got None \(NoneType\)"),
        (lambda s, t: 1.5, r"got 1\.5 \(float\)"),
        (lambda s, t: (s.mean(), t.mean()), r"got (.|\n)*\(tuple\)"),
        (lambda s, t: (s - t).square().mean(-1), r"got shape \[3\]; take the mean"),
    ],
    ids=["None", "float", "tuple", "rows"],
)
@pytest.mark.parametrize("pair_weights", [[1.0], [2.0]])
def test_a_formula_that_returns_no_scalar_is_named(result, got, pair_weights):
    @pair_loss("DistillationOddLoss")
    def odd(student: Tensor, teacher: Tensor) -> Any:
        return result(student, teacher)

    @LOSSES.register("OddPairLoss")
    class OddPairLoss(TensorPairLoss):
        def forward(self, student: Tensor, teacher: Tensor) -> Any:
            return result(student, teacher)

    given = {**PAIRS, "pair_weights": pair_weights}
    expected = "expected a tensor with one number from the loss, "
    with pytest.raises(ConfigError, match=f"DistillationOddLoss: {expected}{got}"):
        build_loss([{"DistillationOddLoss": given}])(outputs())
    with pytest.raises(ConfigError, match=f"OddPairLoss: {expected}{got}"):
        build_loss([{"DistillationPairLoss": {**given, "base_loss_name": "OddPairLoss"}}])(outputs())


@pytest.mark.parametrize("method", ["forward", "prepare"])
def test_a_loss_of_tensors_that_fails_is_named_with_its_line(method):
    @LOSSES.register("FailingPairLoss")
    class FailingPairLoss(TensorPairLoss):
        def prepare(self, student: Tensor, teacher: Tensor) -> None:
            if method == "prepare":
                raise KeyError("stage")

        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            raise KeyError("stage")

    node = {"DistillationPairLoss": {**PAIRS, "base_loss_name": "FailingPairLoss"}}
    with pytest.raises(ConfigError, match=r"^loss FailingPairLoss: KeyError.*test_pair_loss\.py:\d+\)$"):
        build_loss([node], outputs=outputs())(outputs())


def test_pairs_whose_parts_would_have_one_name_are_both_counted():
    rng = np.random.default_rng(1)
    given = {
        n: paddle.to_tensor(rng.standard_normal((3, 4)).astype("float32")) for n in ("A_B", "C", "A", "B_C")
    }
    for name, options in (
        ("DistillationKLDivLoss", {}),
        ("DistillationRKDLoss", {"student_keepkeys": ["logits"], "teacher_keepkeys": ["logits"]}),
    ):
        values = [
            float(build_loss([{name: {"model_name_pairs": pairs, **options}}])(given)["loss"])
            for pairs in ([["A_B", "C"]], [["A", "B_C"]], [["A_B", "C"], ["A", "B_C"]])
        ]
        assert values[2] == pytest.approx(values[0] + values[1])


def test_functions_that_cannot_be_losses_of_pairs():
    def alone(student: Tensor) -> Tensor:
        return student.mean()

    def required(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        return (student - teacher).mean() / temperature

    def taken(student: Tensor, teacher: Tensor, *, key: float = 1.0, weight: float = 1.0) -> Tensor:
        return (student - teacher).mean() * key * weight

    for function, text in (
        (alone, r"alone\(student\) has 1 parameters without default, expected \(student, teacher\)"),
        (required, "options with defaults"),
        (taken, "every loss already has the options key, weight; choose other names"),
    ):
        with pytest.raises(TypeError, match=text):
            pair_loss("DistillationWrongLoss")(function)

    async def late(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).mean()

    def steps(student: Tensor, teacher: Tensor) -> Any:
        yield (student - teacher).mean()

    for function in (late, steps):
        with pytest.raises(TypeError, match=f"{function.__name__} is an async function or a generator"):
            pair_loss("DistillationWrongLoss")(function)
    with pytest.raises(TypeError, match="decorates a function .*partial"):
        pair_loss("DistillationWrongLoss")(functools.partial(margin_loss_formula))
    for part in ("{nme}_{student}", "{}", "{name"):
        with pytest.raises(TypeError, match="cannot fill in part=.*expected a format of name, student"):
            pair_loss("DistillationWrongLoss", part=part)(margin_loss_formula)
    with pytest.raises(TypeError, match=r"list of options such as \['temperature'\], got 'temperature'"):
        pair_loss("DistillationWrongLoss", positive="temperature")(margin_loss_formula)
    with pytest.raises(TypeError, match="margin has no option temprature"):
        pair_loss("DistillationWrongLoss", positive=["temprature"])(margin_loss())
    with pytest.raises(ValueError, match="'DistillationKLDivLoss' is registered twice"):
        pair_loss("DistillationKLDivLoss")(margin_loss_formula)
    assert "DistillationWrongLoss" not in LOSSES


def margin_loss_formula(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).mean()


def test_every_file_of_the_room_is_loaded_with_it():
    """A new file whose loss is not imported would be an unknown name in recipes."""
    for module in pkgutil.iter_modules(ppcls.loss.__path__, "ppcls.loss."):
        assert module.name in sys.modules


@pytest.mark.parametrize("page", ["README.md", "README_zh.md"])
def test_the_example_of_the_docs(page, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/methods" / page).read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / f"square_{page[:-3]}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(f"square_{page[:-3]}")
    given = outputs()
    node = {"DistillationSquareLoss": {**PAIRS, "temperature": 2.0}}
    difference = (given["S"] - given["T"]).detach().numpy()
    assert float(build_loss([node])(given)["loss_square_S_T"]) == pytest.approx((difference**2).mean() / 2)


def test_a_new_loss_trains_through_a_recipe(recipe, write_recipe, tmp_path):
    margin_loss()
    node: dict[str, Any] = {"model_name_pairs": [["Student", "Teacher"]], "weight": 2.0, "temperature": 0.5}
    path = write_recipe(distilled(recipe, DistillationMarginLoss=node))
    Engine(load_config(path, [], "train"), "train").train()
    (log,) = Path(tmp_path).rglob("metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    values = [v for line in lines for k, v in line.items() if k.endswith("loss_margin_Student_Teacher")]
    assert len(values) > 1
    assert values[-1] < values[0]
    wrong = write_recipe(distilled(recipe, DistillationMarginLoss={**node, "temperature": -1.0}))
    with pytest.raises(ConfigError, match=r"Loss\.Train\.0\.DistillationMarginLoss\.temperature"):
        load_config(wrong, [], "train")
