"""Runs whose teacher uses an engine: the same results, exact resume, each evaluation image computed once."""

from __future__ import annotations

import copy
import json

import numpy as np
import paddle
import pytest
from support import KL, distilled, slow_unless, train

from ppcls.arch.distillation import NetworkGroup
from ppcls.config import load_config
from ppcls.data import Batch
from ppcls.engine import Engine
from ppcls.engine.checkpoint import Checkpointer
from ppcls.engine.hooks import Hook
from ppcls.engine.start.build_run import _may_use_programs
from ppcls.engine.train import StopRequested
from ppcls.teacher import KnownLogits
from ppcls.teacher import answer as answer_module
from ppcls.teacher import logits as logits_module
from ppcls.weights import read_params

INFERENCE = "Arch.models.0.Teacher.frozen_engine=paddle_inference"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))


@pytest.fixture
def path(recipe, write_recipe, tmp_path):
    """A distillation with a teacher whose weights are in a file."""
    paddle.seed(5)
    from ppcls.arch import create_model

    teacher = create_model("resnet14", class_num=4)
    paddle.save(teacher.state_dict(), str(tmp_path / "teacher.pdparams"))
    content = distilled(copy.deepcopy(recipe), **KL)
    content["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher.pdparams")
    content["Global"]["save_steps"] = 1
    return write_recipe(content)


def run(path, tmp_path, name, *overrides):
    assert train(path, f"Global.output_dir={tmp_path}/{name}", *overrides) == 0
    return tmp_path / name / "DistillationModel"


def weights(folder, tag="latest"):
    return {name: np.asarray(value) for name, value in read_params(folder / f"{tag}.pdparams").items()}


def states(folder):
    return json.loads((folder / "latest.pdstates").read_text())


def test_steps_with_an_engine_give_the_weights_of_eager_steps(path, tmp_path):
    # A network of random weights on a few images amplifies rounding quickly, so steps are small.
    small = "Optimizer.lr.learning_rate=0.001"
    longer = ("Global.epochs=7", "Global.eval_during_train=false", small)  # 21 steps
    own = run(path, tmp_path, "own", *longer)
    theirs = run(path, tmp_path, "theirs", INFERENCE, *longer)
    assert states(own)["step"] == states(theirs)["step"] == 21
    assert states(theirs)["engines"]["Teacher"]["used"] == "paddle_inference/float32"
    first, second = weights(own), weights(theirs)
    assert first.keys() == second.keys()
    differing = 0
    for name, value in first.items():
        # By the norm: single weights near zero differ more, in some runs.
        difference = np.linalg.norm(second[name] - value)
        assert difference < 1e-3 * np.linalg.norm(value) + 1e-4 * value.size**0.5, name
        differing += int((second[name] != value).any())
    assert differing  # the engine was really used


class StopAfter(Hook):
    """End a run as a signal does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def after_step(self, run, batch):
        self.left -= 1
        if not self.left:
            raise StopRequested(15)


def test_interrupted_run_goes_on_exactly(path, tmp_path):
    whole = run(path, tmp_path, "whole", INFERENCE)
    engine = Engine(load_config(path, [f"Global.output_dir={tmp_path}/parts", INFERENCE]), "train")
    with pytest.raises(SystemExit):
        engine.train(hooks=[StopAfter(4)])
    parts = run(path, tmp_path, "parts", INFERENCE, "Global.checkpoints=auto")
    assert states(parts)["engines"] == states(whole)["engines"]
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(parts)[name], value, err_msg=name)


def test_checkpoint_says_which_engine_was_used(path, tmp_path):
    assert states(run(path, tmp_path, "auto"))["engines"] == {
        "Teacher": {"asked": "auto/float32", "used": "eager"},
        "": {"asked": "auto", "used": "auto"},
    }


@pytest.mark.slow
def test_evaluations_of_a_network_that_trains_as_a_program_change_nothing(path, tmp_path, monkeypatch):
    """Programs are made in the middle of training; weights are the same, and so are accuracies."""
    more = ["EMA.decay=0.5"]
    own = run(path, tmp_path, "own", "Arch.models.1.Student.frozen_engine=eager", *more)
    asked = []
    monkeypatch.setattr(
        answer_module, "pays", lambda network, shape, images: asked.append(images) or images > 5
    )
    theirs = run(path, tmp_path, "theirs", "Arch.models.0.Teacher.frozen_engine=eager", *more)
    assert asked.count(6) == 4  # two evaluations, each of the weights and of their averages
    for name, value in weights(own).items():
        np.testing.assert_array_equal(weights(theirs)[name], value, err_msg=name)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (own, theirs)
    ]
    first, second = ([row for row in each if row["kind"] == "eval"] for each in rows)
    assert len(first) == len(second) == 2
    for old, new in zip(first, second, strict=True):
        assert old.keys() == new.keys()
        for name in (name for name in old if name.startswith(("top", "CELoss", "loss", "agreement"))):
            assert new[name] == pytest.approx(old[name], rel=1e-4), name


def test_run_of_an_earlier_version_is_evaluated_as_before(path, tmp_path):
    checkpoint = Checkpointer(run(path, tmp_path, "output", "Global.epochs=1")).load("latest")
    assert _may_use_programs(checkpoint)
    checkpoint.progress.engines = {}
    assert not _may_use_programs(checkpoint)
    assert _may_use_programs(None)


def test_engines_are_removed_after_training(path, tmp_path):
    engine = Engine(load_config(path, [f"Global.output_dir={tmp_path}/output", INFERENCE]), "train")
    engine.train()
    assert isinstance(engine.model, NetworkGroup)
    assert engine.model._answers == {}


@pytest.mark.parametrize("mode", slow_unless(lambda mode: mode == "eval", ["eval", "infer"]))
def test_evaluation_and_inference_go_through_an_engine_that_is_asked_for(path, tmp_path, mode, capsys):
    folder = run(path, tmp_path, "output")
    found = {}
    for engine in ("eager", "paddle_inference"):
        overrides = [f"Global.pretrained_model={folder}/best_model", f"Arch.frozen_engine={engine}"]
        overrides += [
            "Arch.frozen_precision=bfloat16"
        ]  # of teachers; a student is evaluated as it was trained
        capsys.readouterr()
        found[engine] = getattr(Engine(load_config(path, overrides, mode), mode), mode)()
        printed = capsys.readouterr().out
        assert ("Student runs through Paddle Inference in float32" in printed) == (engine != "eager")
    if mode == "eval":
        assert found["eager"] == pytest.approx(found["paddle_inference"], abs=1e-4)
    else:
        names = [[row["class_ids"] for row in rows] for rows in found.values()]
        assert names[0] == names[1]


# ---------------------------------------------------------------- logits of evaluations


def batch_of(*index):
    """Return a batch of evaluation whose images are their numbers."""
    return Batch(np.array(index, np.float32)[:, None], np.zeros((len(index), 1), np.int64), np.array(index))


def network(asked, **more):
    def run(image):
        asked.append(image.shape[0])
        logits = paddle.concat([image, image * 2], 1)
        return {"logits": logits, **more} if more else logits

    return run


def test_logits_of_an_image_are_computed_once():
    asked, known = [], KnownLogits(5)
    for _ in range(3):
        for batch in (batch_of(0, 1, 2), batch_of(3, 4)):
            found = known.ask("Teacher", batch, network(asked))
            assert (found.numpy() == np.stack([batch.index, batch.index * 2], 1)).all()
    assert asked == [3, 2]
    known.ask("Other", batch_of(0, 1), network(asked))
    assert asked == [3, 2, 2]


def test_map_of_features_comes_back_as_its_logits():
    asked, known = [], KnownLogits(2)
    whole = known.ask("Teacher", batch_of(0, 1), network(asked, feature=paddle.zeros([2, 3])))
    again = known.ask("Teacher", batch_of(0, 1), network(asked, feature=paddle.zeros([2, 3])))
    assert list(whole) == ["logits", "feature"]
    assert list(again) == ["logits"]
    assert (again["logits"] == whole["logits"]).all()


def test_too_many_logits_are_computed_again(monkeypatch):
    monkeypatch.setattr(logits_module, "MOST_BYTES", 8)
    asked, known = [], KnownLogits(2)
    for _ in range(2):
        known.ask("Teacher", batch_of(0, 1), network(asked))
    assert asked == [2, 2]


def test_losses_of_evaluation_that_need_features_get_them(recipe, write_recipe, tmp_path):
    """The teacher's features are needed, so it is asked in every evaluation."""
    recipe = distilled(recipe, **KL)
    for entry in recipe["Arch"]["models"]:
        for node in entry.values():
            node["return_stages"] = [2]
    pair = {"model_name_pairs": [["Student", "Teacher"]], "student_channels": 64, "teacher_channels": 64}
    recipe["Loss"]["Eval"] = [
        {
            "DistillationDistanceLoss": {
                "mode": "l2",
                "model_name_pairs": pair["model_name_pairs"],
                "key": "blocks[2]",
            }
        }
    ]
    recipe["Arch"]["models"][0]["Teacher"]["return_patterns"] = ["blocks[2]"]
    recipe["Arch"]["models"][1]["Student"]["return_patterns"] = ["blocks[2]"]
    recipe["Arch"]["models"][0]["Teacher"]["name"] = "resnet8"
    assert train(write_recipe(recipe)) == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / "output/DistillationModel/metrics.jsonl").read_text().splitlines()
    ]
    assert sum(row["kind"] == "eval" for row in rows) == 2
