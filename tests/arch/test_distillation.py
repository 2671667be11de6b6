"""Teachers and students together: frozen networks, weights, partial builds, chains."""

from __future__ import annotations

import copy
import re

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.arch import AttentionModel, DistillationModel, build_model, create_model, layer_table
from ppcls.errors import ConfigError, WeightsError
from ppcls.weights import write_params

TEACHER = {"name": "resnet14", "class_num": 5}
STUDENT = {"name": "resnet8", "class_num": 5}


def pair(**options):
    node = {
        "name": "DistillationModel",
        "models": [{"Teacher": dict(TEACHER)}, {"Student": dict(STUDENT)}],
        "freeze_params_list": [True, False],
    }
    return {**node, **options}


def images(count=4, seed=0):
    values = np.random.default_rng(seed).standard_normal((count, 3, 16, 16))
    return paddle.to_tensor(values.astype("float32"))


def state(net):
    return {key: value.numpy().copy() for key, value in net.state_dict().items()}


def changed(before, net):
    return {key for key, value in state(net).items() if (value != before[key]).any()}


def train_steps(model, loss, steps=2):
    model.train()
    free = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.Momentum(0.1, parameters=free, weight_decay=0.1)
    for seed in range(steps):
        loss(model(images(seed=seed))).backward()
        optimizer.step()
        optimizer.clear_grad()


def match(outputs):
    return (outputs["Student"] - outputs["Teacher"]).square().sum()


def test_frozen_teacher_is_bit_identical_after_training():
    model = build_model(pair())
    assert all(parameter.stop_gradient for parameter in model.network("Teacher").parameters())
    before = state(model)
    alone = copy.deepcopy(model.network("Teacher"))
    alone.eval()
    train_steps(model, match)
    moved = changed(before, model)
    assert not any(key.startswith("Teacher.") for key in moved)
    assert moved == {key for key in before if key.startswith("Student.")}
    model.train()
    for seed in range(2):
        out = model(images(seed=seed))
        assert (out["Teacher"] == alone(images(seed=seed))).all()


def test_frozen_output_has_no_gradient():
    out = build_model(pair())(images())
    assert list(out) == ["Teacher", "Student"]
    assert out["Teacher"].stop_gradient
    assert not out["Student"].stop_gradient
    x = images()
    x.stop_gradient = False  # even then
    out = build_model(pair())(x)
    assert out["Teacher"].stop_gradient
    taps = pair()
    taps["models"][0]["Teacher"]["return_patterns"] = ["blocks[1]"]
    assert build_model(taps)(images())["Teacher"]["blocks[1]"].stop_gradient


@pytest.mark.parametrize("wrap", [False, True])
def test_eval_mode_of_the_frozen_survives_train(wrap):
    model = build_model(pair())
    outer = nn.Sequential(model) if wrap else model  # a wrapper's train() does not call ours
    outer.eval()
    outer.train()
    model(images())
    assert not any(layer.training for layer in model.network("Teacher").sublayers(include_self=True))
    assert all(layer.training for layer in model.network("Student").sublayers(include_self=True))
    assert model.training
    outer.eval()
    assert not any(layer.training for layer in model.sublayers(include_self=True))


@pytest.mark.parametrize("mode", ["train", {"Teacher": "train"}])
def test_frozen_mode_train_uses_batch_statistics(mode):
    model = build_model(pair(frozen_mode=mode))
    before = state(model)
    train_steps(model, match, steps=1)
    moved = {key for key in changed(before, model) if key.startswith("Teacher.")}
    assert moved == {key for key in before if re.search(r"^Teacher.*\.(_mean|_variance)$", key)}
    model.eval()
    again = state(model)
    model(images())
    assert not changed(again, model)


def test_frozen_mode_is_per_network():
    models = [{"A": dict(STUDENT)}, {"B": dict(STUDENT)}, {"S": dict(STUDENT)}]
    model = build_model(
        pair(models=models, freeze_params_list=[True, True, False], frozen_mode={"B": "train"})
    )
    before = state(model)
    model.train()
    model(images())
    assert {key[0] for key in changed(before, model)} == {"B", "S"}


def test_networks_of_one_kind_start_different():
    model = build_model(
        pair(models=[{"One": dict(STUDENT)}, {"Two": dict(STUDENT)}], freeze_params_list=None)
    )
    one, two = (state(model.network(name)) for name in ("One", "Two"))
    weights = [key for key in one if one[key].ndim >= 2]
    assert weights
    assert all((one[key] != two[key]).mean() > 0.99 for key in weights)


def test_state_dicts():
    model = build_model(pair())
    names = set(model.state_dict())
    assert {"Student.stem.conv.weight", "Teacher.stem.conv.weight"} <= names
    assert set(model.trainable_state_dict()) == {key for key in names if key.startswith("Student.")}
    alone = create_model(**STUDENT).state_dict()
    assert set(model.student_state_dict()) == set(alone)
    assert set(model.student_state_dict("Teacher")) == set(create_model(**TEACHER).state_dict())
    with pytest.raises(ConfigError, match="no network 'Techer'. Did you mean: Teacher"):
        model.student_state_dict("Techer")


@pytest.mark.parametrize(
    ("names", "freeze", "given", "expected"),
    [
        (("Teacher", "Student"), [True, False], None, "Student"),
        (("Student", "Teacher"), None, None, "Student"),
        (("Big", "Small"), [True, False], None, "Small"),
        (("Small", "Big"), [False, True], None, "Small"),
        (("A", "B", "C"), [True, False, False], None, "C"),
        (("A", "B"), [True, True], None, "B"),
        (("Teacher", "Student"), [True, False], "Teacher", "Teacher"),
    ],
)
def test_inference_uses_the_student(names, freeze, given, expected):
    models = [{name: dict(STUDENT)} for name in names]
    model = build_model(pair(models=models, freeze_params_list=freeze, infer_model_name=given))
    assert model.names == list(names)
    assert model.infer_model_name == expected
    assert model.infer_network() is model.network(expected)


def test_pretrained_list_and_option_load_the_same(tmp_path):
    teacher = create_model(**TEACHER)
    write_params(tmp_path / "teacher.pdparams", {k: v.numpy() for k, v in teacher.state_dict().items()})
    path = str(tmp_path / "teacher")
    node = pair()
    node["models"][0]["Teacher"]["pretrained"] = path
    for config in (node, pair(pretrained_list=[path, None]), {**node, "pretrained_list": [path, False]}):
        model = build_model(config)
        assert not changed(state(teacher), model.network("Teacher"))
    assert changed(state(teacher), build_model(node, load_pretrained=False).network("Teacher"))
    with pytest.raises(ConfigError, match=r"Arch\.models\.0\.Teacher: pretrained is .* give one"):
        build_model({**node, "pretrained_list": ["other", None]})
    with pytest.raises(WeightsError, match=r"^Arch\.models\.1\.Student: "):
        build_model(pair(pretrained_list=[None, str(tmp_path / "nothing")]))


def test_only_builds_what_is_asked_for(tmp_path):
    missing = str(tmp_path / "not_there")
    node = pair(pretrained_list=[missing, None], infer_model_name="Student", frozen_mode={"Teacher": "eval"})
    model = build_model(node, only={"Student"})
    assert model.names == ["Student"]
    assert not model.frozen
    assert list(model(images())) == ["Student"]
    assert build_model(pair(), only=["Teacher"]).frozen == {"Teacher"}
    with pytest.raises(ConfigError, match="no network 'Studnt'. Did you mean: Student"):
        build_model(node, only=["Studnt"])


def test_class_num_of_the_whole_fills_in():
    models = [{"Teacher": {"name": "resnet14", "class_num": 9}}, {"Student": {"name": "resnet8"}}]
    out = build_model(pair(models=models, class_num=7))(images())
    assert [value.shape[1] for value in out.values()] == [9, 7]
    with pytest.raises(ConfigError, match=r"Arch\.models\.1\.Student: class_num is 5, but 7"):
        build_model(pair(class_num=7))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"models": []}, "Arch: DistillationModel: models must be a list of maps"),
        ({"models": None}, "Arch.models: expected a list, got null"),
        ({"models": [{"A": STUDENT}, {"A": STUDENT}]}, r"Arch\.models\.1: there are two networks 'A'"),
        ({"models": [{"a.b": STUDENT}, {"c": STUDENT}]}, r"Arch\.models\.0: 'a.b' cannot name a network"),
        ({"models": [{"train": STUDENT}, {"c": STUDENT}]}, "'train' cannot name a network"),
        ({"models": [{"A": STUDENT, "B": STUDENT}]}, r"Arch\.models\.0: expected one name, got 2"),
        (
            {"models": [{"A": {"name": "resnet9"}}, {"B": STUDENT}]},
            r"models\.0\.A: unknown network 'resnet9'",
        ),
        ({"models": [{"A": {"x": 1}}, {"B": STUDENT}]}, r"Arch\.models\.0\.A"),
        ({"models": [{"A": {**STUDENT, "widht": 2}}, {"B": STUDENT}]}, "Did you mean: width"),
        ({"freeze_params_list": [True]}, "freeze_params_list has 1 entries for 2 networks"),
        ({"pretrained_list": [None] * 3}, "pretrained_list has 3 entries for 2 networks"),
        ({"infer_model_name": "Studnet"}, "no network 'Studnet'. Did you mean: Student"),
        ({"frozen_mode": "evaluate"}, "frozen_mode of Teacher: expected eval or train, got 'evaluate'"),
        ({"frozen_mode": {"Techer": "eval"}}, "Did you mean: Teacher"),
        ({"frozen_mode": {"Student": "eval"}}, "Student is not frozen"),
        ({"freeze_param_list": [True, False]}, "Did you mean: freeze_params_list"),
    ],
)
def test_mistakes_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        build_model(pair(**options))


def test_a_network_needs_its_required_options():
    with pytest.raises(ConfigError, match="DistillationModel needs the option 'models'"):
        build_model({"name": "DistillationModel"})


def test_layer_table_looks_into_networks_without_parameters():
    huge = {"name": "ResNet200_vd", "pretrained": "no/such/file", "return_stages": True}
    table = layer_table(pair(models=[{"Teacher": huge}, {"Student": dict(STUDENT)}]))
    assert set(table) == {"Teacher", "Student"}
    assert {"blocks[65].conv2.bn", "blocks.65.conv2.bn", "avg_pool"} <= table["Teacher"]
    assert "blocks[2].add" in table["Student"]
    assert "fc" in layer_table(STUDENT)[""]


def test_to_static_keeps_the_frozen_frozen():
    model = build_model(pair())
    before = state(model)
    twin = copy.deepcopy(model)
    static = paddle.jit.to_static(model, full_graph=True)
    static.train()
    train_steps(twin, match)
    train_steps(static, match)
    assert not any(key.startswith("Teacher.") for key in changed(before, static))
    for key, value in state(twin).items():
        np.testing.assert_allclose(state(static)[key], value, rtol=1e-4, atol=1e-5)


def chain(part, transform, keys, freeze, **options):
    backbone = {**part, "return_patterns": keys}
    nodes = [{"Net": backbone}, {"Transform": {"name": transform, "qk_dim": 6, "keys": keys, **options}}]
    return {"name": "AttentionModel", "models": nodes, "freeze_params_list": freeze}


def afd_pair():
    t_keys, t_shapes = ["blocks[1]", "blocks[3]", "blocks[5]"], [[16, 16, 16], [32, 8, 8], [64, 4, 4]]
    s_keys, s_shapes = ["blocks[1]", "blocks[2]"], [[32, 8, 8], [64, 4, 4]]
    teacher = chain(TEACHER, "LinearTransformTeacher", t_keys, [True, False], t_shapes=t_shapes)
    student = chain(STUDENT, "LinearTransformStudent", s_keys, None, s_shapes=s_shapes, t_shapes=t_shapes)
    return pair(models=[{"Teacher": teacher}, {"Student": student}], freeze_params_list=None)


def test_chain_merges_what_its_networks_give():
    model = build_model(afd_pair())
    out = model(images(count=3))
    assert set(out["Teacher"]) == {"logits", "blocks[1]", "blocks[3]", "blocks[5]", "query", "value"}
    assert set(out["Student"]) == {"logits", "blocks[1]", "blocks[2]", "bilinear_key", "value"}
    assert out["Teacher"]["query"].shape == [3, 3, 6]
    assert out["Student"]["bilinear_key"].shape == [3, 2, 3, 6]
    assert [value.shape for value in out["Teacher"]["value"]] == [[3, 256], [3, 64], [3, 16]]
    assert [value.shape for value in out["Student"]["value"]] == [[3, 2, 256], [3, 2, 64], [3, 2, 16]]
    assert out["Teacher"]["logits"].stop_gradient
    assert not out["Teacher"]["query"].stop_gradient


def test_frozen_backbone_inside_a_chain_stays_while_its_transform_trains():
    model = build_model(afd_pair())
    before = state(model)

    def loss(out):
        attention = (out["Student"]["bilinear_key"] * out["Teacher"]["query"].unsqueeze(1)).square().sum()
        return attention + out["Student"]["logits"].square().sum()

    train_steps(nn.Sequential(model), loss)
    moved = changed(before, model)
    assert not any(key.startswith("Teacher.Net.") for key in moved)
    for part in ("Teacher.Transform.", "Student.Net.", "Student.Transform."):
        # A bias before BatchNorm gets no gradient worth the name, so only the weights are asked for.
        weights = {key for key in before if key.startswith(part) and key.endswith("weight")}
        assert weights <= moved
    assert model.frozen_prefixes() == ("Teacher.Net.",)
    kept = model.trainable_state_dict()
    assert not any(key.startswith("Teacher.Net.") for key in kept)
    assert len(kept) + len(model.network("Teacher").network("Net").state_dict()) == len(before)


def test_student_of_a_chain_is_its_backbone_alone():
    model = build_model(afd_pair())
    assert isinstance(model, DistillationModel)
    assert isinstance(model.network("Student"), AttentionModel)
    assert model.infer_network() is model.network("Student").network("Net")
    assert set(model.student_state_dict()) == set(create_model(**STUDENT).state_dict())


def test_mistake_inside_a_chain_has_one_path():
    node = afd_pair()
    node["models"][1]["Student"]["models"][0]["Net"]["return_patterns"] = ["blocks[7]"]
    with pytest.raises(ConfigError, match=r"^Arch\.models\.1\.Student\.models\.0\.Net: resnet8 has no layer"):
        build_model(node)
