"""Values and gradients of the newer methods, as the methods' official code gives them in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppcls.loss import build_loss
from ppcls.loss.at import attention_transfer
from ppcls.loss.reviewkd import hierarchical_distance
from ppcls.loss.srd import SRDLoss
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
