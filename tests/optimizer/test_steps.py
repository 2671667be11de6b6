"""Each optimizer against its update written out in NumPy (float64)."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.errors import ConfigError
from ppcls.optimizer import build_optimizer

STEPS, LR = 4, 0.1
NAMES = ("weight", "bias")


def sgd(w, g, s, t, o):
    return w - LR * g


def momentum(w, g, s, t, o):
    s["v"] = o.get("momentum", 0.9) * s.get("v", 0) + g
    return w - LR * (g + o.get("momentum", 0.9) * s["v"] if o.get("use_nesterov") else s["v"])


def adam(w, g, s, t, o):
    b1, b2 = o.get("beta1", 0.9), o.get("beta2", 0.999)
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["u"] = b2 * s.get("u", 0) + (1 - b2) * g * g
    return w - LR * s["m"] / (1 - b1**t) / (np.sqrt(s["u"] / (1 - b2**t)) + 1e-8)


def rmsprop(w, g, s, t, o):
    rho = o.get("rho", 0.95)
    s["r"] = rho * s.get("r", 0) + (1 - rho) * g * g
    s["mean"] = rho * s.get("mean", 0) + (1 - rho) * g if o.get("centered") else 0
    s["v"] = o.get("momentum", 0.0) * s.get("v", 0) + LR * g / np.sqrt(s["r"] - s["mean"] ** 2 + 1e-6)
    return w - s["v"]


CASES = {
    "SGD": (sgd, "SGD", {}),
    "Momentum": (momentum, "Momentum", {"momentum": 0.8}),
    "Nesterov": (momentum, "Momentum", {"use_nesterov": True}),
    "Adam": (adam, "Adam", {"beta1": 0.7, "beta2": 0.95}),
    "AdamW": (adam, "AdamW", {}),
    "RMSProp": (rmsprop, "RMSProp", {"rho": 0.8, "momentum": 0.5}),
    "RMSProp centered": (rmsprop, "RMSProp", {"centered": True}),
}


class Toy(nn.Layer):
    """One matrix and one vector; the loss makes the gradients `a` and `b`, whatever the weights are."""

    def __init__(self, own=None):
        super().__init__()
        start = paddle.to_tensor(np.linspace(-1, 2, 6, dtype="float32").reshape(2, 3))
        self.weight = self.create_parameter([2, 3], attr=paddle.ParamAttr(regularizer=own))
        self.bias = self.create_parameter([3])
        self.weight.set_value(start)
        self.bias.set_value(start[0] + 0.3)

    def arrays(self):
        return [np.array(p.numpy(), "float64") for p in (self.weight, self.bias)]


def gradients(t):
    rng = np.random.default_rng(t)
    return [rng.standard_normal(s).astype("float32") for s in ([2, 3], [3])]


def train(net, config, steps=STEPS):
    optimizer, _ = build_optimizer({"lr": {"learning_rate": LR}, **config}, 1, steps, [net])
    for t in range(1, steps + 1):
        a, b = gradients(t)
        ((net.weight * paddle.to_tensor(a)).sum() + (net.bias * paddle.to_tensor(b)).sum()).backward()
        optimizer.step()
        optimizer.clear_grad()
    return net.arrays()


def by_hand(update, options, decay=(), decoupled=(), clip=None):
    """The same in NumPy: clip, then add `decay[i](w)`, then update; `decoupled[i]` shrinks first."""
    weights, states = Toy().arrays(), [{}, {}]
    for t in range(1, STEPS + 1):
        grads = [g.astype("float64") for g in gradients(t)]
        grads = clip(grads) if clip else grads
        for i in range(2):
            if decoupled:
                weights[i] = weights[i] * (1 - LR * decoupled[i])
            g = grads[i] + (decay[i](weights[i]) if decay else 0)
            weights[i] = update(weights[i], g, states[i], t, options)
    return weights


def close(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def nothing(w):
    return 0 * w


def l2(w):
    return 0.3 * w


def l1(w):
    return 0.3 * np.sign(w)


@pytest.mark.parametrize("case", CASES)
def test_update(case):
    update, name, options = CASES[case]
    close(train(Toy(), {"name": name, **options}), by_hand(update, options))


@pytest.mark.parametrize("case", [c for c in CASES if c != "AdamW"])
@pytest.mark.parametrize(
    ("setting", "decay"),
    [
        ({"weight_decay": 0.3}, l2),
        ({"regularizer": {"name": "L2", "coeff": 0.3}}, l2),
        ({"regularizer": {"name": "L1", "coeff": 0.3}}, l1),
    ],
)
def test_decay_joins_the_gradient(case, setting, decay):
    update, name, options = CASES[case]
    close(train(Toy(), {"name": name, **options, **setting}), by_hand(update, options, [decay, decay]))


def test_adamw_decays_beside_the_gradient():
    close(train(Toy(), {"name": "AdamW", "weight_decay": 0.3}), by_hand(adam, {}, decoupled=[0.3, 0.3]))
    close(train(Toy(), {"name": "AdamW"}), by_hand(adam, {}))
    with pytest.raises(ConfigError, match="weight_decay instead"):
        train(Toy(), {"name": "AdamW", "regularizer": {"name": "L2", "coeff": 0.3}})


EXEMPT_BIAS = [
    {"no_weight_decay_name": "bias"},
    {"no_weight_decay_name": ["bia"]},
    {"one_dim_param_no_weight_decay": True},
]


@pytest.mark.parametrize("exempt", EXEMPT_BIAS)
@pytest.mark.parametrize("case", CASES)
def test_no_decay_lists(case, exempt):
    update, name, options = CASES[case]
    got = train(Toy(), {"name": name, **options, "weight_decay": 0.3, **exempt})
    decoupled = name == "AdamW"
    close(got, by_hand(update, options, [] if decoupled else [l2, nothing], [0.3, 0.0] if decoupled else []))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("setting", [{"weight_decay": 0.3}, {"regularizer": {"name": "L1", "coeff": 0.3}}])
def test_a_regularizer_of_the_parameter_wins(case, setting):
    """What PPLCNet relies on: ParamAttr(regularizer=L2Decay(0.0)) exempts a parameter."""
    update, name, options = CASES[case]
    if name == "AdamW" and "regularizer" in setting:
        pytest.skip("AdamW takes no regularizer")
    got = train(Toy(own=paddle.regularizer.L2Decay(0.0)), {"name": name, **options, **setting})
    if name == "AdamW":
        close(got, by_hand(update, options, decoupled=[0.0, 0.3]))
    else:
        close(got, by_hand(update, options, [nothing, l2 if "weight_decay" in setting else l1]))


def norm_clip(grads):
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    return [g * min(1.0, 0.5 / norm) for g in grads]


@pytest.mark.parametrize("case", ["SGD", "Momentum", "AdamW"])
def test_clip_norm_is_global_and_before_decay(case):
    update, name, options = CASES[case]
    setting = {"clip_norm": 0.5, "weight_decay": 0.3, "one_dim_param_no_weight_decay": True}
    decoupled = name == "AdamW"
    want = by_hand(
        update, options, [] if decoupled else [l2, nothing], [0.3, 0.0] if decoupled else [], norm_clip
    )
    close(train(Toy(), {"name": name, **options, **setting}), want)


def test_clip_value():
    want = by_hand(sgd, {}, clip=lambda grads: [np.clip(g, -0.2, 0.2) for g in grads])
    close(train(Toy(), {"name": "SGD", "clip_value": 0.2}), want)


def test_frozen_parameters_stay_out():
    frozen, head = nn.Linear(3, 3), nn.Linear(3, 2)
    for parameter in frozen.parameters():
        parameter.stop_gradient = True
    before = [p.numpy().copy() for p in frozen.parameters()]
    config = {"name": "SGD", "lr": {"learning_rate": 0.5}, "weight_decay": 0.5}
    optimizer, _ = build_optimizer(config, 1, 1, [nn.Sequential(frozen, head), nn.Identity()])
    assert {p.name for p in optimizer._parameter_list} == {p.name for p in head.parameters()}
    head(frozen(paddle.ones([2, 3]))).sum().backward()
    optimizer.step()
    for old, new in zip(before, frozen.parameters(), strict=True):
        assert np.array_equal(old, new.numpy())
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(config, 1, 1, [frozen])


def test_a_decay_may_be_written_as_arithmetic():
    node = {"name": "SGD", "lr": {"learning_rate": LR}, "regularizer": {"name": "L2", "coeff": "1.0/1000"}}
    optimizer, _ = build_optimizer(node, 1, 1, [Toy()])
    assert optimizer.regularization._coeff == 0.001


def test_the_schedule_drives_the_optimizer():
    config = {"name": "SGD", "lr": {"name": "Linear", "learning_rate": 0.4, "warmup_epoch": 1}}
    net = Toy()
    optimizer, schedule = build_optimizer(config, 3, 2, [net])
    seen = []
    for _ in range(6):
        seen.append(optimizer.get_lr())
        schedule.step()
    assert seen == pytest.approx([0, 0.2, 0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "Momentun"}, "Did you mean: Momentum"),
        ({"name": "Momentum", "clip_grad": 1.0}, "no option 'clip_grad'"),
        ({"name": "Momentum", "momentum": 1.0}, "momentum"),
        ({"name": "Momentum", "weight_decay": -1}, "weight_decay"),
        (
            {"name": "Momentum", "weight_decay": 1e-4, "regularizer": {"name": "L2", "coeff": 1e-4}},
            "not both",
        ),
        ({"name": "Momentum", "regularizer": {"name": "L3", "coeff": 1e-4}}, "L1 or L2"),
        ({"name": "Momentum", "regularizer": {"name": "L2", "coef": 1e-4}}, "name and coeff"),
        (
            {"name": "Momentum", "regularizer": {"name": "L2", "coeff": True}},
            "coeff: True, expected a finite",
        ),
        ({"name": "Momentum", "regularizer": {"name": "L2", "coeff": float("inf")}}, "coeff: inf"),
        ({"name": "Momentum", "regularizer": {"name": "L2", "coeff": "much"}}, "coeff: 'much'"),
        ({"name": "Momentum", "weight_decay": float("inf")}, "weight_decay"),
        ({"name": "Momentum", "clip_norm": float("inf")}, "clip_norm"),
        ({"name": "Momentum", "clip_norm": 0}, "clip_norm"),
        ({"name": "Momentum", "clip_norm": 1, "clip_value": 1}, "not both"),
        ({"name": "Adam", "beta1": 1.0}, "beta1"),
    ],
)
def test_mistakes_are_named(config, message):
    config = {"lr": {"learning_rate": LR}, **config}
    with pytest.raises(ConfigError, match=message):
        build_optimizer(config, 1, 1, [Toy()])


def test_a_part_of_a_name_that_no_parameter_has_is_warned_of(caplog):
    """The Swin recipes exempt ``absolute_pos_embed``, which networks without such an embedding lack."""
    model = Toy()
    config = {"name": "Momentum", "lr": {"learning_rate": LR}, "no_weight_decay_name": "wieght bias"}
    build_optimizer(config, 1, 1, [model])
    assert "no_weight_decay_name: 'wieght' has no effect" in caplog.text
    assert "Did you mean: weight" in caplog.text
    assert "'bias'" not in caplog.text
    exempt = {name for name, p in model.named_parameters() if getattr(p, "regularizer", None) is not None}
    assert exempt == {name for name, _ in model.named_parameters() if "bias" in name}
