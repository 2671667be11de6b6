"""Top-k accuracy against a count in NumPy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle.nn import functional as F

from ppcls.data.postprocess import Topk
from ppcls.errors import ConfigError
from ppcls.metric import Criterion, build_metric, build_metric_for
from ppcls.registry import METRICS


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


def test_of_equal_logits_the_first_is_the_prediction():
    logits, label = paddle.zeros([6, 6]), paddle.arange(6).reshape([6, 1])
    values = build_metric([{"TopkAcc": {"topk": [1, 6]}}])(logits, label)
    hits = Topk(topk=1)(F.softmax(logits).numpy())
    shares = np.mean([result["class_ids"] == [y] for y, result in enumerate(hits)])
    assert [float(value) for value in values.values()] == pytest.approx([shares, 1.0])
    assert float(build_metric([{"TopkAcc": {"topk": 1}}])(logits[:1], label[:1])["top1"]) == 1.0


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_logits_that_are_not_a_number_have_no_accuracy(precision):
    logits = paddle.to_tensor([[1.0, 2.0], [np.inf, -np.inf]]).astype(precision)
    metric = build_metric([{"TopkAcc": {"topk": [1, 2]}}])
    label = paddle.to_tensor([[1], [0]])
    assert [float(value) for value in metric(logits, label).values()] == [1.0, 1.0]
    logits[0, 0] = np.nan
    assert all(np.isnan(float(value)) for value in metric(logits, label).values())


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


@pytest.mark.parametrize("taps", [False, True])
def test_a_class_map_puts_the_logits_of_a_network_into_the_order_of_the_labels(taps):
    nodes = [{"DistillationTopkAcc": {"model_key": name, "topk": [1]}} for name in ("Student", "Teacher")]
    theirs = paddle.concat([LOGITS["Teacher"][:, ::-1], 9 * paddle.ones([2, 1])], axis=1)  # a fourth class
    outputs = {**LOGITS, "Teacher": {"logits": theirs, "flatten": theirs} if taps else theirs}
    metric = build_metric(nodes, main="Student", class_maps={"Teacher": [2, 1, 0], "Absent": [0, 1, 2]})
    assert {name: float(value) for name, value in metric(outputs, LABEL).items()} == {
        "top1": 1.0,
        "top1_Teacher": 0.5,
    }
    assert (outputs["Teacher"]["logits"] if taps else outputs["Teacher"]) is theirs
    metric = build_metric(nodes, main="Student", class_maps={"Teacher": [9, 1, 0]})
    with pytest.raises(ConfigError, match="teacher's class 9, but it has 4 classes"):
        metric(outputs, LABEL)


def test_no_metric_is_allowed():
    assert build_metric(None)(LOGITS["Student"], LABEL) == {}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"TopkAc": {}}, "Did you mean: TopkAcc"),
        ({"TopkAcc": {"topkk": 1}}, "Did you mean: topk"),
        ({"TopkAcc": {"topk": [0]}}, "topk"),
        ({"TopkAcc": {"topk": []}}, "topk"),
        ({"DistillationTopkAcc": {"topk": [1]}}, "needs the option 'model_key'"),
    ],
)
def test_mistakes_are_named(node, message):
    with pytest.raises(ConfigError, match=message):
        build_metric([node])


def test_a_missing_network_is_named_with_those_there_are():
    metric = build_metric([{"DistillationTopkAcc": {"model_key": "Studnt", "topk": [1]}}])
    with pytest.raises(ConfigError, match="Student, Teacher"):
        metric(LOGITS, LABEL)


# ------------------------------------------------------------------ several networks, plug-ins


def accuracy(network, **more):
    return {"DistillationTopkAcc": {"model_key": network, "topk": [1], **more}}


def test_only_the_main_network_goes_without_a_name():
    metric = build_metric([accuracy("Teacher"), accuracy("Student")], main="Student")
    values = {name: float(value) for name, value in metric(LOGITS, LABEL).items()}
    assert values == {"top1_Teacher": 0.5, "top1": 1.0}
    assert metric.criterion(LOGITS, LABEL) == Criterion("top1", True)
    assert build_metric([accuracy("Teacher")], main="Student").criterion(LOGITS, LABEL) is None


@pytest.mark.parametrize(
    ("nodes", "network", "expected"),
    [
        ([accuracy("A")], "A", ["A"]),
        ([accuracy("A")], "B", ["B"]),  # follows
        ([accuracy("B")], "A", ["A"]),
        ([{"TopkAcc": {}}], "B", ["B"]),
        ([accuracy("A"), accuracy("B", topk=[2])], "B", ["B"]),
        ([accuracy("Frozen"), accuracy("A")], "A", ["A", "Frozen"]),
        ([accuracy("Frozen"), accuracy("A")], "B", ["B"]),
        ([accuracy("Frozen")], "A", ["A", "Frozen"]),
        ([accuracy("Frozen")], "B", ["B"]),
        ([accuracy("B"), accuracy("C", topk=[2])], "A", ["A"]),
        ([], "A", []),
    ],
)
def test_metrics_of_one_network_out_of_several(nodes, network, expected):
    """A is the network to deploy; B and C are measured by themselves too."""
    metric = build_metric_for(nodes, network, "A", ["B", "C"])
    assert [m.network for m in metric.metrics] == expected
    explicit = [node["DistillationTopkAcc"]["topk"] for node in nodes if node == accuracy("B", topk=[2])]
    if network == "B" and explicit:
        assert metric.metrics[0].topk == [2]
    if expected:
        outputs = dict.fromkeys(("A", "B", "C", "Frozen"), LOGITS["Student"])
        assert next(iter(metric(outputs, LABEL))).startswith("top")
        assert metric.criterion(outputs, LABEL).higher_is_better


def test_scores_grow_with_quality_and_nothing_infinite_wins():
    more, less = Criterion("a", True), Criterion("a", False)
    assert more.score({"a": 2.0}) > more.score({"a": 1.0})
    assert less.score({"a": 1.0}) > less.score({"a": 2.0})
    for criterion in (more, less):
        assert criterion.shown(criterion.score({"a": -0.25})) == "-0.25000"
        assert criterion.shown(None) == "none"
        for value in (np.nan, np.inf, -np.inf):
            assert criterion.score({"a": value}) == -np.inf


def test_a_plugin_need_not_derive_from_the_base_class():
    class Plain:
        higher_is_better = False

        def __call__(self, outputs, label):
            return {"error": 1 - float((outputs.argmax(-1) == label.reshape([-1])).astype("float32").mean())}

    class Aware:
        network = None

        def __call__(self, outputs, label):
            return {"mean": outputs[self.network].mean()}

    for name, entry in {"Plain": Plain, "Aware": Aware, "NoMetric": lambda: 3}.items():
        METRICS.register(name)(entry)
    metric = build_metric([{"Plain": None}])
    assert float(metric(LOGITS["Teacher"], LABEL)["error"]) == 0.5
    assert metric.criterion(LOGITS["Teacher"], LABEL) == Criterion("error", False)
    metric = build_metric([{"Aware": None}], main="Student")
    assert float(metric(LOGITS, LABEL)["mean"]) == 2.0
    with pytest.raises(
        ConfigError, match="NoMetric .*is no complete metric: it has no method __call__.outputs, label"
    ):
        build_metric([{"NoMetric": None}])
