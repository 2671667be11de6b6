"""Yes or no by a threshold, and the post-process of one network out of several."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.data import build_postprocess
from ppcls.errors import ConfigError

HELMET = {"name": "ThreshOutput", "threshold": 0.4, "label_0": "helmet", "label_1": "none"}


@settings(max_examples=50, deadline=None)
@given(yes=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), threshold=st.floats(0, 1, width=32))
def test_equals_a_plain_comparison(yes, threshold):
    second = np.array(yes, np.float32)
    found = build_postprocess({"name": "ThreshOutput", "threshold": threshold})(
        np.stack([1 - second, second], 1)
    )
    chosen = np.where(second >= threshold, 1, 0)
    assert [result["class_ids"] for result in found] == [[int(c)] for c in chosen]
    assert [result["label_names"] for result in found] == [[str(c)] for c in chosen]
    scores = np.where(chosen == 1, second, 1 - second)
    assert np.allclose([result["scores"][0] for result in found], scores, atol=6e-6)


def test_keys_come_in_order_and_the_bound_belongs_to_class_1():
    rows = np.array([[0.6, 0.4], [0.6123456, 0.3876544]], np.float64)
    first, second = build_postprocess(HELMET)(rows, ["a.jpg", "b.jpg"])
    expected = {"class_ids": [1], "scores": [0.4], "file_name": "a.jpg", "label_names": ["none"]}
    assert str(first) == str(expected)
    assert second == {
        "class_ids": [0],
        "scores": [0.61235],
        "file_name": "b.jpg",
        "label_names": ["helmet"],
    }


def test_the_post_process_of_one_network_is_the_one_that_func_names():
    rows = np.array([[0.7, 0.3], [0.2, 0.8]])
    for inner in ({"name": "Topk", "topk": 2}, HELMET):
        options = {k: v for k, v in inner.items() if k != "name"}
        whole = {"name": "DistillationPostProcess", "func": inner["name"], "key": "logits", **options}
        assert build_postprocess(whole)(rows, ["a", "b"]) == build_postprocess(inner)(rows, ["a", "b"])
    assert build_postprocess({"name": "DistillationPostProcess", "topk": 1})(rows)[1]["class_ids"] == [1]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"name": "ThreshOutput", "threshold": 1.5}, "threshold: expected a probability, 0 to 1, got 1.5"),
        ({"name": "ThreshOutput", "threshold": float("nan")}, "threshold: expected"),
        ({"name": "ThreshOutput"}, "needs the option 'threshold'"),
        ({"name": "DistillationPostProcess", "func": "Topkk"}, "func: unknown post-process 'Topkk'.*Topk"),
        ({"name": "DistillationPostProcess", "func": "DistillationPostProcess"}, "names itself"),
        ({"name": "DistillationPostProcess", "key": "pool"}, "key: expected logits or null, got 'pool'"),
        ({"name": "DistillationPostProcess", "tokp": 1}, "no option 'tokp'. Did you mean: topk"),
    ],
)
def test_mistakes(node, words):
    with pytest.raises(ConfigError, match=words):
        build_postprocess(node)


def test_three_classes_are_refused():
    with pytest.raises(ConfigError, match="two classes, but the network has 3; use Topk"):
        build_postprocess(HELMET)(np.full((1, 3), 1 / 3))
