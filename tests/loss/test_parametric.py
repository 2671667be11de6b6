"""Losses with parameters of their own: MGD, PEFD, OFD and AFD."""

from __future__ import annotations

import logging
from typing import Any

import loss_reference as ref
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

from ppcls.errors import ConfigError
from ppcls.loss import build_loss
from ppcls.loss.mgd import MGDLoss
from ppcls.loss.ofd import OFDLoss
from ppcls.loss.pefd import PEFDLoss
from ppcls.loss.reviewkd import ReviewKDLoss
from ppcls.loss.srd import SRDLoss
from ppcls.loss.wkd import WKDFeatureLoss

quick = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)
PAIRS = {"model_name_pairs": [["S", "T"]], "s_key": "map", "t_key": "map"}
MGD = {"DistillationPairLoss": {**PAIRS, "base_loss_name": "MGDLoss"}}
PEFD = {"DistillationPairLoss": {**PAIRS, "base_loss_name": "PEFDLoss", "mode": "gap"}}
SRD = {"DistillationPairLoss": {**PAIRS, "base_loss_name": "SRDLoss"}}
WKD = {"DistillationPairLoss": {**PAIRS, "base_loss_name": "WKDFeatureLoss"}}
REVIEW = {
    "DistillationPairLoss": {
        **PAIRS,
        "base_loss_name": "ReviewKDLoss",
        "s_key": ["low", "map"],
        "t_key": ["low", "map"],
    }
}
OFD = {
    "OFDLoss": {
        "model_name_pair": ["S", "T"],
        "student_keys": ["low", "map"],
        "teacher_keys": ["low", "map"],
        "margins": [-0.5, [-0.1, -0.2, -0.3, -0.4, -0.5]],
    }
}
AFD = {
    "AFDLoss": {
        "model_name_pair": ["S", "T"],
        "student_keys": ["key", "value"],
        "teacher_keys": ["query", "value"],
    }
}


def outputs(n: int = 2) -> dict[str, dict[str, Any]]:
    """Student maps have 3 channels, teacher maps 5; AFD compares 2 student with 3 teacher features."""
    rng = np.random.default_rng(0)

    def random(*shape: int, trains: bool = False) -> Any:
        return paddle.to_tensor(rng.standard_normal(shape).astype("float32"), stop_gradient=not trains)

    student = {"map": random(n, 3, 4, 4, trains=True), "low": random(n, 3, 8, 8, trains=True)}
    student |= {"key": random(n, 2, 3, 6, trains=True), "value": [random(n, 2, 16), random(n, 2, 4)]}
    teacher = {"map": random(n, 5, 4, 4), "low": random(n, 5, 8, 8), "query": random(n, 3, 6, trains=True)}
    teacher["value"] = [random(n, 16), random(n, 16), random(n, 4)]
    return {"S": student, "T": teacher}


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_mgd_against_the_paper(seed, n, mine, theirs, side):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, mine, side, side)), rng.standard_normal((n, theirs, side, side))
    loss = MGDLoss(mine, theirs, alpha_mgd=0.7, lambda_mgd=0.0)
    assert (loss.align is None) == (mine == theirs)
    weights = {k: v.numpy().astype("float64") for k, v in loss.state_dict().items()}
    value = loss(paddle.to_tensor(s, dtype="float32"), paddle.to_tensor(t, dtype="float32"))
    np.testing.assert_allclose(float(value), ref.mgd(s, t, weights, 0.7), rtol=1e-4)


def test_mgd_drops_whole_channels_with_the_given_probability():
    """With generation left out and ones as features, what is left is the mask."""
    loss = MGDLoss(400, 400, alpha_mgd=1.0, lambda_mgd=0.25)
    seen = []

    class Spy(nn.Layer):
        def forward(self, x: Any) -> Any:
            seen.append(x.numpy())
            return x

    loss.generation = Spy()
    ones = paddle.ones([20, 400, 2, 2])
    paddle.seed(1)
    loss(ones, ones)
    (mask,) = seen
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert (mask == mask[:, :, :1, :1]).all()
    assert abs((mask == 0).mean() - 0.25) < 0.02
    loss.eval()
    loss(ones, ones)
    assert (seen[1] == 1).all()


@quick
@given(seeds, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_pefd_against_the_paper(seed, n, mine, theirs, count):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, mine, 2, 2)), rng.standard_normal((n, theirs))
    loss = PEFDLoss(mine, theirs, num_projectors=count, mode="gap")
    projectors = []
    for projector in loss.projectors:
        bias = rng.uniform(0.5, 1, theirs)  # some output is above 0, so the cosine is defined
        projector.conv.bias.set_value(bias.astype("float32"))
        projectors.append(
            (projector.conv.weight.numpy().astype("float64"), bias.astype("float32").astype("float64"))
        )
    pooled = s.mean((2, 3))
    if min(np.abs(np.mean([np.maximum(pooled @ w + b, 0) for w, b in projectors], 0)).max(-1)) < 1e-3:
        return
    value = loss(paddle.to_tensor(s, dtype="float32"), paddle.to_tensor(t, dtype="float32"))
    np.testing.assert_allclose(float(value), ref.pefd(pooled, t, projectors), rtol=1e-3, atol=1e-5)


def test_pefd_projectors_start_apart_and_ignore_scale():
    loss = PEFDLoss(6, 6)
    first, second = (loss.projectors[i].conv.weight.numpy() for i in (0, 1))
    assert np.abs(first - second).max() > 0.1
    s, t = paddle.randn([4, 6]), paddle.randn([4, 6])
    assert float(loss(s, 5 * t)) == pytest.approx(float(loss(s, t)), rel=1e-5)


@quick
@given(seeds, st.integers(2, 5), st.integers(1, 5), st.integers(1, 5))
def test_srd_against_the_paper(seed, n, mine, theirs):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, mine, 2, 2)), rng.standard_normal((n, theirs, 3, 3))
    loss = SRDLoss(mine, theirs)
    weight, bias = (p.numpy().astype("float64") for p in loss.projector.parameters())
    value = loss(paddle.to_tensor(s, dtype="float32"), paddle.to_tensor(t, dtype="float32"))
    expected = ref.srd(s.mean((2, 3)), t.mean((2, 3)), weight, bias)
    np.testing.assert_allclose(float(value), expected, rtol=1e-3, atol=1e-3)
    flat = SRDLoss(mine * 4, theirs * 9, mode="flatten")
    assert flat.projector.weight.shape == [mine * 4, theirs * 9]
    assert flat(paddle.to_tensor(s, dtype="float32"), paddle.to_tensor(t, dtype="float32")).ndim == 0


def test_srd_of_positions_is_srd_of_each_place_in_the_map():
    rng = np.random.default_rng(0)
    s, t = rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((2, 5, 4, 4))
    loss = SRDLoss(3, 5, mode="positions")
    weight, bias = (p.numpy().astype("float64") for p in loss.projector.parameters())
    halved = t.reshape(2, 5, 2, 2, 2, 2).mean((3, 5))
    rows = [np.moveaxis(x, 1, -1).reshape(8, -1) for x in (s, halved)]
    value = loss(paddle.to_tensor(s, dtype="float32"), paddle.to_tensor(t, dtype="float32"))
    assert float(value) == pytest.approx(ref.srd(*rows, weight, bias), rel=1e-4)


def test_srd_stays_finite_where_student_and_teacher_agree():
    loss = SRDLoss(3, 3)
    loss.projector.weight.set_value(np.eye(3, dtype="float32"))
    x = paddle.to_tensor(np.eye(4, 3, dtype="float32"), stop_gradient=False)
    value = loss(x, x.detach())
    value.backward()
    assert float(value) == pytest.approx(np.log(1e-24))
    assert np.abs(x.grad.numpy()).max() == 0


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_wkd_feature_against_the_paper(seed, n, mine, theirs):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, mine, 4, 4)), rng.standard_normal((n, theirs, 3, 2))
    loss = WKDFeatureLoss(mine, theirs, ratio=3.0)
    weight = loss.projector[0].weight.numpy().astype("float64")
    projected = np.maximum(ref.batch_norm(ref.conv(s, weight, np.zeros(theirs)), 1e-5), 0)
    value = loss(paddle.to_tensor(s, dtype="float32"), paddle.to_tensor(t, dtype="float32"))
    np.testing.assert_allclose(float(value), ref.wkd_feature(projected, t, 3.0), rtol=1e-3)


@quick
@given(seeds, st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 4))
def test_reviewkd_against_the_paper(seed, n, channels, max_width):
    """Also with maps of other sizes than the teacher's, and with pooled features as the deepest level."""
    rng = np.random.default_rng(seed)
    theirs = [c + 1 for c in channels]
    sides = [6, 3, 1][: len(channels)]
    s = [rng.standard_normal((n, c, k, k)) for c, k in zip(channels, sides, strict=True)]
    t = [rng.standard_normal((n, c, k + 2, k + 2)) for c, k in zip(theirs, sides, strict=True)]
    loss = ReviewKDLoss(channels, theirs, max_width)
    weights = {}
    for i, fusion in enumerate(loss.fusions):
        assert fusion.reduce[0].weight.shape[0] == min(max_width, channels[-1])
        assert (fusion.gates is None) == (i == len(channels) - 1)
        weights[f"reduce.{i}"], weights[f"expand.{i}"] = (
            layer[0].weight.numpy().astype("float64") for layer in (fusion.reduce, fusion.expand)
        )
        if fusion.gates is not None:
            fusion.gates.bias.set_value(rng.standard_normal(2).astype("float32"))
            weights[f"gates.{i}"] = fusion.gates.weight.numpy().astype("float64")
            weights[f"gates_bias.{i}"] = fusion.gates.bias.numpy().astype("float64")
    given_maps = [[paddle.to_tensor(x, dtype="float32") for x in maps] for maps in (s, t)]
    expected = ref.reviewkd(s, t, weights)
    np.testing.assert_allclose(float(loss(*given_maps)), expected, rtol=2e-3)
    if sides[-1] == 1:
        given_maps[0][-1] = given_maps[0][-1].flatten(1)
        np.testing.assert_allclose(float(loss(*given_maps)), expected, rtol=2e-3)


@pytest.mark.parametrize(
    ("base", "keys", "text"),
    [
        (
            "MGDLoss",
            {"s_key": ["low", "map"], "t_key": ["low", "map"]},
            r"MGDLoss compares one .*\['low', 'map'\]",
        ),
        ("ATLoss", {"s_key": ["low"], "t_key": "low"}, "expected lists of equal length"),
        ("ATLoss", {"s_key": ["low"], "t_key": ["low", "map"]}, "expected lists of equal length"),
        ("ATLoss", {"s_key": "map", "t_key": "map", "dtype": "float32"}, "no option 'dtype'"),
        ("ATLoss", {"s_key": [], "t_key": []}, "expected lists of equal length"),
        ("ReviewKDLoss", {"s_key": "map", "t_key": "map"}, "give lists of outputs"),
        (
            "ReviewKDLoss",
            {"s_key": ["key"], "t_key": ["query"]},
            r"output 0 of shape \[2, 2, 3, 6\]|expected",
        ),
        ("ReviewKDLoss", {"s_key": ["low"], "t_key": ["query"]}, r"output 0 of shape \[2, 3, 6\]"),
        ("ReviewKDLoss", {"max_width": 0, "s_key": ["map"], "t_key": ["map"]}, "max_width: got 0"),
        (
            "ReviewKDLoss",
            {"student_channels": [3], "teacher_channels": [5, 5], "s_key": ["map"], "t_key": ["map"]},
            "1 student_channels and 2",
        ),
        (
            "ReviewKDLoss",
            {"student_channels": [3, 3], "s_key": ["map"], "t_key": ["map"]},
            "student_channels: got 2 numbers for 1 maps",
        ),
        ("WKDFeatureLoss", {"ratio": 0.0}, "ratio: got 0.0"),
        ("WKDFeatureLoss", {"s_key": "vector", "t_key": "map"}, r"shapes \[2, 3\] and \[2, 5, 4, 4\]"),
        ("ATLoss", {"s_key": "vector", "t_key": "map"}, r"shapes \[2, 3\] and \[2, 5, 4, 4\]"),
        ("SRDLoss", {"mode": "max"}, "'gap' or 'flatten' or 'positions'"),
        ("SRDLoss", {"mode": "positions", "s_key": "vector", "t_key": "map"}, r"positions needs.*\[2, 3\]"),
    ],
)
def test_keys_and_options_that_do_not_fit_a_loss_of_maps(base, keys, text):
    given = outputs()
    given["S"]["vector"] = given["S"]["map"].mean([2, 3])
    node = {"model_name_pairs": [["S", "T"]], "base_loss_name": base, **keys}
    with pytest.raises(ConfigError, match=text):
        build_loss([{"DistillationPairLoss": node}], outputs=given)


def test_attention_transfer_sums_over_its_maps():
    given = outputs()
    node = {"model_name_pairs": [["S", "T"]], "base_loss_name": "ATLoss"}

    def value(key: Any) -> float:
        return float(
            build_loss([{"DistillationPairLoss": {**node, "s_key": key, "t_key": key}}])(given)["loss"]
        )

    assert value(["low", "map"]) == pytest.approx(value("low") + value("map"))


def test_ofd_weighs_stages_and_divides():
    given = outputs()
    loss = OFDLoss(**OFD["OFDLoss"], student_channels=[3, 3], teacher_channels=[5, 5], divisor=100.0)
    loss.connectors = nn.LayerList([nn.Sequential(nn.Conv2D(3, 5, 1)) for _ in range(2)])
    stages = []
    for i, key in enumerate(("low", "map")):
        weight, bias = (p.numpy().astype("float64") for p in loss.connectors[i].parameters())
        connected = ref.conv(given["S"][key].numpy().astype("float64"), weight, bias)
        margin = np.full(5, -0.5) if i == 0 else -np.arange(1, 6) / 10
        stages.append(ref.ofd(connected, given["T"][key].numpy(), margin))
    expected = (stages[0] / 2 + stages[1]) / (2 * 100)
    np.testing.assert_allclose(float(loss(given)["loss_ofd"]), expected, rtol=1e-4)


class TwoBlocks(nn.Layer):
    """A teacher with BatchNorm layers to read margins from."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.LayerList([nn.Sequential(nn.Conv2D(5, 5, 1), nn.BatchNorm2D(5)) for _ in range(2)])


def test_ofd_reads_margins_from_the_teachers_batch_norm():
    teacher = TwoBlocks()
    scale, shift = np.linspace(0.2, 1.5, 5), np.linspace(-1, 2, 5)
    for block in teacher.blocks:
        block[1].weight.set_value(scale.astype("float32"))
        block[1].bias.set_value(shift.astype("float32"))
    options = {k: v for k, v in OFD["OFDLoss"].items() if k != "margins"}
    margins = [ref.mean_below_zero(a, b) for a, b in zip(scale, shift, strict=True)]
    by_layers = {**options, "teacher_bns": ["blocks[0][1]", "blocks.1.1"]}
    given = outputs()
    values = []
    for config in (by_layers, {**options, "margins": [margins, margins]}):
        paddle.seed(0)
        loss = build_loss([{"OFDLoss": config}], outputs=given, networks={"S": teacher, "T": teacher})
        values.append(float(loss(given)["loss"]))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for wrong, text in (("blocks[0][0]", "no BatchNorm"), ("blocks[0][7]", "no sublayer.*Did you mean")):
        node = {"OFDLoss": {**options, "teacher_bns": ["blocks[0][1]", wrong]}}
        with pytest.raises(ConfigError, match=text):
            build_loss([node], outputs=given, networks={"S": teacher, "T": teacher})
    with pytest.raises(ConfigError, match="no sub-network 'T'.*S"):
        build_loss([{"OFDLoss": by_layers}], outputs=given, networks={"S": teacher})
    unread = build_loss([{"OFDLoss": by_layers}], outputs=given)
    with pytest.raises(ConfigError, match="margins of teacher_bns have not been read"):
        unread(given)


# ---------------------------------------------------------------- shapes found by a dry forward


@pytest.mark.parametrize(
    ("config", "given_options", "logged"),
    [
        (MGD, {"student_channels": 3, "teacher_channels": 5}, "MGDLoss.teacher_channels: found 5"),
        (PEFD, {"student_channel": 3, "teacher_channel": 5}, "PEFDLoss.student_channel: found 3"),
        (SRD, {"student_channel": 3, "teacher_channel": 5}, "SRDLoss.student_channel: found 3"),
        (WKD, {"student_channels": 3, "teacher_channels": 5}, "WKDFeatureLoss.teacher_channels: found 5"),
        (
            REVIEW,
            {"student_channels": [3, 3], "teacher_channels": [5, 5]},
            "ReviewKDLoss.teacher_channels.1: found 5",
        ),
        (
            OFD,
            {"student_channels": [3, 3], "teacher_channels": [5, 5]},
            "OFDLoss.student_channels.1: found 3",
        ),
        (
            AFD,
            {"s_shapes": [[3, 4, 4]] * 2, "t_shapes": [[5, 4, 4], [5, 4, 4], [5, 2, 2]], "qk_dim": 6},
            "found 2 student and 3 teacher features, dimension 6",
        ),
    ],
    ids=["MGD", "PEFD", "SRD", "WKD-F", "ReviewKD", "OFD", "AFD"],
)
def test_shapes_are_found_or_checked(config, given_options, logged, caplog):
    ((name, options),) = config.items()
    with pytest.raises(ConfigError, match=r"missing; .*build_loss\(config, outputs="):
        build_loss([config])(outputs())
    with caplog.at_level(logging.INFO, logger="ppcls"), paddle.no_grad():
        found = build_loss([config], outputs=outputs())
    assert logged in caplog.text
    stated = build_loss([{name: {**options, **given_options}}])
    shapes = {k: list(v.shape) for k, v in stated.state_dict().items()}
    assert shapes
    assert {k: list(v.shape) for k, v in found.state_dict().items()} == shapes
    caplog.clear()
    stated.prepare(outputs())
    assert "found" not in caplog.text

    given = outputs()
    parts = found(given)
    parts["loss"].backward()
    statistics = {"_mean", "_variance"}
    for parameter, twin in zip(found.named_parameters(), stated.parameters(), strict=True):
        frozen = parameter[0].rpartition(".")[2] in statistics
        assert parameter[1].stop_gradient == twin.stop_gradient == frozen
        assert (parameter[1].grad is None) == frozen
    found.set_state_dict(stated.state_dict())
    stated.eval(), found.eval()
    assert float(found(given)["loss"]) == float(stated(given)["loss"])


@pytest.mark.parametrize(
    ("config", "wrong", "numbers"),
    [
        (
            MGD,
            {"student_channels": 4, "teacher_channels": 5},
            "student_channels: got 4, but the network has 3",
        ),
        (MGD, {"teacher_channels": 7}, "teacher_channels: got 7, but the network has 5"),
        (
            PEFD,
            {"student_channel": 3, "teacher_channel": 8},
            "teacher_channel: got 8, but the network has 5",
        ),
        (SRD, {"student_channel": 4}, "student_channel: got 4, but the network has 3"),
        (WKD, {"teacher_channels": 4}, "teacher_channels: got 4, but the network has 5"),
        (REVIEW, {"teacher_channels": [5, 4]}, "teacher_channels.1: got 4, but the network has 5"),
        (OFD, {"student_channels": [3, 2]}, "student_channels.1: got 2, but the network has 3"),
        (AFD, {"s_shapes": [[3, 4, 4]]}, "s_shapes: the config has 1, the networks have 2"),
        (AFD, {"qk_dim": 128}, "qk_dim: the config has 128, the networks have 6"),
        (
            AFD,
            {"t_shapes": [[5, 4, 4]] * 3},
            r"\[16, 16, 16\] in the config and \[16, 16, 4\] in the network",
        ),
    ],
)
def test_given_shapes_that_the_networks_contradict(config, wrong, numbers):
    ((name, options),) = config.items()
    with pytest.raises(ConfigError, match=numbers):
        build_loss([{name: {**options, **wrong}}], outputs=outputs())


def test_afd_takes_the_dimension_from_the_networks_if_it_is_left_out():
    shapes = {"s_shapes": [[3, 4, 4]] * 2, "t_shapes": [[5, 4, 4], [5, 4, 4], [5, 2, 2]]}
    loss = build_loss([{"AFDLoss": {**AFD["AFDLoss"], **shapes}}])
    assert [list(p.shape) for p in loss.parameters()] == [[3, 128], [2, 128]]
    loss.prepare(outputs())
    assert [list(p.shape) for p in loss.parameters()] == [[3, 6], [2, 6]]


def test_afd_keeps_encodings_that_fit():
    """A checkpoint may have been loaded into them, and an optimizer may hold them."""
    shapes = {"s_shapes": [[3, 4, 4]] * 2, "t_shapes": [[5, 4, 4], [5, 4, 4], [5, 2, 2]], "qk_dim": 6}
    for options in (shapes, {}):
        loss = build_loss([{"AFDLoss": {**AFD["AFDLoss"], **options}}])
        if not options:
            loss.prepare(outputs())
        before = [(id(p), p.numpy()) for p in loss.parameters()]
        assert [list(value.shape) for _, value in before] == [[3, 6], [2, 6]]
        loss.prepare(outputs())
        assert [id(p) for p in loss.parameters()] == [address for address, _ in before]
        for parameter, (_, value) in zip(loss.parameters(), before, strict=True):
            np.testing.assert_array_equal(parameter.numpy(), value)


@pytest.mark.parametrize(
    ("network", "key", "change"),
    [
        ("T", "query", lambda query: query[:, :2]),
        ("T", "query", lambda query: query[:, :, :5]),
        ("T", "value", lambda values: values[::2]),
        ("S", "key", lambda key: key[:, :, :2]),
    ],
)
def test_afd_features_of_other_numbers_or_dimensions(network, key, change):
    """Also where there are enough student values for what is left."""
    given = outputs()
    given[network][key] = change(given[network][key])
    with pytest.raises(ConfigError, match=r"AFDLoss: keys \[.*\] and queries \[.*\] do not fit"):
        build_loss([AFD], outputs=given)


def test_each_pair_has_parameters_of_its_own():
    given = outputs()
    given["T2"] = {"map": paddle.randn([2, 7, 4, 4])}
    node = {**MGD["DistillationPairLoss"], "model_name_pairs": [["S", "T"], ["S", "T2"]]}
    loss = build_loss([{"DistillationPairLoss": node}], outputs=given)
    widths = [v.shape[0] for k, v in loss.state_dict().items() if k.endswith("align.weight")]
    assert widths == [5, 7]
    assert list(loss(given))[:-1] == ["loss_0_S_T", "loss_1_S_T2"]


@pytest.mark.parametrize(
    ("config", "key", "shape", "text"),
    [
        (MGD, "map", [2, 3, 2, 2], r"\[2, 3, 2, 2\] and \[2, 5, 4, 4\].*s_key and t_key"),
        (MGD, "map", [2, 3], "expected"),
        (
            REVIEW,
            "low",
            [2, 3, 2, 2],
            r"ReviewKDLoss\.s_key: the maps have heights of 2, 4, expected the order",
        ),
        (OFD, "map", [2, 3, 2, 2], "equal H and W"),
        (AFD, "key", [2, 2, 3, 5], "do not fit"),
    ],
)
def test_features_that_cannot_be_compared(config, key, shape, text):
    given = outputs()
    given["S"][key] = paddle.zeros(shape)
    with pytest.raises(ConfigError, match=text):
        build_loss([config], outputs=given)


def test_afd_misses_student_values_of_a_size():
    given = outputs()
    given["S"]["value"] = given["S"]["value"][:1]
    with pytest.raises(ConfigError, match="no student values with 4 positions for teacher feature 2"):
        build_loss([AFD], outputs=given)


@pytest.mark.parametrize(
    ("config", "wrong", "text"),
    [
        (MGD, {"lambda_mgd": 1.0}, "lambda_mgd"),
        (MGD, {"alpha_mgd": 0.0}, "alpha_mgd"),
        (MGD, {"alpha_mgd": float("inf")}, "alpha_mgd: got inf, expected a finite number"),
        (MGD, {"student_channels": 0}, "student_channels: got 0, expected at least 1"),
        (WKD, {"teacher_channels": -1}, "teacher_channels: got -1, expected at least 1"),
        (SRD, {"student_channel": 0}, "student_channel: got 0, expected at least 1"),
        (PEFD, {"teacher_channel": 0}, "teacher_channel: got 0, expected at least 1"),
        (REVIEW, {"student_channels": [3, 0]}, "student_channels: got 0, expected at least 1"),
        (OFD, {"teacher_channels": [5, -5]}, "teacher_channels: got -5, expected at least 1"),
        (PEFD, {"num_projectors": 0}, "num_projectors"),
        (PEFD, {"mode": "max"}, "mode: expected 'flatten' or 'gap'"),
        (OFD, {"margins": None}, "either teacher_bns"),
        (OFD, {"teacher_bns": ["a", "b"]}, "either teacher_bns"),
        (OFD, {"margins": [0.5, -1.0]}, "at most 0"),
        (OFD, {"student_keys": ["map"]}, "1 entries for 2 teacher_keys"),
        (OFD, {"divisor": 0}, "divisor"),
        (AFD, {"student_keys": ["key"]}, "two student_keys"),
        (AFD, {"model_name_pair": ["S"]}, "expected two names"),
    ],
)
def test_mistakes_in_options(config, wrong, text):
    ((name, options),) = config.items()
    with pytest.raises(ConfigError, match=text):
        build_loss([{name: {**options, **wrong}}])
