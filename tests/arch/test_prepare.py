"""Shapes and keys of feature transforms: found where left out, checked where given."""

from __future__ import annotations

import copy
import logging

import numpy as np
import paddle
import pytest

from ppcls.arch import build_model, create_model
from ppcls.errors import ConfigError

SHAPE = [3, 32, 32]
T_KEYS, T_SHAPES = ["blocks[1]", "blocks[3]", "blocks[5]"], [[16, 32, 32], [32, 16, 16], [64, 8, 8]]
S_KEYS, S_SHAPES = ["blocks[1]", "blocks[2]"], [[32, 16, 16], [64, 8, 8]]


def chain(net, patterns, transform, **options):
    backbone = {"name": net, "class_num": 5, "return_patterns": patterns}
    return {
        "name": "AttentionModel",
        "models": [{"Net": backbone}, {"Transform": {"name": transform, "qk_dim": 6, **options}}],
    }


def afd(teacher=None, student=None, t_patterns=T_KEYS, s_patterns=S_KEYS, order=("Teacher", "Student")):
    nodes = {
        "Teacher": chain("resnet14", t_patterns, "LinearTransformTeacher", **(teacher or {})),
        "Student": chain("resnet8", s_patterns, "LinearTransformStudent", **(student or {})),
    }
    nodes["Teacher"]["freeze_params_list"] = [True, False]
    return {"name": "DistillationModel", "models": [{name: nodes[name]} for name in order]}


GIVEN = afd(
    {"keys": T_KEYS, "t_shapes": T_SHAPES}, {"keys": S_KEYS, "s_shapes": S_SHAPES, "t_shapes": T_SHAPES}
)


def images():
    values = np.random.default_rng(0).standard_normal((4, *SHAPE))
    return paddle.to_tensor(values.astype("float32"))


def flat(outputs):
    for side, key in (("Teacher", "query"), ("Student", "bilinear_key")):
        yield key, outputs[side][key]
        yield from ((f"{side} value {i}", value) for i, value in enumerate(outputs[side]["value"]))


@pytest.mark.parametrize(
    "left_out",
    [
        afd(),
        afd(order=("Student", "Teacher")),
        afd({"keys": T_KEYS}, {"s_shapes": S_SHAPES}),
        afd({"t_shapes": T_SHAPES}, {"t_shapes": T_SHAPES, "keys": S_KEYS}),
        afd({"keys": T_KEYS}, {"keys": S_KEYS}, t_patterns=T_KEYS[::-1]),
    ],
    ids=["all", "student first", "t_shapes, keys", "s_shapes, keys", "in the order of the keys"],
)
def test_found_is_as_good_as_given(left_out):
    given, found = build_model(GIVEN), build_model(left_out)
    given.prepare(SHAPE)
    found.prepare(SHAPE)
    shapes = {name: list(value.shape) for name, value in given.state_dict().items()}
    assert {name: list(value.shape) for name, value in found.state_dict().items()} == shapes
    found.set_state_dict(given.state_dict())
    for model in (given, found):
        model.train()
    mine, theirs = dict(flat(found(images()))), dict(flat(given(images())))
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(mine[name].numpy(), value.numpy(), err_msg=name)


def test_what_was_found_is_logged(caplog):
    model = build_model(afd())
    with caplog.at_level(logging.INFO, "ppcls"):
        model.prepare(SHAPE)
    assert f"LinearTransformTeacher: keys {T_KEYS}, t_shapes {T_SHAPES} found" in caplog.text
    assert f"LinearTransformStudent: keys {S_KEYS}, s_shapes {S_SHAPES} found" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "ppcls"):
        build_model(GIVEN).prepare(SHAPE)
    assert "found" not in caplog.text


def test_preparing_changes_nothing_that_is_there():
    model = build_model(GIVEN)
    model.train()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    model.prepare(SHAPE)
    model.prepare(SHAPE)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name], err_msg=name)
    assert model.network("Student").network("Net").training
    assert not model.network("Teacher").network("Net").training
    prepared = build_model(afd())
    prepared.prepare(SHAPE)
    kept = list(map(id, prepared.parameters()))
    prepared.prepare(SHAPE)
    assert list(map(id, prepared.parameters())) == kept
    assert all(not p.stop_gradient for p in prepared.network("Teacher").network("Transform").parameters()[:2])


@pytest.mark.parametrize(
    ("node", "shape", "says"),
    [
        (
            afd({"t_shapes": [[16, 32, 32], [32, 16, 16], [64, 7, 7]]}),
            SHAPE,
            r"Arch\.models\.0\.Teacher\.models\.1\.Transform: t_shapes: \[64, 7, 7\] is given for "
            r"'blocks\[5\]', the network gives \[64, 8, 8\]",
        ),
        (GIVEN, [3, 64, 64], r"\[16, 32, 32\] is given for 'blocks\[1\]', the network gives \[16, 64, 64\]"),
        (
            afd(student={"t_shapes": T_SHAPES[:2]}),
            SHAPE,
            r"Student\.models\.1\.Transform: t_shapes: \[\[16, 32, 32\], \[32, 16, 16\]\] is given, the "
            r"teacher has \[\[16, 32, 32\], \[32, 16, 16\], \[64, 8, 8\]\]",
        ),
        (afd(student={"s_shapes": S_SHAPES[:1]}), SHAPE, "keys has 2 entries, s_shapes has 1"),
        (afd({"keys": ["blocks[0]"]}), SHAPE, r"no feature 'blocks\[0\]'\. Did you mean"),
        (afd(t_patterns=None), SHAPE, "there are no features; name some in the backbone's return_patterns"),
        (
            afd(s_patterns=["fc"]),
            SHAPE,
            r"'fc' is \[5\], expected a map \[C, H, W\]",
        ),
    ],
)
def test_given_shapes_are_checked(node, shape, says):
    with pytest.raises(ConfigError, match=says):
        build_model(node).prepare(shape)


def test_two_teachers_leave_open_whose_shapes_are_meant():
    node = afd()
    node["models"].insert(0, {"Other": copy.deepcopy(node["models"][0]["Teacher"])})
    with pytest.raises(
        ConfigError, match="found where there is one LinearTransformTeacher, not 2; give them"
    ):
        build_model(node).prepare(SHAPE)
    node["models"][2]["Student"]["models"][1]["Transform"]["t_shapes"] = T_SHAPES
    build_model(node).prepare(SHAPE)
    alone = {"name": "DistillationModel", "models": node["models"][2:]}
    build_model(alone).prepare(SHAPE)
    with pytest.raises(ConfigError, match="not 0; give them"):
        build_model({**alone, "models": afd()["models"][1:]}).prepare(SHAPE)


def test_an_unprepared_transform_says_what_to_do():
    model = build_model(afd())
    for name in ("Teacher", "Student"):
        with pytest.raises(ConfigError, match=r"not given; give .*model\.prepare\(image_shape\)"):
            model.network(name)(images())


def test_after_training_the_backbone_alone_is_built():
    whole = build_model(afd())
    whole.prepare(SHAPE)
    alone = build_model(afd(), only=["Student"])
    assert set(alone.infer_network().state_dict()) == set(create_model("resnet8", class_num=5).state_dict())
    assert set(alone.state_dict()) == {f"Student.Net.{name}" for name in alone.infer_network().state_dict()}
    alone.set_state_dict(whole.state_dict())
    for model in (alone, whole):
        model.eval()
    expected = whole(images())["Student"]["logits"]
    np.testing.assert_array_equal(alone(images())["Student"]["logits"].numpy(), expected.numpy())
    assert build_model(afd(), only=["Teacher"]).frozen_prefixes() == ("Teacher.Net.",)
