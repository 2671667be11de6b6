"""Top-k accuracy against a count in NumPy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.errors import ConfigError
from ppcls.metric import build_metric


def counted(logits, label, k):
    order = np.argsort(-logits, axis=1)[:, : min(k, logits.shape[1])]
    return np.mean([y in row for y, row in zip(label, order, strict=True)])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    c=st.integers(1, 12),
    ks=st.lists(st.integers(1, 15), min_size=1, max_size=3, unique=True),
    column=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_a_plain_count(n, c, ks, column, seed):
    rng = np.random.default_rng(seed)
    logits = rng.permutation(n * c).reshape(n, c).astype("float32")  # no ties
    label = rng.integers(0, c, n)
    metric = build_metric([{"TopkAcc": {"topk": ks}}])
    given_label = label[:, None] if column else label
    values = metric(paddle.to_tensor(logits), paddle.to_tensor(given_label))
    assert list(values) == [f"top{k}" for k in ks]
    for k in ks:
        assert float(values[f"top{k}"]) == pytest.approx(counted(logits, label, k), abs=1e-6)
        assert values[f"top{k}"].shape == []


LOGITS = {name: paddle.to_tensor(v) for name, v in {
    "Student": [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]],
    "Teacher": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]],
}.items()}  # fmt: skip
LABEL = paddle.to_tensor([[0], [2]])


def test_soft_labels_count_by_their_largest_part():
    soft = paddle.to_tensor([[0.7, 0.3, 0.0], [0.6, 0.0, 0.4]])
    assert float(build_metric([{"TopkAcc": {"topk": 1}}])(LOGITS["Student"], soft)["top1"]) == 0.5


def test_networks_with_and_without_taps():
    metric = build_metric([{"TopkAcc": {"topk": [1]}}])
    assert metric.networks == set()
    assert float(metric({"logits": LOGITS["Student"], "blocks[3]": None}, LABEL)["top1"]) == 1.0


def test_main_network_of_several():
    metric = build_metric([{"TopkAcc": {"topk": [1]}}], main="Teacher")
    assert metric.networks == {"Teacher"}
    assert float(metric(LOGITS, LABEL)["top1"]) == 0.5
    assert float(metric({"Teacher": {"logits": LOGITS["Teacher"]}}, LABEL)["top1"]) == 0.5


def test_two_networks_keep_both_values():
    nodes = [{"DistillationTopkAcc": {"model_key": name, "topk": [1]}} for name in ("Student", "Teacher")]
    metric = build_metric(nodes, main="Student")
    assert metric.networks == {"Student", "Teacher"}
    values = {name: float(value) for name, value in metric(LOGITS, LABEL).items()}
    assert values == {"top1": 1.0, "top1_Teacher": 0.5}


def test_no_metric_is_allowed():
    assert build_metric(None)(LOGITS["Student"], LABEL) == {}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"TopkAc": {}}, "Did you mean: TopkAcc"),
        ({"TopkAcc": {"topkk": 1}}, "Did you mean: topk"),
        ({"TopkAcc": {"topk": [0]}}, "topk"),
        ({"TopkAcc": {"topk": []}}, "topk"),
        ({"DistillationTopkAcc": {"topk": [1]}}, "needs model_key"),
    ],
)
def test_mistakes_are_named(node, message):
    with pytest.raises(ConfigError, match=message):
        build_metric([node])


def test_a_missing_network_is_named_with_those_there_are():
    metric = build_metric([{"DistillationTopkAcc": {"model_key": "Studnt", "topk": [1]}}])
    with pytest.raises(ConfigError, match="Student, Teacher"):
        metric(LOGITS, LABEL)
