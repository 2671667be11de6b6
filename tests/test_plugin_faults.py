"""Mistakes in components of plug-ins that only show when they run: each message names component and place."""

import numpy as np
import paddle
import pytest
from support import KL, distilled

from ppcls.config import load_config
from ppcls.data.transforms import Compose
from ppcls.engine import Engine
from ppcls.errors import ConfigError, DataError
from ppcls.loss import build_loss, pair_loss
from ppcls.metric import build_metric
from ppcls.optimizer import OptimizerFactory, Schedule, build_optimizer, build_schedule
from ppcls.registry import HOOKS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES


@pytest.mark.parametrize("register", [LOSSES.register, HOOKS.register, pair_loss])
def test_a_decorator_without_parentheses_is_refused(register):
    with pytest.raises(TypeError, match=r"is written with (parentheses|a name): @"):

        @register
        def forgotten(student, teacher):
            return student.mean()


def test_what_cannot_be_called_is_not_registered():
    with pytest.raises(TypeError, match="expected a class or function to register as loss, got 3"):
        LOSSES.register("Three")(3)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda logits: 1.0, r"got 1\.0 \(float\)"),
        (lambda logits: None, r"got None \(NoneType\)"),
        (lambda logits: logits.mean(1), r"got shape \[5\]; take the mean over the batch"),
        (lambda logits: {"Odd": logits.mean(), "more": "x"}, r"more: .*got 'x' \(str\)"),
    ],
)
def test_a_loss_that_returns_no_number_is_named(result, message):
    @LOSSES.register()
    class Odd(paddle.nn.Layer):
        def forward(self, outputs, label):
            return result(outputs)

    loss = build_loss([{"Odd": None}])
    with pytest.raises(
        ConfigError, match=f"expected a tensor with one number from the loss, {message}|^{message}"
    ):
        loss(paddle.ones([5, 4]), paddle.zeros([5], "int64"))


def test_a_loss_that_fails_is_named_with_its_line():
    @LOSSES.register()
    class Failing(paddle.nn.Layer):
        def forward(self, outputs, label):
            return outputs["x"]

    loss = build_loss([{"Failing": {"weight": 1.0}}])
    with pytest.raises(ConfigError, match=r"^loss Failing: .*test_plugin_faults\.py:\d+\)$"):
        loss(paddle.ones([5, 4]), paddle.zeros([5], "int64"))


def test_a_metric_that_fails_is_named_with_its_line():
    @METRICS.register()
    class Failing:
        def __call__(self, outputs, label):
            return {"x": 1 / 0}

    metric = build_metric([{"Failing": None}])
    with pytest.raises(ConfigError, match=r"Failing: ZeroDivisionError: .*test_plugin_faults\.py:\d+\)$"):
        metric(paddle.ones([5, 4]), paddle.zeros([5], "int64"))


def test_failures_of_our_own_components_pass_unchanged():
    loss = build_loss([{"CELoss": None}])
    with pytest.raises(AttributeError):
        loss("no tensor", paddle.zeros([5], "int64"))


def test_a_transform_that_fails_is_named_with_its_line():
    class Breaking:
        def __call__(self, image, rng):
            return image["x"]

    with pytest.raises(DataError, match=r"^Breaking: IndexError: .*test_plugin_faults\.py:\d+\)$"):
        Compose([Breaking()])(np.zeros((4, 4, 3), "uint8"))


def test_an_optimizer_that_cannot_be_built_is_named_with_its_line():
    @OPTIMIZERS.register()
    class Unnamed(OptimizerFactory):
        def __init__(self, lr):
            self.lr = lr

        def build(self, schedule, parameters):
            return paddle.optimizer.SGD(schedule, parameters)

    config = {"name": "Unnamed", "lr": {"learning_rate": 0.1}}
    with pytest.raises(
        ConfigError, match=r"^Optimizer: Unnamed\.build failed: .*pairs of a name and a tensor$"
    ):
        build_optimizer(config, 1, 1, [paddle.nn.Linear(2, 2)])


def _curved(value):
    @SCHEDULES.register()
    class Curved(Schedule):
        def peak(self):
            return 0.1

        def curve(self, unit, epochs):
            return lambda position: value

    return build_schedule({"name": "Curved"}, 2, 3)


def test_a_learning_rate_may_be_a_number_of_numpy():
    assert _curved(np.float32(0.5)).get_lr() == 0.5


@pytest.mark.parametrize("value", ["fast", None])
def test_a_learning_rate_that_is_no_number_is_refused(value):
    with pytest.raises(
        ConfigError, match=r"^Optimizer\.lr: expected a number as the learning rate of position 0"
    ):
        _curved(value)


def test_a_script_of_paddleclas_may_write_its_own_keys(recipe, write_recipe, caplog):
    """As its tools/train.py writes ``profiler_options``, and its engine ``Global.distributed``."""
    from ppcls.utils import config as old

    config = old.get_config(str(write_recipe(distilled(recipe, **KL))))
    config.profiler_options = old.parse_args(["-c", "x.yaml"]).profiler_options
    config["Global"]["distributed"] = False
    assert Engine(config, mode="train").config == load_config(write_recipe(recipe))
    assert "profiler_options" not in caplog.text
    config.profiler_options = "batch_range=[1,2]"
    Engine(config, mode="train")
    assert "profiler_options: has no effect: nothing is profiled" in caplog.text
