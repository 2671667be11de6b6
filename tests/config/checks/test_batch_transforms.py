"""Batch transforms in recipes: names, numbers, classes, and losses that need one class for an image."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import distilled

from ppcls.config import load_config
from ppcls.errors import ConfigError

PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
OPS = "DataLoader.Train.dataset.batch_transform_ops"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe and returns its path."""

    def write(content: dict) -> Path:
        path = tmp_path / "mixed.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def mix(recipe: dict, *ops: dict, part: str = "Train") -> dict:
    recipe["DataLoader"][part]["dataset"]["batch_transform_ops"] = list(ops)
    return recipe


def mistakes(path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_as_paddleclas_writes_it(recipe, write):
    mixup, cutmix = {"alpha": 0.2, "prob": "1.0/2.0"}, {"alpha": 1.0, "prob": 0.5}
    mix(recipe, {"OpSampler": {"MixupOperator": mixup, "CutmixOperator": cutmix}})
    config = load_config(write(recipe))
    ops = config["DataLoader"]["Train"]["dataset"]["batch_transform_ops"]
    assert ops[0]["OpSampler"]["MixupOperator"]["prob"] == 0.5


@pytest.mark.parametrize(
    ("op", "lines"),
    [
        ({"MixupOperatr": {}}, [f"{OPS}.0: unknown batch transform 'MixupOperatr'. Did you mean: Mixup"]),
        ({"MixupOperator": {"alpha": -0.2}}, [f"{OPS}.0.MixupOperator.alpha: expected a number above 0"]),
        ({"CutmixOperator": {"prob": 1}}, [f"{OPS}.0: CutmixOperator has no option 'prob'. It has: alpha"]),
        ({"MixupOperator": {"class_num": 7}}, [f"{OPS}.0.MixupOperator.class_num: 7, but resnet8"]),
        ({"OpSampler": None}, [f"{OPS}.0: OpSampler: no transform to choose from"]),
        (
            {"OpSampler": {"MixupOp": {"prob": 0.5}, "CutmixOperator": {"prob": 0.5, "alfa": 1}}},
            [
                f"{OPS}.0.OpSampler: CutmixOperator has no option 'alfa'. Did you mean: alpha",
                f"{OPS}.0.OpSampler: unknown batch transform 'MixupOp'. Did you mean: MixupOperator",
            ],
        ),
        (
            {"OpSampler": {"MixupOperator": {"prob": "x"}, "CutmixOperator": {"prob": 0.5, "alpha": 0}}},
            [
                f"{OPS}.0.OpSampler.MixupOperator.prob: expected a number, got 'x'",
                f"{OPS}.0.OpSampler.CutmixOperator.alpha: expected a number above 0",
            ],
        ),
        (
            {"OpSampler": {"MixupOperator": {"prob": 0.7}, "CutmixOperator": {"prob": 0.5}}},
            ["the probabilities (prob) sum to 1.2, expected at most 1"],
        ),
        (
            {"OpSampler": {"MixupOperator": None}},
            [f"{OPS}.0.OpSampler.MixupOperator: needs the option 'prob'"],
        ),
        (
            {"OpSampler": {"class_num": 3, "MixupOperator": {"prob": 0.7}}},
            [f"{OPS}.0.OpSampler.class_num: 3, but resnet8 (Arch) has 4 classes"],
        ),
    ],
)
def test_mistakes_stand_where_they_are(recipe, write, op, lines):
    text = mistakes(write(mix(recipe, op)))
    for line in lines:
        assert line in text
    assert text.startswith(f"{len(lines)} mistake")


def test_evaluation_is_not_mixed(recipe, write):
    text = mistakes(write(mix(recipe, {"MixupOperator": {}}, part="Eval")))
    assert "DataLoader.Eval.dataset.batch_transform_ops: evaluation looks at the images as they are" in text


def test_losses_that_need_a_class_are_refused_with_the_reason(recipe, write):
    mix(distilled(recipe, DistillationWSLLoss=PAIRS, DistillationDKDLoss=PAIRS), {"MixupOperator": {}})
    text = mistakes(write(recipe))
    assert text.startswith("1 mistake")
    assert f"Loss.Train.1.DistillationDKDLoss: needs class indices, but {OPS} makes probabilities" in text
    assert "one target and the others; use_target_as_gt: True needs no labels" in text
    recipe["Loss"]["Train"][1]["DistillationDKDLoss"] = {**PAIRS, "use_target_as_gt": True}
    load_config(write(recipe))
    del recipe["DataLoader"]["Train"]["dataset"]["batch_transform_ops"]
    recipe["Loss"]["Train"][1]["DistillationDKDLoss"] = PAIRS
    load_config(write(recipe))
