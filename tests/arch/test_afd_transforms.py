"""The transforms of AFD against recorded numbers and a plain NumPy form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from arch_networks import fill

from ppcls.arch.afd_transforms import LinearTransformStudent, LinearTransformTeacher
from ppcls.errors import ConfigError

CASE = np.load(Path(__file__).parent / "data" / "afd.npz")
T_SHAPES, S_SHAPES = [[24, 8, 8], [24, 8, 8], [32, 4, 4]], [[12, 8, 8], [20, 4, 4]]


def filled(net):
    net.set_state_dict({key: fill(key, tuple(value.shape)) for key, value in net.state_dict().items()})
    net.train()
    return net


def features(side, keys):
    return {key: paddle.to_tensor(CASE[f"{side}_{key}"]) for key in keys}


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_teacher_agrees_with_recorded_queries():
    net = filled(LinearTransformTeacher(16, ["t0", "t1", "t2"], T_SHAPES))
    given = features("teacher", net.keys)
    out = net(given)
    np.testing.assert_allclose(out["query"].numpy(), CASE["query"], rtol=1e-4, atol=1e-5)
    for value, key in zip(out["value"], net.keys, strict=True):
        square = (CASE[f"teacher_{key}"].astype("float64") ** 2).mean(1).reshape(8, -1)
        np.testing.assert_allclose(value.numpy(), unit(square), rtol=1e-5)


def test_student_agrees_with_recorded_keys():
    net = filled(LinearTransformStudent(16, ["s0", "s1"], S_SHAPES, T_SHAPES))
    out = net(features("student", net.keys))
    np.testing.assert_allclose(out["bilinear_key"].numpy(), CASE["bilinear_key"], rtol=1e-4, atol=1e-5)
    assert [value.shape for value in out["value"]] == [[8, 2, 64], [8, 2, 16]]
    square = (CASE["student_s0"].astype("float64") ** 2).mean(1)
    np.testing.assert_allclose(out["value"][0].numpy()[:, 0], unit(square.reshape(8, -1)), rtol=1e-5)
    pooled = square.reshape(8, 4, 2, 4, 2).mean((2, 4)).reshape(8, -1)
    np.testing.assert_allclose(out["value"][1].numpy()[:, 0], unit(pooled), rtol=1e-5)


def test_parameter_names():
    teacher = LinearTransformTeacher(16, ["t0", "t1", "t2"], T_SHAPES).state_dict()
    student = LinearTransformStudent(16, ["s0", "s1"], S_SHAPES, T_SHAPES).state_dict()
    leaves = ("linear.weight", "linear.bias", "bn.weight", "bn.bias", "bn._mean", "bn._variance")
    assert set(teacher) == {f"query_layer.{i}.{leaf}" for i in range(3) for leaf in leaves}
    parts = ("key_layer.0", "key_layer.1", "bilinear")
    assert set(student) == {f"{part}.{leaf}" for part in parts for leaf in leaves}
    assert student["bilinear.linear.weight"].shape == [16, 48]


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="keys has 2 entries, t_shapes has 3"):
        LinearTransformTeacher(16, ["t0", "t1"], T_SHAPES)
    with pytest.raises(ConfigError, match="keys has 1 entries, s_shapes has 2"):
        LinearTransformStudent(16, ["s0"], S_SHAPES, T_SHAPES)
    with pytest.raises(ConfigError, match=r"t_shapes\.0: expected \[channels, height, width\], got \[3\]"):
        LinearTransformTeacher(16, ["t0"], [[3]])
    net = LinearTransformTeacher(16, ["t0", "t1", "t2"], T_SHAPES)
    given = features("teacher", ["t0", "t1", "t2"])
    with pytest.raises(ConfigError, match="no feature 't2'. There is t0, t1. Name it in return_patterns"):
        net({key: given[key] for key in ("t0", "t1")})
    with pytest.raises(ConfigError, match=r"t_shapes: 't2' is \[24, 8, 8\], given is \[32, 4, 4\]"):
        net({**given, "t2": given["t0"]})
