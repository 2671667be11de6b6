"""Values and gradients of the newer methods, as the methods' official code gives them in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppcls.loss import build_loss
from ppcls.loss.at import attention_transfer
from ppcls.loss.nkd import normalized_kd
from ppcls.loss.ofa import one_for_all
from ppcls.loss.reviewkd import hierarchical_distance
from ppcls.loss.srd import SRDLoss
from ppcls.loss.ttm import transformed_teacher_matching, weighted_teacher_matching
from ppcls.loss.wkd import gaussian_distance

FOLDER = Path(__file__).parent / "recorded"
OFFICIAL = json.loads((FOLDER / "newer.json").read_text(encoding="utf-8"))
INPUTS = dict(np.load(FOLDER / "newer_inputs.npz"))
PAIRS = {"model_name_pairs": [["S", "T"]]}
LOGIT_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd_T4": ("DistillationKLDivLoss", {"temperature": 4.0}),
    "logit_std_KD_T2 (weight 9 not applied)": (
        "DistillationKLDivLoss",
        {"temperature": 2.0, "standardize": True},
    ),
    "nkd_T1_g1.5": ("DistillationNKDLoss", {"temperature": 1.0, "gamma": 1.5}),
    "ttm_0.1": ("DistillationTTMLoss", {"power": 0.1}),
    "wttm_0.1": ("DistillationWTTMLoss", {"power": 0.1}),
    "wttm_0.2": ("DistillationWTTMLoss", {"power": 0.2}),
    "rld a1 b0.5 T1 aT1": ("DistillationRLDLoss", {"beta": 0.5, "temperature": 1.0}),
    "ofa eps1.0": ("DistillationOFALoss", {"eps": 1.0}),
    "ofa eps1.5": ("DistillationOFALoss", {"eps": 1.5}),
    "rld a1 b8 T4 aT1": ("DistillationRLDLoss", {"beta": 8.0, "temperature": 4.0}),
}


MAP_METHODS = {
    "at p2": attention_transfer,
    "wkd_f ratio2 (projector = identity)": gaussian_distance,
    "reviewkd hcl 7x7": hierarchical_distance,
}


def check(name: str, value: Any, *students: Any) -> None:
    np.testing.assert_allclose(float(value), OFFICIAL[name]["loss"], rtol=1e-4)
    value.backward()
    norm = np.sqrt(sum(float((x.grad**2).sum()) for x in students))
    np.testing.assert_allclose(norm, OFFICIAL[name]["grad_norm"], rtol=1e-4)


def student(name: str) -> Any:
    return paddle.to_tensor(INPUTS[name], stop_gradient=False)


def teacher(name: str) -> Any:
    return paddle.to_tensor(INPUTS[name])


@pytest.mark.parametrize("name", LOGIT_METHODS)
def test_methods_that_compare_logits(name):
    loss, options = LOGIT_METHODS[name]
    logits = student("zs")
    given = {"S": {"logits": logits}, "T": {"logits": teacher("zt")}}
    check(name, build_loss([{loss: {**PAIRS, **options}}])(given, teacher("y"))["loss"], logits)


def test_wkd_of_logits(tmp_path):
    """What is recorded as cost is 1 - exp(-distance)."""
    np.save(tmp_path / "distances.npy", -np.log(1 - INPUTS["cost"].clip(0)))
    node = {**PAIRS, "temperature": 2.0, "gamma": 30.0, "cost": str(tmp_path / "distances.npy")}
    logits = student("zs")
    value = build_loss([{"DistillationWKDLogitLoss": node}])({"S": logits, "T": teacher("zt")}, teacher("y"))
    check("wkd_l T2 g30", value["loss"], logits)


@pytest.mark.parametrize("name", MAP_METHODS)
def test_methods_that_compare_maps(name):
    maps = student("fs")
    check(name, MAP_METHODS[name](maps, teacher("ft")), maps)


def test_srd():
    """The official total is two times the logarithm and a KL divergence; the gradient is that of the maps."""
    loss = SRDLoss(16, 16)
    loss.projector.weight.set_value(np.eye(16, dtype="float32"))
    maps, logits = student("fs"), student("zs")
    kl = build_loss([{"DistillationKLDivLoss": {**PAIRS, "temperature": 1.0}}])
    soft = kl({"S": logits, "T": teacher("zt")})["loss"]
    check("srd total: 2 log-sum + KL, identity projector", 2 * loss(maps, teacher("ft")) + soft, maps)


# ---------------------------------------------------------------- where they are smallest


def slope_at(loss: Callable[[Any], Any], x: np.ndarray) -> tuple[float, float]:
    """Return the value of a loss and the largest element of its gradient."""
    given = paddle.to_tensor(x, stop_gradient=False)
    value = loss(given)
    value.backward()
    return float(value), float(np.abs(given.grad.numpy()).max())


@pytest.mark.parametrize(
    ("formula", "shape", "best"),
    [
        (partial(transformed_teacher_matching, power=0.3), (4, 6), lambda t: 0.3 * t + 1),
        (partial(weighted_teacher_matching, power=0.3), (4, 6), lambda t: 0.3 * t + 1),
        (attention_transfer, (3, 2, 5, 5), lambda t: -2 * t),
        (gaussian_distance, (3, 2, 5, 5), lambda t: t[:, :, ::-1].copy()),
        (hierarchical_distance, (3, 2, 5, 5), lambda t: t),
    ],
    ids=["TTM", "WTTM", "AT", "WKD-F", "HCL"],
)
def test_zero_where_the_student_has_what_is_asked(formula, shape, best):
    """Not for equal tensors only: other logits or maps can hold the same."""
    rng = np.random.default_rng(2)
    teacher_side = rng.standard_normal(shape)
    wanted = best(teacher_side)
    value, slope = slope_at(lambda x: formula(x, paddle.to_tensor(teacher_side)), wanted)
    assert abs(value) < 1e-12
    assert slope < 1e-9
    for size in (0.03, 0.3, 3):
        away = wanted + size * rng.standard_normal(shape)
        assert float(formula(paddle.to_tensor(away), paddle.to_tensor(teacher_side))) > 1e-9


def test_nkd_and_ofa_are_smallest_at_the_teacher_where_labels_are_left_out():
    """NKD's part of the other classes, and OFA with an exponent of 1."""
    logits = np.random.default_rng(3).standard_normal((4, 6))
    t, y = paddle.to_tensor(logits), paddle.to_tensor([0, 1, 2, 3])
    assert slope_at(lambda x: one_for_all(x, t, y, eps=1.0), logits)[1] < 1e-12
    given = paddle.to_tensor(logits, stop_gradient=False)
    normalized_kd(given, t, y, gamma=1.0).backward()
    with_others = given.grad.numpy()
    given.clear_gradient()
    normalized_kd(given, t, y, gamma=0.0).backward()
    np.testing.assert_allclose(with_others, given.grad.numpy(), atol=1e-12)
