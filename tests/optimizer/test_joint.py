"""Lists of optimizers: who trains what, that they step as alone, and that their state comes back."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.errors import ConfigError, WeightsError
from ppcls.optimizer import build_optimizer, learning_rates, load_structured_state, structured_state
from ppcls.optimizer.joint import restore_schedule

LR = {"learning_rate": 0.1}


class Head(nn.Linear):
    """A class of its own, as losses with parameters are."""


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.Student = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
        self.Teacher = nn.Linear(4, 3)
        for parameter in self.Teacher.parameters():
            parameter.stop_gradient = True

    def forward(self, x):
        return self.Student(x) - self.Teacher(x)


@pytest.fixture
def layers():
    paddle.seed(0)
    return {"network": Net(), "loss": nn.Sequential(nn.ReLU(), Head(3, 1))}


def entry(name, scope=None, lr=LR, **options):
    return {name: {"lr": lr, **({} if scope is None else {"scope": scope}), **options}}


def build(layers, config, epochs=2, steps=2):
    return build_optimizer(config, epochs, steps, list(layers.values()))


def backward(layers, step):
    x = np.random.default_rng(step).standard_normal((8, 4)).astype("float32")
    layers["loss"](layers["network"](paddle.to_tensor(x))).square().mean().backward()


def weights(layers):
    return {f"{top}.{k}": v.numpy().copy() for top, m in layers.items() for k, v in m.state_dict().items()}


def owners(optimizer, layers):
    """Names of the parameters of each entry."""
    names = {p.name: n for top in layers for n, p in layers[top].named_parameters(prefix=top)}
    return [{names[p.name] for p in one._parameter_list} for one in optimizer.optimizers]


FIRST = {"network.Student.0.weight", "network.Student.0.bias"}
SECOND = {"network.Student.2.weight", "network.Student.2.bias"}
HEAD = {"loss.1.weight", "loss.1.bias"}


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (("Head", None), [HEAD, FIRST | SECOND]),
        (("all", "Student"), [HEAD, FIRST | SECOND]),
        (("Net", "Head"), [FIRST | SECOND, HEAD]),  # classes, as PaddleClas recipes have them
        (("Student[0]", "Student.2", None), [FIRST, SECOND, HEAD]),
        ((["Student.0", "Head"], None), [FIRST | HEAD, SECOND]),
        (("Sequential", None), None),  # the loss is one too, and nothing is left
        (("Teacher", None), None),
    ],
)
def test_scopes(layers, scopes, expected):
    config = [entry("SGD", scope) for scope in scopes]
    if expected is None:
        with pytest.raises(ConfigError, match="nothing is left|no parameter that is trained"):
            build(layers, config)
    else:
        assert owners(build(layers, config)[0], layers) == expected


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        (("Studnet", None), r"Optimizer\.0\.scope: 'Studnet' is neither a layer .* Did you mean: Student"),
        (("Student", "Student.0", None), r"Optimizer\.1\.scope: .* entry 0 trains already"),
        ((None, "all"), "entries 0, 1 have no scope"),
        (("Student", "Student.0"), "entry 0 trains already"),
        (("Student.0", "Head"), r"no scope contains Student\.2\.weight, Student\.2\.bias"),
        (("Student",), r"no scope contains 1\.weight, 1\.bias"),
        ((), "at least one optimizer"),
    ],
)
def test_mistakes_are_named(layers, scopes, message):
    with pytest.raises(ConfigError, match=message):
        build(layers, [entry("SGD", scope) for scope in scopes])


def test_entries_are_named_in_messages(layers):
    with pytest.raises(ConfigError, match=r"Optimizer\.1: Momentum has no option 'momentun'"):
        build(layers, [entry("SGD"), entry("Momentum", "Head", momentun=0.9)])


def test_a_list_of_one_is_that_optimizer(layers):
    optimizer, schedule = build(layers, [entry("SGD")])
    assert isinstance(optimizer, paddle.optimizer.SGD)
    assert not schedule.by_epoch


def test_each_part_trains_as_with_an_optimizer_of_its_own(layers):
    start = weights(layers)
    lr = {"name": "Cosine", "learning_rate": 0.2}
    optimizer, schedule = build(layers, [entry("Momentum", clip_norm=0.5), entry("Adam", "Head", lr)])
    for step in range(4):
        backward(layers, step)
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
    joint = weights(layers)

    for top, model in layers.items():
        model.set_state_dict({k: start[f"{top}.{k}"] for k in model.state_dict()})
    alone = [
        build_optimizer({"name": "Momentum", "lr": LR, "clip_norm": 0.5}, 2, 2, [layers["network"]]),
        build_optimizer({"name": "Adam", "lr": lr}, 2, 2, [layers["loss"]]),
    ]
    for step in range(4):
        backward(layers, step)
        for one, pace in alone:
            one.step()
            one.clear_grad()
            pace.step()
    for name, value in weights(layers).items():
        np.testing.assert_array_equal(joint[name], value, err_msg=name)
        assert "Teacher" in name or not np.array_equal(value, start[name])


def test_schedules_keep_their_own_pace(layers):
    by_step = {"name": "Linear", "learning_rate": 0.6, "end_lr": 0.0}
    by_epoch = {"name": "Step", "learning_rate": 0.1, "step_size": 1, "gamma": 0.5, "by_epoch": True}
    optimizer, schedule = build(layers, [entry("SGD", None, by_step), entry("SGD", "Head", by_epoch)], 2, 3)
    seen = []
    for _ in range(6):
        seen.append(learning_rates(optimizer))
        schedule.step()
    assert [rates[0] for rates in seen] == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert [rates[1] for rates in seen] == pytest.approx([0.1] * 3 + [0.05] * 3)


def test_only_schedules_that_watch_are_told(layers):
    plateau = {"name": "ReduceOnPlateau", "learning_rate": 0.1, "patience": 0, "mode": "min"}
    optimizer, schedule = build(layers, [entry("SGD"), entry("SGD", "Head", plateau)])
    assert schedule.needs_metric
    for _ in range(2):
        schedule.step(1.0)
    first, second = learning_rates(optimizer)
    assert first == 0.1 > second
    rising = [entry("SGD", None, plateau | {"mode": "max"}), entry("SGD", "Head", plateau)]
    with pytest.raises(ConfigError, match="one mode"):
        build(layers, rising)


def test_state_comes_back_exactly(layers):
    config = [entry("Momentum"), entry("Adam", "Head", {"name": "Cosine", "learning_rate": 0.2})]

    def steps(optimizer, schedule, first, last):
        for step in range(first, last):
            backward(layers, step)
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()

    optimizer, schedule = build(layers, config, 4)
    steps(optimizer, schedule, 0, 3)
    saved = weights(layers), structured_state(optimizer, layers), schedule.state_dict()
    assert "loss.1.weight@moment1" in saved[1]
    assert "network.Student.0.weight@velocity" in saved[1]
    steps(optimizer, schedule, 3, 6)
    whole = weights(layers)

    for top, model in layers.items():
        model.set_state_dict({k: saved[0][f"{top}.{k}"] for k in model.state_dict()})
    optimizer, schedule = build(layers, config, 4)
    load_structured_state(optimizer, layers, saved[1])
    restore_schedule(schedule, saved[2])
    steps(optimizer, schedule, 3, 6)
    assert all(np.array_equal(whole[k], v) for k, v in weights(layers).items())


def test_states_of_other_lists_are_refused(layers):
    _, one = build(layers, entry("SGD"))
    _, two = build(layers, [entry("SGD"), entry("SGD", "Head")])
    _, three = build(layers, [entry("SGD"), entry("SGD", "Student.0"), entry("SGD", "Head")])
    for schedule, other in ((one, two), (two, one), (two, three)):
        with pytest.raises(WeightsError, match=r"latest\.pdstates: written by a run with \d entries"):
            restore_schedule(schedule, other.state_dict(), "latest.pdstates")
    adam, _ = build(layers, [entry("Adam"), entry("SGD", "Head")])
    with pytest.raises(WeightsError, match="nothing of that name is trained by Adam and SGD"):
        load_structured_state(
            adam, layers, {"network.Student.0.weight@velocity": np.zeros((4, 3), "float32")}
        )
