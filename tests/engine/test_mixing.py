"""Training on mixed batches: soft labels through every part of a distillation run, and an exact resume."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from support import distilled

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.hooks import Hook
from ppcls.weights import read_params

PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
LOSSES = {
    "DistillationGTCELoss": {"model_names": ["Student"], "epsilon": 0.1},
    "DistillationKLDivLoss": PAIRS,
    "DistillationWSLLoss": PAIRS,
    "DistillationDKDLoss": {**PAIRS, "use_target_as_gt": True},
}
MIXING = {"OpSampler": {"MixupOperator": {"alpha": 0.8, "prob": 0.5}, "CutmixOperator": {"prob": 0.4}}}


class Watch(Hook):
    """Keeps what the networks are given, and ends the run after some steps, as Ctrl-C does."""

    def __init__(self, stop_at=None):
        self.stop_at, self.seen = stop_at, {"Teacher": [], "Student": []}

    def before_train(self, run):
        for name, kept in self.seen.items():
            run.parts.model.network(name).register_forward_pre_hook(
                lambda layer, inputs, kept=kept: (
                    kept.append(inputs[0].numpy()) if run.parts.model.training else None
                )
            )

    def after_step(self, run, batch):
        assert batch.label.dtype == np.float32
        assert batch.label.shape == (len(batch.index), 4)
        if run.progress.step == self.stop_at:
            run.stop_signal = 2


@pytest.fixture
def train(recipe, write_recipe, tmp_path):
    recipe = distilled(recipe, **LOSSES)
    data = recipe["DataLoader"]["Train"]["dataset"]
    data["batch_transform_ops"] = [MIXING]
    data["transform_ops"][1:1] = [{"TimmAutoAugment": {"img_size": 32}}]
    data["transform_ops"].append({"RandomErasing": {"mode": "pixel", "sh": "1.0/3.0"}})
    recipe["Global"]["eval_during_train"] = False
    path = write_recipe(recipe)

    def run(name, watch, *overrides):
        config = load_config(path, [f"Global.output_dir={tmp_path / name}", *overrides])
        Engine(config, "train").train(hooks=[watch])

    return run


def test_mixed_runs_go_on_exactly(train, tmp_path):
    whole = Watch()
    train("whole", whole)
    assert len(whole.seen["Student"]) == 6
    for teacher, student in zip(*whole.seen.values(), strict=True):
        np.testing.assert_array_equal(teacher, student)  # both see the mixed images
    with pytest.raises(SystemExit):
        train("cut", Watch(stop_at=4))
    paddle.seed(99)
    train("cut", Watch(), f"Global.checkpoints={tmp_path}/cut/DistillationModel/latest")
    first, second = (
        read_params(tmp_path / d / "DistillationModel/latest.pdparams") for d in ("whole", "cut")
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    rows = (tmp_path / "whole/DistillationModel/metrics.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        if row["kind"] == "train":
            assert 0 <= row["top1"] <= row["top2"] <= 1
            assert np.isfinite(row["loss"])
