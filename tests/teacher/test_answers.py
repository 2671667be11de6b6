"""Frozen networks that answer through engines: the same outputs, or the network itself with a reason."""

from __future__ import annotations

import copy
import json
import logging

import numpy as np
import paddle
import pytest
from paddle import nn
from support import slow_unless

from ppcls.arch import build_model, create_model
from ppcls.arch.answering import Answering
from ppcls.errors import ConfigError
from ppcls.teacher import Answer, Choice, answer_frozen
from ppcls.teacher import agreement as agreement_module
from ppcls.teacher import answer as answer_module
from ppcls.teacher import cost as cost_module
from ppcls.teacher.agreement import FLOAT32, compare
from ppcls.teacher.program import can_convert

FEW = 10**9  # so many images that a program pays

FAMILIES = {
    "resnet8": {"return_stages": True, "return_patterns": ["fc"], "shortcut": "A"},
    "wrn_16_1": {"return_stages": True},
    "PPLCNet_x0_25": {"return_stages": True},
    "MobileNetV1_x0_25": {"return_stages": True},
    "MobileNetV2_x0_25": {"return_stages": True},
    "MobileNetV3_small_x0_35": {"return_stages": [1, 2]},
    "ShuffleNetV2_x0_25": {"return_stages": True},
    "MobileNetV4_conv_small": {"return_stages": True},
    "GhostNet_x0_5": {"return_stages": True},
    "DeiT_tiny_patch16_224": {"return_patterns": ["blocks[1]"]},
}
QUICK = ("resnet8", "PPLCNet_x0_25")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))


def programs(tmp_path):
    return [path for path in (tmp_path / "home" / "programs").glob("*") if path.is_dir()]


def images(size=32, count=4, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype(np.float32)
    return paddle.to_tensor(values)


def pair(teacher=None, student=None, **arch):
    node = {
        "name": "DistillationModel",
        "class_num": 10,
        "freeze_params_list": [True, False],
        "models": [
            {"Teacher": {"name": "resnet14", **(teacher or {})}},
            {"Student": {"name": "resnet8", **(student or {})}},
        ],
        **arch,
    }
    model = build_model(node, normalize={"mean": [0.5] * 3, "std": [0.25] * 3})
    model.train()
    return model


def outputs(value):
    return value if isinstance(value, dict) else {"logits": value}


def differences(found, expected):
    found, expected = outputs(found), outputs(expected)
    assert list(found) == list(expected)
    return {
        key: float((found[key] - expected[key]).abs().max() / expected[key].abs().max().clip(min=1e-30))
        for key in expected
    }


def normalise_like_a_trained_one(network, x):
    """Give BatchNorm the statistics of a batch; with those of a new network, rounding grows."""
    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0
    network.train()
    with paddle.no_grad():
        network(x)
    network.eval()


@pytest.mark.parametrize("name", slow_unless(lambda name: name in QUICK, FAMILIES))
def test_engine_gives_the_features_that_hooks_give(name):
    size = 224 if "224" in name else 32
    network = create_model(name, class_num=10, **FAMILIES[name])
    normalise_like_a_trained_one(network, images(size, count=8, seed=2))
    answer = Answer(network, name, Answering("paddle_inference"), FEW)
    with paddle.no_grad():
        answer(images(size, count=2))
        found, expected = (ask(images(size, count=3, seed=1)) for ask in (answer, network))
    assert answer.choice.used == "paddle_inference/float32"
    assert len(outputs(expected)) > 1
    assert 0 < max(differences(found, expected).values()) < FLOAT32


@pytest.mark.parametrize(
    "engine", slow_unless(lambda name: name == "paddle_inference", ["paddle_inference", "onnxruntime"])
)
def test_frozen_teacher_answers_through_the_engine_asked_for(engine, caplog):
    if engine == "onnxruntime":
        pytest.importorskip("paddle2onnx")
        pytest.importorskip("onnxruntime")
    caplog.set_level(logging.INFO, "ppcls")
    model = pair({"frozen_engine": engine, "return_stages": True})
    expected = model(images())["Teacher"]
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    found = model(images())["Teacher"]
    assert answer.choice == Choice(f"{engine}/float32", f"{engine}/float32")
    assert 0 < max(differences(found, expected).values()) < FLOAT32
    assert "Teacher runs through" in caplog.text
    assert all(value.stop_gradient for value in found.values())


def test_own_preprocessing_of_a_teacher_is_part_of_its_program():
    model = pair({"frozen_engine": "paddle_inference", "mean": [0.4] * 3, "std": [0.2] * 3, "input_size": 24})
    expected = model(images())["Teacher"]
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    found = model(images())["Teacher"]
    assert answer.choice.used == "paddle_inference/float32"
    assert max(differences(found, expected).values()) < FLOAT32


def test_settings_of_arch_are_those_of_networks_without_their_own():
    model = pair(frozen_engine="paddle_inference", frozen_precision="bfloat16")
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    assert answer.choice.asked == "paddle_inference/bfloat16"
    model = pair({"frozen_engine": "eager"}, frozen_engine="paddle_inference")
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    model(images())
    assert answer.choice == Choice("eager/float32", "eager")


def test_unknown_engine_is_refused_with_its_path():
    with pytest.raises(
        ConfigError, match=r"models\.0\.Teacher: frozen_engine: 'paddle_infer'.*paddle_inference"
    ):
        pair({"frozen_engine": "paddle_infer"})


def test_several_teachers_and_chains_each_answer_through_their_own_engine():
    chain = {
        "name": "AttentionModel",
        "freeze_params_list": [True, False],
        "models": [
            {"net": {"name": "resnet14", "return_stages": True, "frozen_engine": "paddle_inference"}},
            {"tail": {"name": "LinearTransformTeacher", "qk_dim": 8}},
        ],
    }
    model = build_model(
        {
            "name": "DistillationModel",
            "class_num": 10,
            "freeze_params_list": [False, True, False],
            "models": [
                {"Teacher": chain},
                {"Other": {"name": "resnet8", "frozen_engine": "eager"}},
                {"Student": {"name": "resnet8"}},
            ],
        }
    )
    model.prepare([3, 32, 32])
    model.eval()
    expected = model(images())["Teacher"]
    answers = answer_frozen(model, (3, 32, 32), 1)
    found = model(images())["Teacher"]
    assert {name: answer.choice.used for name, answer in answers.items()} == {
        "Teacher.net": "paddle_inference/float32",
        "Other": "eager",
    }
    assert {"query", "value"} <= set(found)
    numbers = ("logits", "query")
    assert (
        max(differences({k: found[k] for k in numbers}, {k: expected[k] for k in numbers}).values()) < FLOAT32
    )


def test_teacher_in_train_mode_answers_by_itself(caplog):
    caplog.set_level(logging.INFO, "ppcls")
    model = pair({"frozen_engine": "paddle_inference"}, frozen_mode="train")
    assert answer_frozen(model, (3, 32, 32), FEW) == {}
    assert "frozen_mode: train" in caplog.text


def test_images_of_another_size_are_answered_too(tmp_path):
    model = pair({"frozen_engine": "paddle_inference"})
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    for size in (32, 40, 48, 32):
        expected = model.Teacher(images(size))
        assert max(differences(model(images(size))["Teacher"], expected).values()) < FLOAT32
    assert len(programs(tmp_path)) == 2  # one for the first size, one for all others


def test_bfloat16_stays_within_its_bounds_or_the_network_answers():
    model = pair({"frozen_engine": "paddle_inference", "frozen_precision": "bfloat16"})
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    expected, found = model.Teacher(images()), model(images())["Teacher"]
    if answer.choice.used == "eager":
        assert (found == expected).all()
    else:
        assert 0 < max(differences(found, expected).values()) < 0.1


def test_free_choice_falls_back_from_bfloat16_to_float32(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "ppcls")
    monkeypatch.setattr(agreement_module, "FEATURES", 0.0)
    model = pair(frozen_precision="bfloat16")
    (answer,) = answer_frozen(model, (3, 32, 32), FEW).values()
    expected, found = model.Teacher(images()), model(images())["Teacher"]
    assert answer.choice == Choice("auto/bfloat16", "paddle_inference/float32")
    assert 0 < max(differences(found, expected).values()) < FLOAT32
    assert "Teacher does not run in bfloat16" in caplog.text
    earlier = {"Teacher": answer.choice}
    monkeypatch.undo()
    model = pair(frozen_precision="bfloat16")
    (again,) = answer_frozen(model, (3, 32, 32), FEW, earlier).values()
    model(images())
    assert again.choice == answer.choice


def test_engine_that_was_asked_for_gives_way_to_the_network_itself(monkeypatch, caplog):
    monkeypatch.setattr(agreement_module, "FEATURES", 0.0)
    model = pair({"frozen_engine": "paddle_inference", "frozen_precision": "bfloat16"})
    (answer,) = answer_frozen(model, (3, 32, 32), FEW).values()
    assert (model(images())["Teacher"] == model.Teacher(images())).all()
    assert answer.choice.used == "eager"
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # a setting that was not followed


@pytest.mark.parametrize("where", ["Arch", "Teacher", "both"])
def test_precision_that_an_engine_lacks_is_refused(where):
    engine, precision = {"frozen_engine": "onnxruntime"}, {"frozen_precision": "bfloat16"}
    own, arch = {"Arch": ({}, {**engine, **precision}), "Teacher": ({**engine, **precision}, {})}.get(
        where, (engine, precision)
    )
    with pytest.raises(ConfigError, match="frozen_engine of Teacher: onnxruntime, which has only float32"):
        answer_frozen(pair(own, **arch), (3, 32, 32), 1)


def test_resumed_run_that_loses_its_engine_says_so(monkeypatch, caplog):
    monkeypatch.setattr(agreement_module, "FLOAT32", 0.0)
    assert resumed("paddle_inference/float32") == "eager"
    assert "not bit by bit" in caplog.text


class Unlike(nn.Layer):
    """Gives another answer at every call."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 4)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.fc(x.flatten(1)) * self.calls


class Untraceable(nn.Layer):
    """Looks at values, which a program does not have."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.fc(paddle.to_tensor(np.sort(np.asarray(x), 0)).flatten(1))


@pytest.mark.parametrize(("network", "reason"), [(Unlike, "differs by"), (Untraceable, "cannot be traced")])
def test_what_has_no_program_or_disagrees_answers_by_itself_with_a_reason(network, reason, caplog):
    caplog.set_level(logging.INFO, "ppcls")
    layer = network()
    layer.eval()
    answer = Answer(layer, "Teacher", Answering("paddle_inference"), FEW)
    answer(images(8))
    assert answer.choice.used == "eager"
    assert "Teacher runs without an engine" in caplog.text
    assert reason in caplog.text
    lines = caplog.text.count("runs without an engine")
    answer(images(8))
    answer(images(8))
    assert caplog.text.count("runs without an engine") == lines


def test_automatic_choice_leaves_short_runs_alone(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "ppcls")
    model = pair()
    (answer,) = answer_frozen(model, (3, 32, 32), 2000).values()
    model(images())
    assert answer.choice == Choice("auto/float32", "eager")
    assert "save less time" in caplog.text
    assert not programs(tmp_path)


def test_automatic_choice_takes_an_engine_for_long_runs():
    model = pair()
    (answer,) = answer_frozen(model, (3, 32, 32), FEW).values()
    model(images())
    assert answer.choice == Choice("auto/float32", "paddle_inference/float32")


def test_cost_grows_with_the_network_and_gain_with_images():
    small, large = create_model("resnet8"), create_model("resnet56")
    small.eval()
    large.eval()
    assert cost_module.seconds_to_make(small) < cost_module.seconds_to_make(large)
    assert not cost_module.pays(large, (3, 32, 32), 999)
    assert not cost_module.pays(large, (3, 32, 32), 2000)
    assert cost_module.pays(large, (3, 32, 32), 10**6)
    assert not any(layer._forward_post_hooks for layer in large.sublayers())


def resumed(used, asked="auto/float32", **teacher):
    model = pair(teacher)
    (answer,) = answer_frozen(model, (3, 32, 32), FEW, {"Teacher": Choice(asked, used)}).values()
    model(images())
    return answer.choice.used


def test_resumed_run_keeps_the_engine_it_was_started_with():
    assert resumed("eager") == "eager"
    assert resumed("paddle_inference/float32") == "paddle_inference/float32"


def test_resumed_run_keeps_its_engine_where_a_new_one_would_not_choose_it():
    model = pair()
    earlier = {"Teacher": Choice("auto/float32", "paddle_inference/float32")}
    (answer,) = answer_frozen(model, (3, 32, 32), 10, earlier).values()
    model(images())
    assert answer.choice.used == "paddle_inference/float32"


def test_run_of_an_earlier_version_goes_on_by_itself_unless_an_engine_is_asked_for():
    model = pair()
    (answer,) = answer_frozen(model, (3, 32, 32), FEW, {}).values()
    model(images())
    assert answer.choice.used == "eager"
    model = pair({"frozen_engine": "paddle_inference"})
    (answer,) = answer_frozen(model, (3, 32, 32), FEW, {}).values()
    model(images())
    assert answer.choice.used == "paddle_inference/float32"


def test_changed_setting_counts_when_a_run_is_resumed():
    assert resumed("paddle_inference/float32", frozen_engine="eager") == "eager"
    assert resumed("eager", frozen_engine="paddle_inference") == "paddle_inference/float32"


def test_copy_of_a_model_answers_like_the_model():
    model = pair({"frozen_engine": "paddle_inference"})
    answer_frozen(model, (3, 32, 32), 1)
    expected = model(images())["Teacher"]
    twin = copy.deepcopy(model)
    assert max(differences(twin(images())["Teacher"], expected).values()) < FLOAT32


def test_file_as_a_teacher_keeps_its_own_engine(tmp_path):
    from ppcls.engine.export import export_network

    network = create_model("resnet8", class_num=10)
    export_network(network, tmp_path / "exported", (3, 32, 32), softmax=False)
    file = {"name": "PaddleInferenceModel", "path": str(tmp_path / "exported")}

    def build(**options):
        return build_model(
            {
                "name": "DistillationModel",
                "freeze_params_list": [True, False],
                "models": [
                    {"Teacher": {**file, **options}},
                    {"Student": {"name": "resnet8", "class_num": 10}},
                ],
            }
        )

    with pytest.raises(ConfigError, match="frozen_engine of Teacher: eager.*leave this option out"):
        answer_frozen(build(frozen_engine="eager"), (3, 32, 32), FEW)
    model = build(frozen_precision="bfloat16")
    (answer,) = answer_frozen(model, (3, 32, 32), 1).values()
    expected, found = model.Teacher(images()), model(images())["Teacher"]
    network.eval()
    assert max(differences(expected, network(images())).values()) < FLOAT32
    assert max(differences(found, expected).values()) < 0.1
    assert answer.choice.asked == "auto/bfloat16"


def test_agreement_knows_values_that_are_no_numbers_and_other_shapes():
    ones = paddle.ones([4, 3])
    assert not compare(ones, ones, "float32").problem
    assert compare(ones * float("nan"), ones, "float32").problem
    assert compare(ones * float("nan"), ones, "bfloat16").problem
    assert compare(paddle.ones([4, 2]), ones, "float32").problem
    assert compare({"logits": ones}, {"logits": ones, "a": ones * 2}, "float32").problem
    turned = paddle.to_tensor(np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 9)
    assert compare(turned.roll(1, 1), turned, "bfloat16").problem
    assert not compare(turned * 1.001, turned, "bfloat16").problem
    assert compare(turned * 1.001, turned, "float32").problem


def test_layout_beside_a_program_is_json(tmp_path):
    model = pair({"frozen_engine": "paddle_inference", "return_patterns": ["fc", "blocks[0]"]})
    answer_frozen(model, (3, 32, 32), 1)
    (folder,) = programs(tmp_path)
    layout = json.loads((folder / "layout.json").read_text())
    assert layout == {"map": {"logits": 0, "fc": 0, "blocks[0]": 1}}


@pytest.mark.parametrize(("images_to_come", "tried"), [(FEW, True), (200_000, False)])
def test_free_choice_converts_a_program_only_where_it_pays(images_to_come, tried, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "ppcls")
    monkeypatch.setattr(answer_module, "can_convert", lambda: True)
    write = answer_module.write_program
    asked = []

    def refuse_onnx(network, images, folder, *, onnx):
        asked.append(onnx)
        if onnx:
            raise ConfigError("paddle2onnx cannot convert it")
        write(network, images, folder)

    monkeypatch.setattr(answer_module, "write_program", refuse_onnx)
    model = pair()
    (answer,) = answer_frozen(model, (3, 32, 32), images_to_come).values()
    expected, found = model.Teacher(images()), model(images())["Teacher"]
    assert asked == ([True, False] if tried else [False])
    assert ("Teacher does not run through ONNX Runtime: paddle2onnx cannot" in caplog.text) == tried
    assert answer.choice == Choice("auto/float32", "paddle_inference/float32")
    assert 0 < max(differences(found, expected).values()) < FLOAT32


@pytest.mark.parametrize("engine", ["onnxruntime", "paddle_inference"])
def test_a_resumed_run_keeps_the_engine_of_a_free_choice(engine, monkeypatch):
    monkeypatch.setattr(answer_module, "can_convert", lambda: engine != "onnxruntime")
    model = pair()
    earlier = {"Teacher": Choice("auto/float32", f"{engine}/float32")}
    monkeypatch.setattr(Answer, "_open", lambda self, *a, **k: (self.network, False))
    (answer,) = answer_frozen(model, (3, 32, 32), FEW, earlier).values()
    model(images())
    assert answer.choice == earlier["Teacher"]


@pytest.mark.slow
def test_free_choice_runs_long_trainings_through_onnx_runtime(monkeypatch, caplog):
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("onnxruntime")
    caplog.set_level(logging.INFO, "ppcls")
    monkeypatch.setattr(answer_module, "can_convert", can_convert)
    model = pair({"return_stages": True})
    (answer,) = answer_frozen(model, (3, 32, 32), FEW).values()
    expected, found = model.Teacher(images()), model(images())["Teacher"]
    assert answer.choice == Choice("auto/float32", "onnxruntime/float32")
    assert 0 < max(differences(found, expected).values()) < FLOAT32
    assert "Teacher runs through ONNX Runtime in float32" in caplog.text
