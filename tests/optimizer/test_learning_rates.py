"""Schedules against closed formulas written out here, and their behaviour at the corners."""

from __future__ import annotations

import logging
import math

import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.errors import ConfigError
from ppcls.optimizer import build_schedule


def rates(config, epochs, steps_per_epoch):
    """Learning rate used at every step, the way a training loop drives a schedule."""
    schedule, used = build_schedule(config, epochs, steps_per_epoch), []
    for _ in range(epochs):
        for _ in range(steps_per_epoch):
            used.append(schedule())
            if not schedule.by_epoch:
                schedule.step()
        if schedule.by_epoch:
            schedule.step()
    return used


def expected(after, lr, start, warmup, epochs, steps, by_epoch):
    """Warm-up in a line, then `after(x)` with x in epochs since its end."""
    used = []
    for step in range(epochs * steps):
        done, unit = (step // steps, 1) if by_epoch else (step, steps)
        if done < warmup * unit:
            used.append(start + (lr - start) * done / (warmup * unit))
        else:
            used.append(after(done / unit - warmup))
    return used


CURVES = {
    "ConstLR": ({}, lambda x, lr, n: lr),
    "Cosine": (
        {"eta_min": 0.003},
        lambda x, lr, n: 0.003 + (lr - 0.003) * 0.5 * (1 + math.cos(math.pi * x / n)),
    ),
    "Linear": ({"end_lr": 0.002, "power": 1.7}, lambda x, lr, n: (lr - 0.002) * (1 - x / n) ** 1.7 + 0.002),
    "Step": ({"step_size": 2, "gamma": 0.3}, lambda x, lr, n: lr * 0.3 ** math.floor(x / 2 + 1e-9)),
    "MultiStepDecay": (
        {"milestones": [1, 3], "gamma": 0.2},
        lambda x, lr, n: lr * 0.2 ** ((x >= 1 - 1e-9) + (x >= 3 - 1e-9)),
    ),
}


@pytest.mark.parametrize("name", CURVES)
@settings(max_examples=25, deadline=None)
@given(
    lr=st.floats(0.01, 2.0),
    epochs=st.integers(2, 9),
    steps=st.integers(1, 6),
    warmup=st.integers(0, 4),
    start=st.sampled_from([0.0, 0.005]),
    by_epoch=st.booleans(),
)
def test_agrees_with_its_formula(name, lr, epochs, steps, warmup, start, by_epoch):
    options, formula = CURVES[name]
    warmup = min(warmup, epochs - 1)
    config = {"name": name, "learning_rate": lr, "warmup_epoch": warmup, "warmup_start_lr": start} | options
    left = epochs - warmup
    want = expected(lambda x: formula(x, lr, left), lr, start, warmup, epochs, steps, by_epoch)
    assert rates(config | {"by_epoch": by_epoch}, epochs, steps) == pytest.approx(want, abs=1e-9)


def test_piecewise_counts_its_epochs_after_the_warmup():
    config = {"name": "Piecewise", "decay_epochs": [2, 3], "values": [0.4, 0.2, 0.1], "warmup_epoch": 1}
    assert rates(config, 6, 2) == pytest.approx([0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2] + [0.1] * 4)


def test_recorded_values_of_the_reference():
    cosine = rates({"name": "Cosine", "learning_rate": 0.2, "warmup_epoch": 2}, 10, 7)
    assert cosine[1] == pytest.approx(0.014285714285714287)
    assert cosine[-1] == pytest.approx(0.00015731849821833956)
    linear = rates({"name": "Linear", "learning_rate": 0.3, "end_lr": 0.01, "warmup_epoch": 1}, 10, 7)
    assert linear[-1] == pytest.approx(0.014603174603174618)


def test_fractional_warmup():
    used = rates({"name": "Cosine", "learning_rate": 1.0, "warmup_epoch": 0.5}, 2, 4)
    assert used[:3] == pytest.approx([0, 0.5, 1.0])
    with pytest.raises(ConfigError, match="warmup_epoch"):
        build_schedule({"learning_rate": 1.0, "warmup_epoch": 0.5, "by_epoch": True}, 2, 4)


@pytest.mark.parametrize("name", [*CURVES, "Piecewise", "ReduceOnPlateau"])
@pytest.mark.parametrize("stop", [0, 1, 5, 13])
def test_resume_is_exact(name, stop):
    options = {
        "Piecewise": {"decay_epochs": [2], "values": [0.3, 0.1]},
        "ReduceOnPlateau": {"learning_rate": 0.3, "patience": 0},
    }.get(name) or {"learning_rate": 0.3, **CURVES[name][0]}
    config = {"name": name, "warmup_epoch": 1, **options}

    def drive(schedule, first, last):
        used = []
        for step in range(first, last):
            used.append(schedule())
            schedule.step()
            if schedule.needs_metric and step % 3 == 2:
                schedule.step(1.0 / (step + 1))
        return used

    whole = drive(build_schedule(config, 5, 3), 0, 15)
    first = build_schedule(config, 5, 3)
    used = drive(first, 0, stop)
    second = build_schedule(config, 5, 3)
    second.set_state_dict(first.state_dict())
    assert used + drive(second, stop, 15) == whole


def test_no_name_means_a_constant_rate():
    assert rates({"learning_rate": 0.1}, 2, 2) == [0.1] * 4
    with pytest.raises(ConfigError, match="name"):
        build_schedule({"warmup_epoch": 1}, 2, 2)


def test_warmup_longer_than_the_run_fills_it_and_says_so(caplog):
    logger = logging.getLogger("ppcls")
    logger.addHandler(caplog.handler)
    try:
        used = rates({"name": "Cosine", "learning_rate": 1.0, "warmup_epoch": 5}, 2, 2)
    finally:
        logger.removeHandler(caplog.handler)
    assert used == pytest.approx([0, 0.25, 0.5, 0.75])
    assert "warmup_epoch" in caplog.text
    assert "Global.epochs" in caplog.text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "Cosin", "learning_rate": 0.1}, "Did you mean: Cosine"),
        ({"name": "Cosine", "learning_rat": 0.1}, "Did you mean: learning_rate"),
        ({"name": "Cosine"}, "needs the option 'learning_rate'"),
        ({"name": "Cosine", "learning_rate": -0.1}, "learning_rate"),
        ({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": -1}, "warmup_epoch"),
        (
            {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1, "warmup_start_lr": 0.2},
            "warmup_start_lr",
        ),
        ({"name": "Linear", "learning_rate": 0.1, "power": 0}, "power"),
        ({"name": "Step", "learning_rate": 0.1, "step_size": 0}, "step_size"),
        (
            {"name": "Step", "learning_rate": 0.1, "step_size": 2.4, "by_epoch": True},
            "whole number of epochs",
        ),
        ({"name": "MultiStepDecay", "learning_rate": 0.1, "milestones": [6, 3]}, "rising"),
        ({"name": "Piecewise", "decay_epochs": [3], "values": [0.1]}, "2 values"),
        ({"name": "Piecewise", "decay_epochs": [3, 3], "values": [0.1, 0.2, 0.3]}, "rising"),
        ({"name": "Piecewise", "decay_epochs": [3], "values": [0.1, 0.01], "learning_rate": 0.2}, "values"),
        ({"name": "Piecewise", "decay_epochs": [], "values": []}, "1 values"),
        ({"name": "ReduceOnPlateau", "learning_rate": 0.1, "factor": 1.5}, "factor"),
        ({"name": "ReduceOnPlateau", "learning_rate": 0.1, "mode": "most"}, "mode"),
        ({"name": "Cosine", "learning_rate": math.inf}, "learning_rate: inf, expected a finite number"),
        ({"name": "Cosine", "learning_rate": 0.1, "eta_min": math.inf}, "eta_min"),
        ({"name": "Linear", "learning_rate": 0.1, "end_lr": math.inf}, "end_lr"),
        ({"name": "Piecewise", "decay_epochs": [3], "values": [0.1, math.nan]}, "values: nan"),
        ({"name": "ReduceOnPlateau", "learning_rate": 0.1, "threshold": -3}, "threshold"),
        ({"name": "ReduceOnPlateau", "learning_rate": 0.1, "cooldown": -1}, "cooldown"),
        (0.1, "expected a name"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        build_schedule(config, 5, 2)


def test_a_step_size_of_a_part_of_an_epoch_is_rounded_to_steps():
    config = {"name": "Step", "learning_rate": 1.0, "step_size": 2.4, "gamma": 0.5}
    assert rates(config, 5, 4) == [0.5 ** (t // 10) for t in range(20)]
    assert rates(config | {"step_size": 0.01}, 1, 3) == [1.0, 0.5, 0.25]


def test_piecewise_may_repeat_its_first_value_as_learning_rate():
    config = {"name": "Piecewise", "decay_epochs": [1], "values": [0.2, 0.1]}
    assert rates(config | {"learning_rate": 0.2}, 2, 1) == rates(config, 2, 1) == [0.2, 0.1]


@settings(max_examples=60, deadline=None)
@given(
    metrics=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    mode=st.sampled_from(["min", "max"]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 2),
)
def test_plateau_agrees_with_paddle(metrics, mode, threshold_mode, patience, cooldown):
    options = {
        "mode": mode,
        "factor": 0.5,
        "patience": patience,
        "threshold": 0.05,
        "threshold_mode": threshold_mode,
        "cooldown": cooldown,
        "min_lr": 0.01,
    }
    ours = build_schedule({"name": "ReduceOnPlateau", "learning_rate": 0.4, **options}, 50, 1)
    theirs = paddle.optimizer.lr.ReduceOnPlateau(0.4, **options)
    for metric in metrics:
        ours.step(metric)
        theirs.step(metric)
        assert ours() == pytest.approx(theirs())


def test_plateau_warms_up_once_and_never_stays_at_zero():
    config = {
        "name": "ReduceOnPlateau",
        "learning_rate": 0.4,
        "warmup_epoch": 1,
        "patience": 0,
        "factor": 0.1,
    }
    schedule, used = build_schedule(config, 4, 4), []
    for _ in range(4):
        for _ in range(4):
            used.append(schedule())
            schedule.step()
        schedule.step(0.5)  # accuracy stands still: one reduction after each epoch but the first
    assert used == pytest.approx([0, 0.1, 0.2, 0.3] + [0.4] * 4 + [0.04] * 4 + [0.004] * 4)


@pytest.mark.parametrize("first", [math.inf, -math.inf, math.nan])
def test_a_first_evaluation_without_a_number_does_not_lower_the_rate_for_ever(first):
    plateau = {"name": "ReduceOnPlateau", "learning_rate": 0.1, "patience": 1, "mode": "min"}
    schedule = build_schedule(plateau, 10, 1)
    for metric in (first, 2, 1, 0.5, 0.25, 0.12, 0.06):
        schedule.step(metric)
    assert schedule.get_lr() == 0.1
    schedule.best = math.inf  # as earlier versions kept it
    for metric in (0.05, 0.02, 0.01):
        schedule.step(metric)
    assert schedule.get_lr() == 0.1
