"""Files of earlier versions: former names are replaced, former shapes are explained."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

import ppcls
from ppcls.arch import TheseusLayer
from ppcls.errors import WeightsError
from ppcls.weights import load_into
from ppcls.weights.renames import in_present_names


class Renamed(TheseusLayer):
    """A network whose first layer had another name and another width."""

    former_names = {"one.weight": "first.weight", "one.bias": "first.bias"}
    former_shapes = {"first.weight": ((2, 5), "\n  The file is old: set width to 5")}

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 4)

    def forward(self, x):
        return self.second(self.first(x))


class Pair(nn.Layer):
    def __init__(self):
        super().__init__()
        self.Teacher = nn.Linear(2, 3)
        self.Student = Renamed()


def old_file(prefix=""):
    net = Renamed()
    values = {key: np.random.default_rng(3).random(value.shape) for key, value in net.state_dict().items()}
    former = {new: old for old, new in Renamed.former_names.items()}
    return {prefix + former.get(key, key): value.astype("float32") for key, value in values.items()}


@pytest.mark.parametrize("prefix", ["", "Student."])
def test_former_names_are_read(prefix, caplog):
    net, params = Renamed(), old_file(prefix)
    with caplog.at_level("INFO"):
        report = load_into(net, params, "old.pdparams")
    assert len(report.matched) == 4
    assert (net.first.weight.numpy() == params[f"{prefix}one.weight"]).all()
    assert "old.pdparams: 2 names are those of an earlier version of ppcls and were replaced" in caplog.text


def test_former_names_are_read_into_a_network_of_networks():
    net, params = Pair(), {**old_file("Student."), "Teacher.weight": np.ones([2, 3], "float32")}
    params["Teacher.bias"] = np.zeros([3], "float32")
    assert len(load_into(net, params, "old.pdparams").matched) == 6
    assert (net.Student.first.bias.numpy() == params["Student.one.bias"]).all()
    load_into(net, old_file(), "old.pdparams")  # a network's file goes into its place


def test_slots_of_an_optimizer_are_renamed_too():
    state = {"network.one.weight@velocity": 1, "network.second.bias@velocity": 2, "loss.one": 3}
    assert in_present_names(Renamed(), state, "old.pdopt") == {
        "network.first.weight@velocity": 1,
        "network.second.bias@velocity": 2,
        "loss.one": 3,
    }


def test_present_names_and_similar_ones_stay(caplog):
    state = {"first.weight": 1, "bone.weight": 2, "one.weight2": 3}
    with caplog.at_level("INFO"):
        assert in_present_names(Renamed(), state, "new.pdparams") == state
    assert "earlier version" not in caplog.text
    assert in_present_names(nn.Linear(1, 1), {"one.weight": 1}, "") == {"one.weight": 1}


def test_former_shapes_are_explained():
    params = {key: value.numpy() for key, value in Renamed().state_dict().items()}
    params["first.weight"] = np.zeros([2, 5], "float32")
    with pytest.raises(WeightsError, match="The file is old: set width to 5"):
        load_into(Renamed(), params, "old.pdparams")
    params["first.weight"] = np.zeros([2, 6], "float32")
    with pytest.raises(WeightsError) as caught:
        load_into(Renamed(), params, "other.pdparams")
    assert "The file is old" not in str(caught.value)


@pytest.mark.parametrize("name", ["MobileNetV4_conv_medium", "MobileNetV4_conv_large"])
def test_former_names_of_mobilenet_v4(name):
    with paddle.LazyGuard():
        net = ppcls.create_model(name)
    names = net.state_dict().keys()
    assert len(net.former_names) == 10
    assert set(net.former_names.values()) == {key for key in names if key.startswith("blocks.0.")}
    assert not net.former_names.keys() & names


def test_former_width_of_shufflenet_v2_x2_0():
    old = ppcls.create_model("ShuffleNetV2_x2_0", class_num=2, first_stage=224)
    params = {key: value.numpy() for key, value in old.state_dict().items()}
    with pytest.raises(WeightsError, match="Set the network's option first_stage to 224"):
        load_into(ppcls.create_model("ShuffleNetV2_x2_0", class_num=2), params, "old.pdparams")
    with pytest.raises(
        ppcls.errors.ConfigError, match="first_stage: expected an even number above 0, got 223"
    ):
        ppcls.create_model("ShuffleNetV2_x2_0", first_stage=223)


class Changed(Renamed):
    former_answer = "padding: old"


@pytest.mark.parametrize(
    ("environment", "warned"),
    [('{"python": "3.11"}', True), ('{"ppcls": "0.2.0"}', False), ("[]", False), ("{", False), (None, False)],
)
def test_a_run_of_an_earlier_version_is_named_where_its_network_answered_otherwise(
    tmp_path, caplog, environment, warned
):
    if environment is not None:
        (tmp_path / "environment.json").write_text(environment)
    load_into(Changed(), old_file(), str(tmp_path / "best_model.pdparams"))
    assert ("set the option padding: old" in caplog.text) == warned
    caplog.clear()
    load_into(Renamed(), old_file(), str(tmp_path / "best_model.pdparams"))
    assert "earlier version" not in "".join(r.message for r in caplog.records if r.levelname == "WARNING")


def test_which_networks_answer_otherwise_than_before():
    options = {"fixed_padding: False": "EfficientNetB0", "dropout_prob: 0": "PPHGNet_base"}
    with paddle.LazyGuard():
        for option, name in options.items():
            assert ppcls.create_model(name).former_answer == option
        assert ppcls.create_model("EfficientNetB0", fixed_padding=False).former_answer == ""
        assert ppcls.create_model("PPHGNet_base", dropout_prob=0.0).former_answer == ""
        assert ppcls.create_model("PPHGNet_small").former_answer == ""
