"""OFA: the classifiers of the student's stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from support import distilled

import ppcls
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.errors import ConfigError
from ppcls.loss import build_loss
from ppcls.loss.ofa import StageHead, one_for_all
from ppcls.weights import read_params

PAIRS = {"model_name_pairs": [["S", "T"]]}
LABEL = paddle.to_tensor([[0], [2], [1]])
KEYS = ["low", "middle", "high"]


def outputs() -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)

    def random(*shape: int, trains: bool = False) -> Any:
        return paddle.to_tensor(rng.standard_normal(shape).astype("float32"), stop_gradient=not trains)

    maps = {"low": (3, 4, 9, 9), "middle": (3, 8, 5, 5), "high": (3, 10, 2, 2)}
    student = {key: random(*shape, trains=True) for key, shape in maps.items()}
    return {"S": {"logits": random(3, 5, trains=True), **student}, "T": {"logits": random(3, 5)}}


def built(given: Any, **options: Any) -> Any:
    node = {**PAIRS, "eps": 1.5, "student_keys": KEYS, **options}
    return build_loss([{"DistillationOFALoss": node}], outputs=given)


def test_each_map_has_a_classifier_that_learns_by_the_same_formula():
    given = outputs()
    loss = built(given, weight=0.5)
    loss.eval()
    parts = loss(given, LABEL)
    assert list(parts) == ["loss_ofa_S_T", "loss_ofa_stages_S_T", "loss"]
    (heads,) = loss.layers[0].heads
    target = LABEL.flatten()
    values = [
        float(one_for_all(head(given["S"][key]), given["T"]["logits"], target, eps=1.5))
        for head, key in zip(heads, KEYS, strict=True)
    ]
    assert float(parts["loss_ofa_stages_S_T"]) == pytest.approx(0.5 * sum(values), rel=1e-5)
    alone = float(one_for_all(given["S"]["logits"], given["T"]["logits"], target, eps=1.5))
    assert float(parts["loss_ofa_S_T"]) == pytest.approx(0.5 * alone, rel=1e-5)
    parts["loss"].backward()
    for key in ("logits", *KEYS):
        assert np.abs(given["S"][key].grad.numpy()).max() > 0
    assert all(p.grad is not None for p in loss.parameters() if not p.stop_gradient)


@pytest.mark.parametrize(("channels", "halvings", "side"), [(4, 3, 16), (8, 2, 8), (16, 1, 5), (32, 0, 2)])
def test_shapes_within_a_head(channels, halvings, side):
    """Height and width are halved each time; channels double, and are `width` in the end."""
    head = StageHead(channels, 32, 7, halvings)
    x, sides = paddle.ones([2, channels, side, side]), []
    for layer in list(head)[: max(halvings, 1)]:
        x = layer(x)
        sides.append((x.shape[1], x.shape[2]))
    expected = [(channels * 2 ** (i + 1), -(-side // 2 ** (i + 1))) for i in range(halvings)]
    assert sides == (expected[:-1] + [(32, expected[-1][1])] if halvings else [(32, side)])
    assert head(paddle.ones([2, channels, side, side])).shape == [2, 7]


def test_a_checkpoint_keeps_the_heads_and_preparing_again_keeps_them():
    given = outputs()
    loss = built(given)
    state = {name: value.numpy() for name, value in loss.state_dict().items()}
    places = {tuple(name.split(".")[:4]) for name in state}
    assert places == {("layers", "0", "heads", "0")}
    assert {name.split(".")[4] for name in state} == {"0", "1", "2"}
    loss.prepare(given)
    for name, value in loss.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name])


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (["logits"], r"DistillationOFALoss\.student_keys: logits has the shape \[3, 5\]"),
        (["hgh"], "returns no 'hgh'.*Did you mean: high"),
        (
            ["high", "low"],
            "student_keys: the maps have heights of 2, 9, expected the order from the shallowest",
        ),
    ],
)
def test_outputs_that_are_no_maps(keys, text):
    with pytest.raises(ConfigError, match=text):
        built(outputs(), student_keys=keys)


def test_heads_that_have_not_been_created():
    loss = build_loss([{"DistillationOFALoss": {**PAIRS, "student_keys": KEYS}}])
    with pytest.raises(ConfigError, match=r"missing; .*build_loss\(config, outputs="):
        loss(outputs(), LABEL)


def test_the_student_that_is_saved_has_no_heads(recipe, write_recipe, tmp_path):
    keys = ["blocks[0]", "blocks[2]"]
    node = {"model_name_pairs": [["Student", "Teacher"]], "eps": 1.5, "student_keys": keys}
    recipe = distilled(recipe, DistillationOFALoss=node)
    recipe["Arch"]["models"][1]["Student"]["return_patterns"] = keys
    path = write_recipe(recipe)
    Engine(load_config(path, [], "train"), "train").train()
    (student,) = Path(tmp_path).rglob("best_model_student.pdparams")
    plain = ppcls.create_model(recipe["Arch"]["models"][1]["Student"]["name"], class_num=4)
    assert set(read_params(student)) == set(plain.state_dict())
