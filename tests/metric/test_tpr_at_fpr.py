"""The hit rate at a bounded rate of false alarms, against a search over all thresholds in NumPy."""

from __future__ import annotations

import math
import pickle

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.engine.meters import Meters, format_metrics, short_metrics
from ppcls.errors import ConfigError, DataError
from ppcls.metric import build_metric
from ppcls.metric.tpr_at_fpr import best_operating_point


def searched(label: np.ndarray, score: np.ndarray, max_fpr: float) -> float:
    """Return the largest hit rate over all thresholds that differ."""
    best = 0.0
    for threshold in [*score, 2.0]:
        called = score >= threshold
        if called[label == 0].mean() <= max_fpr:
            best = max(best, called[label == 1].mean())
    return best


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12)), min_size=2, max_size=40),
    max_fpr=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
)
def test_equals_a_search_over_all_thresholds(rows, max_fpr):
    label, score = np.array(rows).T
    label[:2] = 0, 1
    score = (score / 12).astype(np.float32)  # ties are frequent
    tpr, fpr, threshold = best_operating_point(np.stack([label, score], 1), max_fpr)
    assert tpr == pytest.approx(searched(label, score, max_fpr))
    assert fpr <= max_fpr
    if tpr > 0:  # the threshold gives both rates
        assert (score >= threshold)[label == 1].mean() == pytest.approx(tpr)
        assert (score >= threshold)[label == 0].mean() == pytest.approx(fpr)
        higher = score > score[score >= threshold].min()
        assert higher[label == 1].mean() < tpr
    else:
        assert (fpr, threshold) == (0.0, 1.0)


def test_by_hand():
    rows = np.array([[0, 0.1], [0, 0.6], [0, 0.3], [0, 0.2], [1, 0.5], [1, 0.7], [1, 0.9], [1, 0.15]])
    assert best_operating_point(rows, 0.0) == (0.5, 0.0, 0.69)  # float32(0.7) is below 0.7
    assert best_operating_point(rows, 0.25) == (0.75, 0.25, 0.5)
    assert best_operating_point(rows, 0.74) == (0.75, 0.25, 0.5)
    assert best_operating_point(rows, 0.75) == (1.0, 0.75, 0.14)
    assert all(math.isnan(value) for value in best_operating_point(rows[:4], 0.5))
    assert all(math.isnan(value) for value in best_operating_point(rows[4:], 0.5))


@settings(max_examples=300, deadline=None)
@given(
    score=st.floats(0, 1, width=32, allow_subnormal=False),
    steps=st.integers(1, 40) | st.just(10**6),
    other=st.floats(0, 1, width=32),
)
def test_the_threshold_that_is_printed_gives_the_rates(score, steps, other):
    """Also where a network is so sure that scores differ in the last digit of float32."""
    lower = np.array(score, np.float32)
    lower = (lower.view(np.int32) - min(steps, int(lower.view(np.int32)))).view(np.float32)
    scores = np.array([lower, score, score], np.float32)
    rows = np.stack([np.array([0, 1, 1], np.float32), scores], 1)
    tpr, fpr, threshold = best_operating_point(rows, float(other) if lower < score else 1.0)
    printed = format_metrics({"threshold_Student": threshold}).removeprefix("threshold_Student: ")
    assert float(printed) == threshold
    for as_type in (np.float32, np.float64):  # deployments compare in either
        called = scores.astype(as_type) >= as_type(float(printed))
        assert (called[1:].mean(), called[0]) == (tpr, fpr)


def test_a_threshold_has_no_more_digits_than_it_needs():
    near_one = 1 - np.array([5e-6, 4e-6], np.float32)
    rows = np.stack([np.array([0, 1], np.float32), near_one], 1)
    values = dict(zip(("tpr", "fpr", "threshold"), best_operating_point(rows, 0.0), strict=True))
    assert format_metrics(values) == "tpr: 1.00000, fpr: 0.00000, threshold: 0.999996"
    assert "threshold 0.999996" in short_metrics(values)
    rows[0, 1] = 0.25
    assert best_operating_point(rows, 0.0)[2] == 0.9


@pytest.mark.parametrize("sizes", [(40,), (7, 13, 20), (39, 1)])
def test_the_value_does_not_depend_on_how_images_are_batched(sizes):
    rng = np.random.default_rng(3)
    label, logits = rng.integers(0, 2, 40), rng.normal(size=(40, 2)).astype("float32")
    logits[:, 1] += 2 * label
    metric = build_metric([{"TprAtFpr": {"max_fpr": 0.1}}, {"TopkAcc": {"topk": 1}}])
    meters, start = Meters(), 0
    for size in sizes:
        stop = start + size
        values = metric(paddle.to_tensor(logits[start:stop]), paddle.to_tensor(label[start:stop, None]))
        meters.add(values, size)
        start = stop
    meters.flush()
    found = meters.averages()
    score = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    assert list(found) == ["tpr", "fpr", "threshold", "top1"]  # in the order of the recipe
    assert found["tpr"] == pytest.approx(searched(label, score, 0.1))
    assert found["top1"] == pytest.approx((logits.argmax(1) == label).mean())
    meters.reset()
    assert not meters._rows
    meters.add({"top1": paddle.to_tensor(1.0), "tpr": paddle.to_tensor(0.5)}, 1)
    meters.flush()
    assert list(meters.averages()) == ["top1", "tpr"]


def test_the_first_metric_chooses_the_best_model():
    outputs, label = paddle.zeros([2, 2]), paddle.zeros([2, 1], "int64")
    metric = build_metric([{"TprAtFpr": None}, {"TopkAcc": None}])
    assert metric.criterion(outputs, label).name == "tpr"
    assert build_metric([{"TopkAcc": None}, {"TprAtFpr": None}]).criterion(outputs, label).name == "top1"
    value = metric(outputs, label)["threshold"]
    reduce = pickle.loads(pickle.dumps(value.reduce))  # processes exchange it
    assert reduce(np.array([[0, 0.25], [1, 0.5]], np.float32)) == 0.5


def test_mistakes():
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="max_fpr: expected a rate, 0 to 1"):
            build_metric([{"TprAtFpr": {"max_fpr": wrong}}])
    metric = build_metric([{"TopkAcc": None}, {"TprAtFpr": None}])
    with pytest.raises(ConfigError, match="two classes, this one has 3"):
        metric(paddle.zeros([1, 3]), paddle.zeros([1, 1], "int64"))
    metric.check_labels(np.array([0, 1, 1]))
    with pytest.raises(DataError, match="no image of class 1;"):
        metric.check_labels(np.array([0, 0]))
    with pytest.raises(DataError, match="no image of class 0;"):
        metric.check_labels(np.array([1]))
