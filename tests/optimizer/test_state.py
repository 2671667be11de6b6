"""Optimizer state under structured names: fits whatever was built first, and resumes bit for bit."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.errors import WeightsError
from ppcls.optimizer import build_optimizer, load_structured_state, structured_state

OPTIMIZERS = {
    "SGD": {},
    "Momentum": {"weight_decay": 1e-3},
    "Adam": {},
    "AdamW": {"weight_decay": 1e-2},
    "RMSProp": {"centered": True},
}


class Pair(nn.Layer):
    """Two small networks; the order in which they are built decides Paddle's automatic names."""

    def __init__(self, order):
        super().__init__()
        made = {name: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1D(3), nn.Linear(3, 2)) for name in order}
        self.Student, self.Teacher = made["Student"], made["Teacher"]
        self.unused = nn.Linear(2, 2)  # never gets a gradient, so never has a state

    def forward(self, x):
        return self.Student(x) - 0.5 * self.Teacher(x)


def build(name, order):
    paddle.seed(0)  # some weights make training diverge, and nan is not equal to nan
    net, loss = Pair(order), nn.Linear(2, 1)
    config = {
        "name": name,
        "lr": {"name": "Cosine", "learning_rate": 0.01, "warmup_epoch": 1},
        **OPTIMIZERS[name],
    }
    optimizer, schedule = build_optimizer(config, 4, 3, [net, loss])
    return {"network": net, "loss": loss}, optimizer, schedule


def train(layers, optimizer, schedule, first, last):
    for step in range(first, last):
        x = paddle.to_tensor(np.random.default_rng(step).standard_normal((8, 4)).astype("float32"))
        layers["loss"](layers["network"](x)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()


def weights(layers):
    return {
        f"{top}.{k}": v.numpy().copy() for top, net in layers.items() for k, v in net.state_dict().items()
    }


def put(layers, values):
    for top, net in layers.items():
        net.set_state_dict({k: values[f"{top}.{k}"] for k in net.state_dict()})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resume_in_another_building_order_is_exact(name):
    layers, optimizer, schedule = build(name, ("Student", "Teacher"))
    start = weights(layers)
    train(layers, optimizer, schedule, 0, 10)
    whole, whole_state = weights(layers), structured_state(optimizer, layers)

    layers, optimizer, schedule = build(name, ("Student", "Teacher"))
    put(layers, start)
    train(layers, optimizer, schedule, 0, 5)
    saved = weights(layers), structured_state(optimizer, layers), schedule.state_dict()

    nn.Linear(5, 5)  # moves Paddle's counter on, as any layer built before does
    layers, optimizer, schedule = build(name, ("Teacher", "Student"))
    put(layers, saved[0])
    load_structured_state(optimizer, layers, saved[1])
    schedule.set_state_dict(saved[2])
    assert optimizer.get_lr() == pytest.approx(schedule())
    train(layers, optimizer, schedule, 5, 10)
    resumed = weights(layers)
    assert all(np.array_equal(whole[k], resumed[k]) for k in whole)
    state = structured_state(optimizer, layers)
    assert state.keys() == whole_state.keys()
    assert all(np.array_equal(state[k], whole_state[k]) for k in state)


def test_names():
    layers, optimizer, schedule = build("Momentum", ("Student", "Teacher"))
    assert structured_state(optimizer, layers) == {}
    train(layers, optimizer, schedule, 0, 1)
    names = set(structured_state(optimizer, layers))
    assert {"network.Student.0.weight@velocity", "loss.bias@velocity"} <= names
    assert not any("unused" in name for name in names)
    assert all(len(name.split("@")) == 2 for name in names)


def test_a_trained_optimizer_takes_a_state_back():
    layers, optimizer, schedule = build("Adam", ("Student", "Teacher"))
    train(layers, optimizer, schedule, 0, 2)
    saved = structured_state(optimizer, layers)
    train(layers, optimizer, schedule, 2, 4)
    load_structured_state(optimizer, layers, saved)
    again = structured_state(optimizer, layers)
    assert all(np.array_equal(saved[k], again[k]) for k in saved)


def test_everything_that_does_not_fit_is_listed():
    layers, optimizer, schedule = build("Momentum", ("Student", "Teacher"))
    train(layers, optimizer, schedule, 0, 1)
    saved = structured_state(optimizer, layers)
    broken = dict(saved)
    broken["network.Studnt.0.weight@velocity"] = broken.pop("network.Student.0.weight@velocity")
    broken["loss.bias@moment1"] = np.zeros(1, "float32")
    broken["loss.weight@velocity"] = np.zeros((7, 7), "float32")
    with pytest.raises(WeightsError) as caught:
        load_structured_state(optimizer, layers, broken, where="latest.pdopt")
    text = str(caught.value)
    assert text.startswith("latest.pdopt: 3 entries")
    for part in ("network.Studnt.0.weight@velocity", "loss.bias@moment1", "[7, 7]"):
        assert part in text
    again = structured_state(optimizer, layers)
    assert all(np.array_equal(saved[k], again[k]) for k in saved)


def test_state_of_another_optimizer_is_refused():
    layers, optimizer, schedule = build("Momentum", ("Student", "Teacher"))
    train(layers, optimizer, schedule, 0, 1)
    saved = structured_state(optimizer, layers)
    layers, optimizer, _ = build("Adam", ("Student", "Teacher"))
    with pytest.raises(WeightsError, match="velocity"):
        load_structured_state(optimizer, layers, saved)
