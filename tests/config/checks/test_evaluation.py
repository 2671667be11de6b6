"""What an evaluation measures, which network it measures, and what is decided by it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppcls.config import load_config
from ppcls.errors import ConfigError
from ppcls.registry import METRICS

GTCE = "DistillationGTCELoss"


def mistakes(file: Path, mode: str = "train", *overrides: str) -> dict[str, str]:
    """Return the mistakes of a recipe by their config paths."""
    try:
        load_config(file, list(overrides), mode)
    except ConfigError as error:
        return {mistake.path: mistake.text for mistake in error.mistakes}
    return {}


def warnings(file: Path, caplog: pytest.LogCaptureFixture, mode: str = "train") -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ppcls"):
        load_config(file, mode=mode)
    return "\n".join(caplog.messages)


def plateau(mode: str) -> dict[str, Any]:
    return {"name": "ReduceOnPlateau", "learning_rate": 0.1, "mode": mode}


# ------------------------------------------------------------------ one network


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("losses", "main", "wrong"),
    [
        ([{GTCE: {"model_names": ["Teacher"]}}], "Student", True),
        ([{GTCE: {"model_names": ["Student"]}}], "Student", False),
        ([{GTCE: {"model_names": ["Teacher", "Student"]}}], "Student", False),
        ([{GTCE: {"model_names": ["Teacher"]}}, {"CELoss": {}}], "Student", False),
        ([{"CELoss": {}}], "Student", False),
        ([{"DistillationDMLLoss": {"model_name_pairs": [["Student", "Teacher"]]}}], "Student", False),
    ],
)
def test_the_loss_of_an_evaluation_is_of_the_network_to_deploy(
    write_recipe: Callable[..., Path], losses: list[Any], main: str, wrong: bool, mode: str
) -> None:
    file = write_recipe(("set", "Loss.Eval", losses), ("set", "Arch.infer_model_name", main))
    found = mistakes(file, mode)
    assert set(found) == ({"Loss.Eval"} if wrong else set())
    if wrong:
        assert "looks at Teacher, but the network to deploy is Student" in found["Loss.Eval"]
        assert "use CELoss, which follows the network to deploy, or name Student" in found["Loss.Eval"]


def test_the_loss_must_follow_an_override_too(write_recipe: Callable[..., Path]) -> None:
    file = write_recipe(("set", "Loss.Eval", [{GTCE: {"model_names": ["Student"]}}]))
    for place in ("Arch", "Global"):
        assert set(mistakes(file, "eval", f"{place}.infer_model_name=Teacher")) == {"Loss.Eval"}
    assert not mistakes(file, "export", "Arch.infer_model_name=Teacher")
    assert not mistakes(
        file, "train", "Global.eval_during_train=False", "Arch.freeze_params_list=[True,False]"
    )


def test_a_name_that_is_not_there_is_one_mistake(write_recipe: Callable[..., Path]) -> None:
    file = write_recipe(("set", "Loss.Eval", [{GTCE: {"model_names": ["Studnt"]}}]))
    assert set(mistakes(file)) == {f"Loss.Eval.0.{GTCE}.model_names.0"}


def test_a_frozen_network_that_would_choose_the_best_model_is_a_warning(
    write_recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("Arch", "Global"):
        # One place alone: a second one with another name has a warning of its own.
        file = write_recipe(
            ("drop", "Arch.infer_model_name"), ("set", f"{place}.infer_model_name", "Teacher")
        )
        told = warnings(file, caplog)
        assert "Arch.infer_model_name: Teacher is frozen" in told
        assert told.endswith("name one that trains: Student")
        assert not warnings(file, caplog, "eval")
    file = write_recipe(
        ("set", "Arch.infer_model_name", "Teacher"), ("set", "Global.eval_during_train", False)
    )
    assert not warnings(file, caplog)
    # "Student" is what is deployed when nothing is named, also where it is the frozen one.
    swapped = write_recipe(
        ("set", "Arch.infer_model_name", None),
        ("set", "Arch.freeze_params_list", [False, True]),
        ("set", "Loss.Train", [{GTCE: {"model_names": ["Teacher"]}}]),
    )
    assert "Arch.infer_model_name: Student is frozen" in warnings(swapped, caplog)


@pytest.mark.parametrize(("name", "wrong"), [("ema", True), ("big_ema", True), ("schema", False)])
def test_names_of_averaged_values_are_taken(
    write_recipe: Callable[..., Path], name: str, wrong: bool
) -> None:
    edits = [
        ("rename", "Arch.models.0.Teacher", name),
        ("set", "Loss.Train", [{GTCE: {"model_names": ["Student"]}}]),
    ]
    assert not mistakes(write_recipe(*edits))
    found = mistakes(write_recipe(*edits, ("set", "EMA", {"decay": 0.9})))
    assert set(found) == ({f"Arch.models.0.{name}"} if wrong else set())


# ------------------------------------------------------------------ what decides


def test_a_metric_or_a_loss_is_needed(
    write_recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    by_loss = write_recipe(("set", "Metric.Eval", None))
    assert "Metric.Eval: missing; the loss of Loss.Eval chooses best_model" in warnings(by_loss, caplog)
    assert "Metric.Eval" not in warnings(by_loss, caplog, "eval")
    neither = write_recipe(("set", "Metric.Eval", []), ("set", "Loss.Eval", []))
    assert set(mistakes(neither)) == set(mistakes(neither, "eval")) == {"Metric.Eval"}
    assert not mistakes(neither, "train", "Global.eval_during_train=False")
    misspelt = write_recipe(("rename", "Metric.Eval", "Evall"))
    assert set(mistakes(misspelt)) == {"Metric.Evall"}


@pytest.mark.parametrize("listed", [False, True])
def test_reduce_on_plateau_has_a_value_to_watch(write_recipe: Callable[..., Path], listed: bool) -> None:
    class Error:
        higher_is_better = False

        def __call__(self, outputs: Any, label: Any) -> dict[str, Any]:
            return {"error": 0.5}

    place = "Optimizer.0.lr.mode" if listed else "Optimizer.lr.mode"

    def optimizer(mode: str) -> Any:
        node = {"name": "SGD", "lr": plateau(mode)}
        return [node] if listed else node

    METRICS.register("ErrorOfATest")(Error)
    for mode, losses, metrics, wrong in (
        ("min", [], [{"TopkAcc": {}}], True),
        ("min", [{"CELoss": {}}], [{"TopkAcc": {}}], False),
        ("max", [], [{"TopkAcc": {}}], False),
        ("min", [], [{"ErrorOfATest": {}}], False),
        ("min", [], [{"TopkAcc": {}}, {"ErrorOfATest": {}}], True),
        ("max", [], [{"ErrorOfATest": {}}], False),
    ):
        file = write_recipe(
            ("set", "Optimizer", optimizer(mode)),
            ("set", "Loss.Eval", losses),
            ("set", "Metric.Eval", metrics),
        )
        assert set(mistakes(file)) == ({place} if wrong else set()), (mode, losses, metrics)


def test_schedules_of_one_run_watch_one_value(write_recipe: Callable[..., Path]) -> None:
    def optimizers(*modes: str) -> list[Any]:
        return [
            {"SGD": {"lr": plateau(modes[0])}},
            {"Adam": {"scope": "MGDLoss", "lr": plateau(modes[1])}},
        ]

    assert not mistakes(write_recipe(("set", "Optimizer", optimizers("min", "min"))))
    found = mistakes(write_recipe(("set", "Optimizer", optimizers("max", "min"))))
    assert found == {
        "Optimizer.1.lr.mode": "the schedules of one run watch the same value; give all of them the same mode"
    }


@pytest.mark.parametrize(
    ("epochs", "interval", "start", "evaluations"),
    [
        (10, 1, 0, 10),
        (10, 1, 1, 10),
        (10, 1, 4, 7),
        (10, 3, 0, 4),  # 3, 6, 9 and the last
        (10, 5, 0, 2),
        (10, 5, 6, 1),
        (10, 20, 0, 1),
        (9, 3, 2, 3),
        (10, 1, 11, 0),
    ],
)
def test_early_stopping_that_cannot_stop_is_reported(
    write_recipe: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    epochs: int,
    interval: int,
    start: int,
    evaluations: int,
) -> None:
    """Patience must leave an evaluation to compare with: the first is always an improvement."""
    settings = {"epochs": epochs, "eval_interval": interval, "start_eval_epoch": start}
    edits = [("set", f"Global.{name}", value) for name, value in settings.items()]
    for patience in (max(1, evaluations - 1), max(1, evaluations)):
        told = warnings(write_recipe(*edits, ("set", "EarlyStopping", {"patience": patience})), caplog)
        useless = f"EarlyStopping.patience: has no effect: {epochs} epochs have {evaluations} evaluations"
        assert (useless in told) == (patience >= evaluations)
    file = write_recipe(*edits, ("set", "EarlyStopping", {"patience": 99}))
    assert "EarlyStopping" not in warnings(file, caplog, "eval")
    without = mistakes(file, "train", "Global.eval_during_train=False")
    assert without == {"EarlyStopping": "judges evaluations, but Global.eval_during_train is false"}


# ------------------------------------------------------------------ features of a plain network


@pytest.mark.parametrize(
    ("taps", "unused"),
    [
        (None, None),
        ([], None),
        (["blocks[1]"], "blocks[1]"),
        (["blocks[1]", "blocks[2]"], "blocks[1], blocks[2]"),
    ],
)
def test_features_of_a_plain_network_that_no_loss_uses(
    write_recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture, taps: Any, unused: str | None
) -> None:
    arch = {"name": "resnet8", "class_num": 1000, **({} if taps is None else {"return_patterns": taps})}
    plain = [{"CELoss": {}}]
    file = write_recipe(
        ("set", "Arch", arch),
        ("set", "Loss.Train", plain),
        ("set", "Metric", {"Eval": [{"TopkAcc": {"topk": [1]}}]}),
    )
    expected = [f"Arch.return_patterns: no loss of Loss.Train uses {unused}"] if unused else []
    told = warnings(file, caplog)
    assert [line.split(": ", 1)[1] for line in told.splitlines()] == expected
