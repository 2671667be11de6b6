"""Runs with several teachers: their mean, dropped teachers, store, resume, evaluation, export."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from support import distilled

from ppcls.arch import create_model
from ppcls.arch.ensemble import draw_dropped
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.hooks import Hook
from ppcls.errors import ConfigError
from ppcls.weights import read_params

MEAN = {"model_name_pairs": [["Student", "Teachers"]]}
EACH = {"model_name_pairs": [["Student", "A"], ["Student", "B"]], "name": "loss_each"}


@pytest.fixture
def content(recipe, tmp_path):
    """A recipe with two teachers and losses that need no labels from either."""
    content = distilled(
        recipe, DistillationDKDLoss=copy.deepcopy(MEAN), DistillationKLDivLoss=copy.deepcopy(EACH)
    )
    models = [{"Student": {"name": "resnet8"}}]
    for seed, name in enumerate("AB"):
        paddle.seed(seed)
        path = str(tmp_path / f"{name}.pdparams")
        paddle.save(create_model("resnet8", class_num=4).state_dict(), path)
        models.append({name: {"name": "resnet8", "pretrained": path, "frozen_engine": "eager"}})
    content["Arch"] |= {
        "models": models,
        "freeze_params_list": [False, True, True],
        "ensembles": {"Teachers": {"networks": ["A", "B"], "weights": [2, 1]}},
        "teacher_dropping": 0.5,
    }
    content["Global"] |= {"eval_during_train": False, "print_batch_step": 1}
    return content


def weights(folder):
    state = read_params(folder / "DistillationModel" / "latest.pdparams")
    return {name: np.asarray(value) for name, value in state.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


class Watch(Hook):
    """Keeps the values of each step, and stops after some."""

    def __init__(self, steps=None):
        self.steps = steps
        self.values = []

    def after_step(self, run, batch):
        self.values.append(run.read())
        if run.progress.step == self.steps:
            run.stop_signal = 15


def test_stopping_and_a_store_change_nothing(content, write_recipe, tmp_path):
    def run(name, *overrides, hooks=()):
        config = load_config(
            write_recipe(content), [f"Global.output_dir={tmp_path}/{name}", *overrides], "train"
        )
        Engine(config, "train").train(hooks)
        return weights(tmp_path / name)

    watch = Watch()
    whole = run("whole", hooks=[watch])
    for step, values in enumerate(watch.values):
        dropped = draw_dropped(["A", "B"], 0.5, content["Global"]["seed"], step)
        assert {name for name in "AB" if values[f"loss_each_Student_{name}"] == 0} == dropped
        assert values["loss_dkd_Student_Teachers"] > 0
    assert {bool(values["loss_each_Student_A"]) for values in watch.values} == {True, False}
    content["TeacherStore"] = {"path": str(tmp_path / "store"), "precision": "float32"}
    with pytest.raises(SystemExit):
        run("parts", hooks=[Watch(4)])
    assert_same(whole, run("parts", f"Global.checkpoints={tmp_path}/parts/DistillationModel/latest"))
    for name in "AB":
        (tmp_path / f"{name}.pdparams").unlink()
    assert_same(whole, run("stored"))


def test_evaluation_and_the_network_to_deploy(content, write_recipe):
    content["Global"] |= {"eval_during_train": True, "epochs": 1}
    content["Metric"]["Eval"].append({"DistillationTopkAcc": {"model_key": "Teachers", "topk": [1]}})
    path = write_recipe(content)
    found = Engine(load_config(path, [], "train"), "train").train()
    for name in ("A", "B", "Teachers"):
        assert 0 <= found[f"agreement_{name}"] <= 1
        assert found[f"kl_{name}"] > 0
    folder = Path(content["Global"]["output_dir"]) / "DistillationModel"
    teacher = next(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert {"top1_A", "top1_B", "top1_Teachers"} <= teacher.keys()
    assert "Teachers (mean of A, B)" in (folder / "train.log").read_text()
    best = [f"Global.pretrained_model={folder}/best_model"]
    again = Engine(load_config(path, best, "eval"), "eval").eval()
    assert again["top1"] == pytest.approx(found["top1"])
    assert Engine(load_config(path, best, "export"), "export").model.names == ["Student"]


def test_a_teacher_alone_does_not_need_the_ensemble(content, write_recipe):
    config = load_config(write_recipe(content), [], "train")
    arch = config.arch
    assert arch.ensembles == {"Teachers": ["A", "B"]}
    assert arch.members(["Student", "Teachers"]) == {"Student", "A", "B"}
    assert "ensembles" not in arch.only(["Student", "A"]).options
    kept = arch.only(["Student", "Teachers"])
    assert kept.names == ["Student", "A", "B"]
    assert "teacher_dropping" not in kept.options
    assert kept.ensembles == arch.ensembles


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"Teachers": {"networks": ["A", "C"]}}, r"Arch.ensembles.Teachers.networks.1.*no network 'C'"),
        ({"Teachers": {"networks": ["A", "B"], "weights": [1]}}, "1 numbers for 2 networks"),
        ({"Teacher": {"networks": ["A", "B"]}}, "no network 'Teachers'"),
    ],
)
def test_validation_names_the_mistake(content, write_recipe, change, text):
    content["Arch"]["ensembles"] = change
    with pytest.raises(ConfigError, match=text):
        load_config(write_recipe(content), [], "train")


def test_a_wrong_ensemble_is_one_mistake(content, write_recipe):
    """The losses that name it are right."""
    content["Arch"]["ensembles"]["Teachers"]["weights"] = [1, -1]
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(content), [], "train")
    assert "weights: got [1, -1], expected numbers above 0" in str(caught.value)
    assert "no network" not in str(caught.value)


def test_validation_compares_the_classes_of_the_teachers(content, write_recipe):
    content["Arch"]["models"][1]["A"]["class_num"] = 7
    with pytest.raises(ConfigError, match=r"classes differ \(A has 7, B has 4\); give class_maps"):
        load_config(write_recipe(content), [], "train")
