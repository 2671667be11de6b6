"""Values and gradients of the newer methods, as the methods' official code gives them in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppcls.loss import build_loss

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
    "rld a1 b8 T4 aT1": ("DistillationRLDLoss", {"beta": 8.0, "temperature": 4.0}),
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
