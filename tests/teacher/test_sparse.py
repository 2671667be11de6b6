"""Kept classes: the K most probable ones keep their probabilities, drawn ones are right on average."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from ppcls.loss.kldiv import kl_divergence
from ppcls.teacher.columns import Columns, Keeping
from ppcls.teacher.sparse import draw, from_drawn, from_most_probable, most_probable

RNG = np.random.default_rng(0)


def softmax(logits):
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def logits(rows=6, classes=20, scale=3.0):
    return (np.random.default_rng(1).standard_normal((rows, classes)) * scale).astype(np.float32)


@pytest.mark.parametrize("k", [1, 3, 19])
def test_most_probable_classes_keep_their_probability(k):
    given = logits()
    log_p, classes = most_probable(given, k)
    p = softmax(given)
    found = softmax(from_most_probable(log_p, classes, 20))
    np.testing.assert_array_equal(classes, np.argsort(-p, 1)[:, :k])
    np.testing.assert_allclose(
        np.take_along_axis(found, classes, 1), np.take_along_axis(p, classes, 1), rtol=1e-5
    )
    rest = np.sort(found, 1)[:, : 20 - k]
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert np.ptp(rest, axis=1).max() < 1e-6 or k == 19


def test_rounded_probabilities_that_sum_to_more_than_one():
    log_p = np.log(np.array([[0.9, 0.2]]))
    assert np.isfinite(from_most_probable(log_p, np.array([[3, 1]]), 5)).all()


def test_drawn_classes_are_right_on_average():
    given = logits(rows=1, classes=6, scale=1.0)
    classes = draw(np.repeat(given, 20000, 0), 5, np.random.default_rng(3))
    found = softmax(from_drawn(classes, 6)).mean(0)
    np.testing.assert_allclose(found, softmax(given)[0], atol=0.005)


@pytest.mark.parametrize("kept", ["topk", "sample"])
def test_loss_of_kept_classes_is_finite_and_its_gradient_near(kept):
    """With drawn classes, the gradient of KD at temperature 1 is right on average."""
    teacher = np.repeat(logits(rows=1, classes=8, scale=2.0), 4000, 0)
    if kept == "topk":
        log_p, classes = most_probable(teacher, 4)
        back = from_most_probable(log_p, classes, 8)
        exact = classes[0]
    else:
        back = from_drawn(draw(teacher, 3, np.random.default_rng(4)), 8)
        exact = np.arange(8)
    gradients = []
    for target in (teacher, back):
        student = paddle.zeros([len(teacher), 8])
        student.stop_gradient = False
        loss = kl_divergence(student, paddle.to_tensor(target), temperature=1.0)
        loss.backward()
        assert np.isfinite(float(loss))
        gradients.append(student.grad.numpy().sum(0))
    np.testing.assert_allclose(gradients[1][exact], gradients[0][exact], atol=0.02)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("kept", "size"), [("all", None), ("topk", 3), ("sample", 3)])
def test_records_give_back_what_was_encoded(precision, kept, size):
    output = {"logits": paddle.to_tensor(logits()), "feature": paddle.rand([6, 2, 3])}
    columns = Columns.of_outputs({"T": output}, Keeping(precision, precision, kept, size or 0))
    again = Columns.from_json(columns.as_json())
    assert again.dtype == columns.dtype
    number = 4 if precision == "float32" else 2
    of_logits = {"all": 20 * number, "topk": 3 * (number + 2), "sample": 3 * 2}[kept]
    assert columns.dtype.itemsize == 4 + of_logits + 6 * number
    values = columns.encode("T", output, 6, np.random.default_rng(0))
    records = columns.records(values, np.arange(6))
    first, second = columns.decode(values, "T"), again.decode(records, "T")
    for name in ("logits", "feature"):
        assert (first[name].numpy() == second[name].numpy()).all()
        assert first[name].shape == output[name].shape
    tolerance = {"float32": 0, "float16": 1e-3, "bfloat16": 8e-3}[precision]
    np.testing.assert_allclose(first["feature"].numpy(), output["feature"].numpy(), rtol=tolerance)


def test_numbers_too_large_for_float16_are_refused():
    from ppcls.errors import DataError

    output = paddle.full([2, 3], 1e6)
    columns = Columns.of_outputs({"T": output}, Keeping("float16", "float16"))
    with pytest.raises(DataError, match="float16 cannot hold"):
        columns.encode("T", output, 2, RNG)
