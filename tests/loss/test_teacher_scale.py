"""Standardised features of a teacher: mean 0 in each channel, average variance 1."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from ppcls.errors import ConfigError
from ppcls.loss import build_loss

PAIR = {"model_name_pairs": [["S", "T"]], "standardize_teacher": True}
SHAPES = {"vectors": [6, 5], "tokens": [6, 4, 5], "maps": [6, 5, 3, 2]}


def features(shape, seed=0):
    rng = np.random.default_rng(seed)
    channels = (
        np.array([1.0, 10.0, 0.1, 3.0, 2.0])
        if shape[-1] == 5
        else np.array([1, 10, 0.1, 3, 2])[:, None, None]
    )
    return (rng.standard_normal(shape) * channels + 7 * channels).astype("float32")


def measured(loss, *batches):
    (wanted,) = loss.measurements()
    for batch in batches:
        wanted.moments.add(wanted.rows({"f": paddle.to_tensor(batch)}))
    wanted.finish(wanted.moments)
    return loss


def outputs(student, teacher):
    own = paddle.to_tensor(student, stop_gradient=False)
    return {"S": {"f": own}, "T": {"f": paddle.to_tensor(teacher)}}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_mean_and_scale_against_numpy(shape):
    batches = [features(shape, seed) for seed in range(3)]
    student = np.random.default_rng(9).standard_normal(shape).astype("float32")
    given = outputs(student, batches[0])
    loss = build_loss([{"DistillationDistanceLoss": {**PAIR, "key": "f"}}], outputs=given)
    parts = measured(loss, *batches)(given)
    axes = (0, 2, 3) if len(shape) == 4 else tuple(range(len(shape) - 1))
    everything = np.concatenate(batches).astype(np.float64)
    mean = everything.mean(axes, keepdims=True)
    scale = np.sqrt(everything.var(axes).mean())
    expected = ((student - (batches[0] - mean) / scale) ** 2).mean()
    assert float(parts["loss"]) == pytest.approx(expected, rel=1e-4)
    parts["loss"].backward()
    assert np.abs(given["S"]["f"].grad.numpy()).max() > 0
    whole = (everything - mean) / scale
    assert whole.var(axes).mean() == pytest.approx(1)


def test_each_teacher_and_each_map_has_its_own():
    shape = SHAPES["maps"]
    given = {
        name: {"f": paddle.to_tensor(features(shape, i)), "g": paddle.to_tensor(features(shape, 9 + i))}
        for i, name in enumerate("STU")
    }
    node = {**PAIR, "model_name_pairs": [["S", "T"], ["S", "U"]], "base_loss_name": "ATLoss"}
    loss = build_loss(
        [{"DistillationPairLoss": {**node, "s_key": ["f", "g"], "t_key": ["f", "g"]}}], outputs=given
    )
    wanted = loss.measurements()
    assert [(one.network, one.what) for one in wanted] == [
        (name, f"mean and scale of {key}") for name in "TU" for key in "fg"
    ]
    for one in wanted:
        one.moments.add(one.rows(given[one.network]))
        one.finish(one.moments)
    means = [value.numpy() for name, value in loss.state_dict().items() if name.endswith("mean")]
    assert len({tuple(mean) for mean in means}) == 4
    assert np.isfinite(float(loss(given)["loss"]))


def test_what_cannot_be_standardised():
    given = outputs(np.ones([2, 3], "float32"), np.ones([2, 3], "float32"))
    node = [{"DistillationDistanceLoss": {**PAIR, "key": "f"}}]
    with pytest.raises(ConfigError, match="mean and scale have not been measured"):
        build_loss(node, outputs=given)(given)
    with pytest.raises(ConfigError, match="f of T is the same for all images"):
        measured(build_loss(node, outputs=given), np.ones([2, 3], "float32"))
    flat = outputs(np.ones([2], "float32"), np.ones([2], "float32"))
    with pytest.raises(ConfigError, match=r"the teacher's output is \[2\], expected \[N, D\]"):
        build_loss(node, outputs=flat)
