"""Mixed precision: what can be shown without a GPU, and whole runs for where there is one."""

import json

import numpy as np
import paddle
import pytest
from support import distilled

import ppcls
from ppcls.config import load_config
from ppcls.config.schema import AMPSpec
from ppcls.engine import Engine
from ppcls.engine.amp import (
    casting_in_evaluation,
    in_float32,
    mixed_precision,
    restore_scaler,
    scaler_state,
)
from ppcls.engine.hooks.ema import ModelEMA
from ppcls.weights import load_into, read_params, write_params

LOW = ["float16", "bfloat16"]
AMP = {
    "use_amp": True, "level": "O1", "dtype": "float16", "scale_loss": 128.0, "use_dynamic_loss_scaling": True,
    "use_promote": False,
}  # fmt: skip


def numbers(tensor):
    return tensor.astype("float32").numpy()


@pytest.mark.parametrize("dtype", LOW)
def test_checkpoints_of_cast_networks_hold_float32_and_lose_nothing(dtype, tmp_path):
    one, other = (ppcls.create_model("resnet8", class_num=4).astype(dtype) for _ in range(2))
    write_params(tmp_path / "w.pdparams", in_float32(one.state_dict()))
    stored = read_params(tmp_path / "w.pdparams")
    assert {value.dtype for value in stored.values()} == {np.dtype("float32")}
    load_into(other, stored, where="w.pdparams")
    for name, value in one.state_dict().items():
        assert other.state_dict()[name].dtype == value.dtype
        np.testing.assert_array_equal(numbers(other.state_dict()[name]), numbers(value), err_msg=name)


@pytest.mark.parametrize("dtype", LOW)
def test_averages_of_cast_weights_are_float32(dtype):
    weight = paddle.ones([3]).astype(dtype)
    ema = ModelEMA({"w": weight}, 0.9999)
    weight.set_value(paddle.zeros([3]).astype(dtype))
    for step in range(100_000, 100_020):  # 1 - d = 1e-4 is less than either type resolves near 1
        ema.update(step)
    np.testing.assert_allclose(ema.state()["w"].numpy(), 0.9999**20, rtol=1e-6)
    with ema.applied():
        assert weight.dtype == getattr(paddle, dtype)
        np.testing.assert_allclose(numbers(weight), 1, atol=0.01)
    np.testing.assert_array_equal(numbers(weight), 0)


def enabled_scaler():
    """A scaler as it is on a GPU; on the CPU Paddle switches it off."""
    scaler = paddle.amp.GradScaler(enable=False)
    scaler._enable = True
    return scaler


def test_a_loss_scale_survives_a_checkpoint(tmp_path):
    before = {
        "scale": np.array([4096.0], "float32"), "incr_ratio": 2.0, "decr_ratio": 0.5, "incr_count": 7,
        "incr_every_n_steps": 2000, "decr_every_n_nan_or_inf": 1, "decr_count": 0,
        "use_dynamic_loss_scaling": True,
    }  # fmt: skip
    first, second = enabled_scaler(), enabled_scaler()
    first.load_state_dict(before)
    write_params(tmp_path / "s.pdopt.pdparams", scaler_state(first))
    restore_scaler(second, read_params(tmp_path / "s.pdopt.pdparams"))
    after = second.state_dict()
    for name, value in before.items():
        assert after[name] == value, name
        assert type(after[name]) is type(value), name
    assert second._scale.dtype == paddle.float32
    off = paddle.amp.GradScaler(enable=False)
    assert scaler_state(off) == {}
    restore_scaler(off, before)  # AMP was switched off since
    restore_scaler(second, {})  # and on


def test_the_cpu_says_once_that_it_has_none(caplog):
    scaler, casting = mixed_precision(AMPSpec(**AMP))
    assert not casting["enable"]
    assert not scaler.is_enable()
    assert [r.getMessage() for r in caplog.records if "no mixed precision on the CPU" in r.getMessage()]
    caplog.clear()
    mixed_precision(AMPSpec(**AMP | {"use_amp": False}))
    assert not caplog.records


@pytest.mark.parametrize(
    ("level", "asked", "cast"), [("O1", False, False), ("O1", True, True), ("O2", False, True)]
)
def test_evaluation_of_a_cast_network_casts_its_input(level, asked, cast):
    casting = {"enable": True, "level": level, "dtype": "float16"}
    assert casting_in_evaluation(casting, asked) == casting | {"enable": cast}
    assert not casting_in_evaluation(casting | {"enable": False}, asked)["enable"]


PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
TAPPED = {**PAIR, "s_key": "blocks[1]", "t_key": "blocks[3]"}
PARAMETRIC = {
    "MGDLoss": {"DistillationPairLoss": {**TAPPED, "base_loss_name": "MGDLoss", "alpha_mgd": 0.1}},
    "PEFDLoss": {"DistillationPairLoss": {**TAPPED, "base_loss_name": "PEFDLoss", "mode": "gap"}},
    "OFDLoss": {
        "OFDLoss": {
            "model_name_pair": ["Student", "Teacher"],
            "student_keys": ["blocks[1].add"],
            "teacher_keys": ["blocks[3].add"],
            "teacher_bns": ["blocks[3].conv1.bn"],
        }
    },
    "AFDLoss": {"AFDLoss": {"model_name_pair": ["Student", "Teacher"], "weight": 5.0}},
}


@pytest.mark.gpu
@pytest.mark.parametrize("loss", PARAMETRIC)
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_mixed_precision_trains_saves_and_resumes(recipe, write_recipe, tmp_path, level, dtype, loss):
    """A run of four epochs, and one that ends after two and continues, agree; so do their loss scales."""
    paddle.set_flags({"FLAGS_cudnn_deterministic": True})
    recipe = distilled(recipe, DistillationGTCELoss={"model_names": ["Student"]}, **PARAMETRIC[loss])
    layer = ".add" if loss == "OFDLoss" else ""
    teacher = {"name": "resnet14", "return_patterns": [f"blocks[3]{layer}"]}
    student = {"name": "resnet8", "return_patterns": [f"blocks[1]{layer}"]}
    if loss == "AFDLoss":
        recipe["Loss"]["Train"][0]["DistillationGTCELoss"]["key"] = "logits"
        recipe["Arch"].pop("freeze_params_list")
        transforms = [{"name": f"LinearTransform{who}", "qk_dim": 8} for who in ("Teacher", "Student")]
        teacher, student = (
            {"name": "AttentionModel", "freeze_params_list": [frozen, False], "models": [{"N": n}, {"T": t}]}
            for n, t, frozen in zip((teacher, student), transforms, (True, False), strict=True)
        )
    recipe["Arch"]["models"] = [{"Teacher": teacher}, {"Student": student}]
    recipe["Global"] |= {"device": "gpu", "epochs": 4, "save_steps": 2}
    recipe["AMP"] = {"use_amp": True, "level": level, "dtype": dtype, "scale_loss": 65536.0}
    recipe["EMA"] = {"decay": 0.9}
    path = write_recipe(recipe)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        Engine(load_config(path, [f"Global.output_dir={folder}"]), "train").train()
    latest = f"Global.checkpoints={cut}/DistillationModel/epoch_2"
    Engine(load_config(path, [f"Global.output_dir={cut}", latest]), "train").train()
    ends = [read_params(folder / "DistillationModel/latest.pdopt") for folder in (whole, cut)]
    weights = [read_params(folder / "DistillationModel/latest.pdparams") for folder in (whole, cut)]
    for one, other in (ends, weights):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert np.isfinite(value).all(), name
            np.testing.assert_allclose(other[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert ("scaler.scale" in ends[0]) == (dtype == "float16")
    assert any(name.startswith("loss.") for name in ends[0])
    assert {value.dtype for value in weights[0].values()} <= {np.dtype("float32"), np.dtype("int64")}
    if level == "O2":
        assert any(name.endswith("@master_weight") for name in ends[0])
    rows = [json.loads(line) for line in next(whole.rglob("metrics.jsonl")).read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
