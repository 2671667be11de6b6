"""What PaddleClas's recipes contain and is not built here: accepted, noted as without effect, or refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppcls.config import load_config
from ppcls.config.checks.components import KINDS
from ppcls.config.checks.paddleclas import KEYS, NAMES, OPTIONS, Foreign, unknown_name, without_foreign
from ppcls.config.mistakes import Findings
from ppcls.config.schema import Recipe
from ppcls.config.section import fields_of
from ppcls.errors import ConfigError
from ppcls.registry import BACKBONES, LOSSES, Registry

Write = Callable[..., Path]
TRAIN = "DataLoader.Train"
OPS = f"{TRAIN}.dataset.transform_ops"

HARMLESS: list[tuple[str, Any]] = [
    ("Optimizer.clip_grad", None),
    ("Optimizer.clip_grad", "None"),
    ("Optimizer.lr.last_epoch", -1),
    ("Optimizer.lr.verbose", None),
    ("Global.image_channel", 3),
    ("Global.re_ranking", None),
    ("SSL", None),
]
WITHOUT_EFFECT: list[tuple[str, Any, str]] = [
    ("Optimizer.clip_grad", 5.0, "has no effect, as in PaddleClas; clip_norm or clip_value"),
    ("Optimizer.lr.verbose", True, "has no effect"),
    ("Global.use_dali", True, "DALI is not used; the transforms are the same"),
    (f"{OPS}.2", {"RandAugment": {"magnitude": 12}}, "12 is above 10"),
]
REFUSED: list[tuple[str, Any, str, str]] = [
    ("Optimizer.lr.last_epoch", 7, "Optimizer.lr.last_epoch", "Global.checkpoints"),
    ("Optimizer.lr.last_epoch", True, "Optimizer.lr.last_epoch", "only -1 is accepted"),
    ("Global.image_channel", 4, "Global.image_channel", "3 channels"),
    ("Global.use_multilabel", True, "Global.use_multilabel", "multi-label"),
    ("Global.eval_mode", "retrieval", "Global.eval_mode", "retrieval"),
    ("Global.train_mode", "progressive", "Global.train_mode", "not supported"),
    ("Global.iter_per_epoch", 3, "Global.iter_per_epoch", "one pass"),
    ("Global.feature_normalize", True, "Global.feature_normalize", "retrieval"),
    ("Slim", {"quant": {"name": "pact"}}, "Slim", "quantisation"),
    ("UnLabelLoss", {"Train": []}, "UnLabelLoss", "UnLabelTrain"),
    ("DataLoader.Eval.Query", {"dataset": 1}, "DataLoader.Eval.Query", "retrieval"),
    ("Loss.Train.1", {"MultiLabelLoss": {"weight": 1}}, "Loss.Train.1", "multi-label"),
    ("Loss.Train.1", {"TripletLossV2": {"weight": 1}}, "Loss.Train.1", "metric learning"),
    ("Metric.Eval.0", {"Recallk": {"topk": 1}}, "Metric.Eval.0", "retrieval"),
    (f"{TRAIN}.dataset.name", "MultiLabelDataset", f"{TRAIN}.dataset.name", "multi-label"),
    (f"{TRAIN}.sampler.name", "PKSampler", f"{TRAIN}.sampler.name", "metric learning"),
    ("Infer.PostProcess.name", "PersonAttribute", "Infer.PostProcess.name", "multi-label"),
    (
        "Arch.models.0.Teacher.name",
        "MobileViTV3_XS",
        "Teacher.name",
        "not built here",
    ),
    (f"{OPS}.2", {"RandomCrop": {"size": 4}}, f"{OPS}.2", "Did you mean: RandomCropImage"),
]


@pytest.mark.parametrize(("path", "value"), HARMLESS)
def test_a_value_that_asks_for_nothing_is_accepted_silently(
    path: str, value: Any, write_recipe: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ppcls"):
        config = load_config(write_recipe(("set", path, value)))
    last = path.rpartition(".")[2]
    assert last not in caplog.text
    assert last not in config
    assert last not in config["Optimizer"]
    assert last not in config["Optimizer"]["lr"]


@pytest.mark.parametrize(("path", "value", "words"), WITHOUT_EFFECT)
def test_what_has_no_effect_is_accepted_with_a_notice(
    path: str, value: Any, words: str, write_recipe: Write, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_recipe(("set", path, value))
    with caplog.at_level(logging.WARNING, "ppcls"):
        config = load_config(file)
    assert words in caplog.text
    assert "clip_grad" not in config["Optimizer"]


@pytest.mark.parametrize(("path", "value", "place", "words"), REFUSED)
def test_what_is_not_supported_is_refused_with_the_reason(
    path: str, value: Any, place: str, words: str, write_recipe: Write
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(("set", path, value)))
    lines = [line for line in str(caught.value).splitlines() if place in line and words in line]
    assert len(lines) == 1, caught.value
    assert "network" in lines[0] or "SwinTransformer_tiny" not in lines[0]


@pytest.mark.parametrize(
    ("key", "words"), [("ARCHITECTURE", "before version 2.0"), ("search_dict", "hyper-parameters")]
)
def test_a_file_of_another_kind_is_one_mistake(key: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(f"{key}: [{{a: 1}}]\nmode: train\nepochs: 20\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(file)
    assert str(caught.value).startswith("1 mistake")


def test_save_interval_minus_one_writes_no_numbered_checkpoint(write_recipe: Write) -> None:
    config = load_config(write_recipe(("set", "Global.save_interval", -1)))
    assert config["Global"]["keep_last"] == 0
    assert config["Global"]["save_interval"] == 1
    with pytest.raises(ConfigError, match="expected 1 or more, got -2"):
        load_config(write_recipe(("set", "Global.save_interval", -2)))


def test_a_foreign_value_keeps_bool_and_number_apart() -> None:
    zero = Foreign(harmless=(0.0,))
    assert zero.accepts(0)
    assert zero.accepts(None)
    assert not zero.accepts(False)
    assert not Foreign(harmless=(False,)).accepts(0)
    assert not zero.accepts(0.1)


def test_an_option_that_the_component_has_is_its_own() -> None:
    findings = Findings()
    options = {"last_epoch": 3, "verbose": None, "gamma": 1}
    kept = without_foreign("schedule", "Mine", options, {"last_epoch": None}, "Optimizer.lr", findings)
    assert kept == {"last_epoch": 3, "gamma": 1}
    assert not findings.mistakes
    assert without_foreign("schedule", "Mine", options, {}, "Optimizer.lr", findings) == {"gamma": 1}
    assert [mistake.path for mistake in findings.mistakes] == ["Optimizer.lr.last_epoch"]


def test_the_tables_name_what_is_not_there() -> None:
    """An entry for something that was built since would hide it or lie about it."""
    for kind, group in NAMES.items():
        for name in KINDS[kind].registry:
            assert ": " not in str(unknown_name(kind, name, Registry("thing"))), f"{kind} {name} is built"
        assert all(group.values())
    assert {kind for kind, _, _ in OPTIONS} <= set(KINDS)
    for path in KEYS:
        section: Any = Recipe
        *parents, last = path.split(".")
        for step in parents:
            section = fields_of(section)[step][0].metadata["section"]
        assert last not in fields_of(section), path


def test_a_name_that_is_none_of_paddleclas_gets_the_nearest_one() -> None:
    misspelt = unknown_name("loss", "CELos", LOSSES, "Loss.Train.0")
    assert str(misspelt).startswith("Loss.Train.0: unknown loss 'CELos'. Did you mean: CELoss,")
    foreign = unknown_name("sub_network", "AlexNet", BACKBONES)
    assert foreign.text.endswith("the networks there are")


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("loss", "TopkAcc", "unknown loss 'TopkAcc', but there is a metric of this name"),
        ("metric", "Momentum", "unknown metric 'Momentum', but there is an optimizer of this name"),
        ("schedule", "Cosines", "unknown learning-rate schedule 'Cosines'. Did you mean: Cosine"),
    ],
)
def test_a_name_of_another_kind_is_told_from_one_that_nothing_has(kind: str, name: str, says: str) -> None:
    registry = KINDS[kind].registry
    assert unknown_name(kind, name, registry).text.startswith(says)
    with pytest.raises(ConfigError) as caught:
        registry[name]
    assert str(caught.value).startswith(says)
