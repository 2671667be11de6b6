"""Numbers recorded from other implementations of the same losses."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from loss_reference import ce, one_hot

from ppcls.loss import build_loss
from ppcls.loss._tensors import class_distribution
from ppcls.loss.dist import dist
from ppcls.loss.dkd import decoupled_kl
from ppcls.loss.kldiv import kl_divergence
from ppcls.loss.mgd import MGDLoss
from ppcls.loss.ofd import negative_mean, partial_l2
from ppcls.loss.pefd import PEFDLoss
from ppcls.loss.rkd import relational
from ppcls.loss.skd import spherical_kd
from ppcls.loss.wsl import weighted_soft_labels

FOLDER = Path(__file__).parent / "recorded"
RECORDED = dict(np.load(FOLDER / "losses.npz"))
CASES = {case["name"]: case for case in json.loads((FOLDER / "losses.json").read_text())}
OFFICIAL = json.loads((FOLDER / "official.json").read_text())
INPUTS = dict(np.load(FOLDER / "official_inputs.npz"))


def fill(name: str, shape: list[int]) -> np.ndarray:
    """Return the values the recorded loss parameters had; they depend on the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        w = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif len(shape) == 2:
        w = rng.standard_normal(shape) * np.sqrt(1 / shape[0])
    else:
        w = rng.standard_normal(shape) * 0.1
    return w.astype("float32")


def set_parameters(loss: paddle.nn.Layer, recorded: dict[str, list[int]]) -> None:
    """Give each loss parameter the values of the recorded one whose name ends alike."""
    ends = {name.removeprefix("loss_func."): name for name in recorded}
    state = loss.state_dict()
    assert len(state) == len(recorded)
    for name, value in state.items():
        (end,) = [e for e in ends if name.endswith(e)]
        assert list(value.shape) == recorded[ends[end]]
        value.set_value(fill(ends[end], recorded[ends[end]]))


@pytest.mark.parametrize("name", [n for n in CASES if n != "AFD"])
def test_recorded_value_parts_and_gradient(name):
    case = CASES[name]
    loss = build_loss([case["config"]])
    set_parameters(loss, case["loss_parameters"])

    def given(network: str, frozen: bool) -> dict[str, Any]:
        start = f"{network}/"
        found = {k.removeprefix(start): v for k, v in RECORDED.items() if k.startswith(start)}
        return {k: paddle.to_tensor(v, stop_gradient=frozen) for k, v in found.items()}

    student, teacher = given("Student", frozen=False), given("Teacher", frozen=True)
    outputs = student if name.startswith("CELoss") else {"Student": student, "Teacher": teacher}
    parts = loss(outputs, paddle.to_tensor(RECORDED["label"]))
    assert list(parts) == [*case["values"], "loss"]
    for part, value in case["values"].items():
        np.testing.assert_allclose(float(parts[part]), value, rtol=1e-4, err_msg=part)
    np.testing.assert_allclose(float(parts["loss"]), sum(case["values"].values()), rtol=1e-4)
    parts["loss"].backward()
    for key in case["grads"]:
        gradient, recorded = student[key].grad.numpy().reshape(-1), RECORDED[f"{name}/grad/{key}"]
        gradient = gradient[:: 1 if gradient.size < 2000 else 16]
        np.testing.assert_allclose(gradient, recorded, rtol=1e-3, atol=1e-4 * np.abs(recorded).max())


@pytest.mark.parametrize("once_per_size", [True, False])
def test_recorded_afd(once_per_size):
    """The student may give its values once for each size of the teacher, or for each teacher feature."""
    afd = CASES["AFD"]["afd"]
    keys = {"student_keys": ["bilinear_key", "value"], "teacher_keys": ["query", "value"]}
    options = {"qk_dim": 16, "s_shapes": afd["s_shapes"], "t_shapes": afd["t_shapes"]}
    loss = build_loss([{"AFDLoss": {"model_name_pair": ["Student", "Teacher"], **keys, **options}}])
    set_parameters(loss, CASES["AFD"]["loss_parameters"])
    sizes = [8, 4] if once_per_size else [8, 8, 4]
    values = [paddle.to_tensor(RECORDED[f"AFD/value_s{size}"]) for size in sizes]
    student = {"bilinear_key": paddle.to_tensor(RECORDED["AFD/bilinear_key"]), "value": values}
    teacher = {
        "query": paddle.to_tensor(RECORDED["AFD/query"], stop_gradient=False),
        "value": [paddle.to_tensor(RECORDED[f"AFD/value_t{i}"]) for i in range(3)],
    }
    parts = loss({"Student": student, "Teacher": teacher})
    np.testing.assert_allclose(float(parts["loss_afd"]), CASES["AFD"]["values"]["loss_afd"], rtol=1e-4)
    parts["loss"].backward()
    assert np.abs(teacher["query"].grad.numpy()).max() > 0  # the teacher's queries are trained


ZT, Y = paddle.to_tensor(INPUTS["zt"]), paddle.to_tensor(INPUTS["y"])
Q = class_distribution(Y, ZT, "")
LOGIT_METHODS = {
    "KD T=1 (RepDistiller)": lambda s: kl_divergence(s, ZT, temperature=1.0),
    "KD T=4 (RepDistiller)": lambda s: kl_divergence(s, ZT, temperature=4.0),
    "DKD a=1 b=.5 T=1 (mdistiller IN)": lambda s: decoupled_kl(s, ZT, Y, beta=0.5),
    "DKD a=1 b=1 T=1 (PaddleClas setting)": lambda s: decoupled_kl(s, ZT, Y),
    "DKD a=1 b=8 T=4 (mdistiller CIFAR)": lambda s: decoupled_kl(s, ZT, Y, beta=8.0, temperature=4.0),
    "DIST tau=1": lambda s: dist(s, ZT),
    "DIST tau=4": lambda s: dist(s, ZT, tau=4.0),
    "WSL soft term only": lambda s: weighted_soft_labels(s, ZT, Q),
}


def check_official(name: str, value: Any, *inputs: Any) -> None:
    np.testing.assert_allclose(float(value), OFFICIAL[name]["loss"], rtol=1e-4)
    check_gradient(name, value, *inputs)


def check_gradient(name: str, value: Any, *inputs: Any) -> None:
    value.backward()
    norm = np.sqrt(sum(float((x.grad**2).sum()) for x in inputs))
    np.testing.assert_allclose(norm, OFFICIAL[name]["grad_norm"], rtol=1e-4)


def given(name: str) -> Any:
    return paddle.to_tensor(INPUTS[name], stop_gradient=False)


@pytest.mark.parametrize("name", LOGIT_METHODS)
def test_official_logit_methods(name):
    student = given("zs")
    check_official(name, LOGIT_METHODS[name](student), student)


def test_official_wsl_total():
    loss = build_loss(
        [
            {"DistillationGTCELoss": {"model_names": ["S"]}},
            {"DistillationWSLLoss": {"model_name_pairs": [["S", "T"]], "weight": 2.5}},
        ]
    )
    student = given("zs")
    check_official("WSL total (CE+2.5*soft), T=2", loss({"S": student, "T": ZT}, Y)["loss"], student)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_official_skd_layer_norm_form(temperature):
    """The official value is a KL divergence: ours is larger by alpha T^2 times the teacher's entropy."""
    name = f"SKD layer_norm variant T={temperature:.0f} m=2 a=.9"
    student = given("zs")
    value = spherical_kd(student, ZT, Q, temperature=temperature)
    t = INPUTS["zt"].astype("float64")
    t = 2 * (t - t.mean(-1, keepdims=True)) / t.std(-1, keepdims=True) / temperature
    p = np.exp(t) / np.exp(t).sum(-1, keepdims=True)
    entropy = ce(t, p)
    official = OFFICIAL[name]["loss"] + 0.9 * temperature**2 * entropy
    np.testing.assert_allclose(float(value), official, rtol=1e-4)
    check_gradient(name, value, student)


def test_official_rkd():
    student, teacher = given("es"), paddle.to_tensor(INPUTS["et"])
    check_official("RKD angle (lenscloth)", relational(student, teacher)[0], student)
    student = given("es")
    check_official("RKD distance (lenscloth, 64-d emb)", relational(student, teacher)[1], student)
    student = given("es")
    options = {
        "distance_weight": 25.0,
        "angle_weight": 50.0,
        "student_keepkeys": ["e"],
        "teacher_keepkeys": ["e"],
    }
    loss = build_loss([{"DistillationRKDLoss": {"model_name_pairs": [["S", "T"]], **options}}])
    total = loss({"S": {"e": student}, "T": {"e": teacher}})["loss"]
    check_official("RKD 25/50 (RepDistiller)", total, student)


def test_official_pefd():
    loss = PEFDLoss(64, 64)
    for i, projector in enumerate(loss.projectors):
        projector.conv.weight.set_value(INPUTS[f"W{i}"])
        projector.conv.bias.set_value(INPUTS[f"b{i}"])
    student = given("es")
    check_official("PEFD (beta=1, 3 proj + ReLU)", loss(student, paddle.to_tensor(INPUTS["et"])), student)


def test_official_mgd():
    """7e-5 times the sum over C, H, W is alpha_mgd = 7e-5 * C * H * W times the mean."""
    loss = MGDLoss(16, 16, alpha_mgd=7e-5 * 16 * 7 * 7, lambda_mgd=0.0)
    for layer, weight, bias in ((0, "k1", "c1"), (2, "k2", "c2")):
        loss.generation[layer].weight.set_value(INPUTS[weight])
        loss.generation[layer].bias.set_value(INPUTS[bias])
    student = given("fs")
    value = loss(student, paddle.to_tensor(INPUTS["ft"]))
    check_official("MGD alpha 7e-5 lambda 0, fixed convs", value, student)


def test_official_ofd():
    margins = negative_mean(np.linspace(0.2, 1.5, 16), np.linspace(-1, 4, 16))
    np.testing.assert_allclose(margins[:4], [-1.0, -0.6744, -0.45615, -0.36703], atol=1e-4)
    np.testing.assert_allclose(margins[-1], -0.46274, atol=1e-4)
    student = given("fs")
    value = partial_l2(student, paddle.to_tensor(INPUTS["ft"]), paddle.to_tensor(margins))
    check_official("OFD partial L2 sum (no connector)", value, student)


def test_recorded_labels_are_usable():
    """Guards the files: cross entropy in NumPy gives the recorded CELoss."""
    z = RECORDED["Student/logits"].astype("float64")
    value = ce(z, one_hot(RECORDED["label"][:, 0], z.shape[1]))
    np.testing.assert_allclose(value, CASES["CELoss"]["values"]["CELoss"], rtol=1e-5)
