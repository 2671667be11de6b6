"""Each function of tensors against NumPy float64: value and gradient on random shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import loss_reference as ref
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.loss import build_loss
from ppcls.loss._tensors import standardized
from ppcls.loss.afd import attended_distance, attention
from ppcls.loss.at import attention_transfer
from ppcls.loss.ce import cross_entropy
from ppcls.loss.dist import dist
from ppcls.loss.dkd import decoupled_kl
from ppcls.loss.dml import symmetric_kl
from ppcls.loss.feature_distance import distance
from ppcls.loss.hard import hard_distillation
from ppcls.loss.kldiv import kl_divergence
from ppcls.loss.nkd import normalized_kd
from ppcls.loss.ofa import one_for_all
from ppcls.loss.ofd import negative_mean, partial_l2
from ppcls.loss.reviewkd import hierarchical_distance
from ppcls.loss.rkd import relational
from ppcls.loss.rld import refined_logits
from ppcls.loss.skd import spherical_kd
from ppcls.loss.soft_ce import soft_cross_entropy
from ppcls.loss.srd import log_power_distance
from ppcls.loss.ttm import transformed_teacher_matching, weighted_teacher_matching
from ppcls.loss.wkd import gaussian_distance
from ppcls.loss.wkd_logit import class_distances, transport, wasserstein_logits
from ppcls.loss.wsl import weighted_soft_labels

quick = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**32 - 1)
batches = st.integers(1, 6)
class_counts = st.integers(2, 9)
temperatures = st.floats(0.5, 6)
shares = st.floats(0, 3)


def agree(loss: Callable[[Any], Any], reference: Callable[[Any], float], student: np.ndarray) -> None:
    """Compare values, and the gradient along a random direction with the reference's central difference."""
    x = paddle.to_tensor(student, dtype="float64", stop_gradient=False)
    value = loss(x)
    assert value.ndim == 0
    np.testing.assert_allclose(float(value), reference(student), rtol=1e-7, atol=1e-9)
    value.backward()
    gradient = x.grad.numpy()
    direction = np.random.default_rng(1).standard_normal(student.shape)
    h = 1e-5
    slope = (reference(student + h * direction) - reference(student - h * direction)) / (2 * h)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-6)


def tensor(x: np.ndarray) -> Any:
    return paddle.to_tensor(x)


def logits(seed: int, n: int, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((n, c)), 2 * rng.standard_normal((n, c)), rng.integers(0, c, n)


def soft(seed: int, n: int, c: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).dirichlet(np.ones(c), n)


@quick
@given(seeds, batches, class_counts, st.floats(0, 0.9), st.booleans(), st.booleans())
def test_cross_entropy(seed, n, c, epsilon, softly, weighted):
    s, _, y = logits(seed, n, c)
    labels = soft(seed, n, c) if softly else ref.one_hot(y, c)
    weights = np.random.default_rng(seed).uniform(0.2, 3, c) if weighted else None
    given_label = tensor(labels) if softly else tensor(y[:, None])
    agree(
        lambda x: cross_entropy(
            x, given_label, epsilon=epsilon, class_weights=None if weights is None else tensor(weights)
        ),
        lambda x: ref.ce(x, (1 - epsilon) * labels + epsilon / c, weights),
        s,
    )


def test_class_weights_are_those_of_paddle_for_hard_labels():
    s, _, y = logits(3, 6, 4)
    weights = np.array([0.1, 1.0, 2.0, 5.0])
    ours = cross_entropy(tensor(s), tensor(y), class_weights=tensor(weights))
    theirs = F.cross_entropy(tensor(s), tensor(y), weight=tensor(weights))
    np.testing.assert_allclose(float(ours), float(theirs), rtol=1e-9)


@quick
@given(seeds, batches, class_counts, temperatures)
def test_kl_divergence(seed, n, c, temperature):
    s, t, _ = logits(seed, n, c)
    agree(
        lambda x: kl_divergence(x, tensor(t), temperature=temperature),
        lambda x: ref.kd(x, t, temperature),
        s,
    )


@quick
@given(seeds, batches, class_counts)
def test_soft_cross_entropy(seed, n, c):
    s, t, _ = logits(seed, n, c)
    agree(lambda x: soft_cross_entropy(x, tensor(t)), lambda x: ref.soft_ce(x, t), s)


@quick
@given(seeds, batches, class_counts, st.booleans(), st.booleans())
def test_symmetric_kl(seed, n, c, sigmoid, across):
    s, t, _ = logits(seed, n, c)
    reference = ref.dml_sigmoid if sigmoid else ref.dml
    act = "sigmoid" if sigmoid else "softmax"
    agree(
        lambda x: symmetric_kl(x, tensor(t), act=act, sum_across_class_dim=across),
        lambda x: reference(x, t) * (c if across else 1),
        s,
    )


def test_symmetric_kl_of_probabilities_is_that_of_their_logits():
    s, t, _ = logits(5, 4, 7)
    ours = symmetric_kl(tensor(ref.softmax(s)), tensor(ref.softmax(t)), act=None)
    np.testing.assert_allclose(float(ours), ref.dml(s, t), rtol=1e-6)


def test_symmetric_kl_reaches_both_networks():
    s, t, _ = logits(5, 4, 7)
    a, b = paddle.to_tensor(s, stop_gradient=False), paddle.to_tensor(t, stop_gradient=False)
    symmetric_kl(a, b).backward()
    h = 1e-6
    d = np.random.default_rng(0).standard_normal(t.shape)
    slope = (ref.dml(s, t + h * d) - ref.dml(s, t - h * d)) / (2 * h)
    np.testing.assert_allclose((b.grad.numpy() * d).sum(), slope, rtol=1e-6)
    assert np.abs(a.grad.numpy()).max() > 0


@quick
@given(seeds, st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(["l1", "l2", "smooth_l1"]))
def test_distance(seed, shape, mode):
    rng = np.random.default_rng(seed)
    a, b = 2 * rng.standard_normal(shape), 2 * rng.standard_normal(shape)
    reference = {
        "l1": lambda x: np.abs(x - b).mean(),
        "l2": lambda x: ((x - b) ** 2).mean(),
        "smooth_l1": lambda x: ref.huber(x - b).mean(),
    }[mode]
    agree(lambda x: distance(x, tensor(b), mode=mode), reference, a)


def test_distance_of_activations():
    s, t, _ = logits(5, 4, 7)
    agree(
        lambda x: distance(x, tensor(t), act="softmax"),
        lambda x: ((ref.softmax(x) - ref.softmax(t)) ** 2).mean(),
        s,
    )
    agree(
        lambda x: distance(x, tensor(t), mode="l1", act="sigmoid"),
        lambda x: np.abs(1 / (1 + np.exp(-x)) - 1 / (1 + np.exp(-t))).mean(),
        s,
    )


@quick
@given(seeds, batches, class_counts, shares, shares, temperatures)
def test_decoupled_kl(seed, n, c, alpha, beta, temperature):
    s, t, y = logits(seed, n, c)
    options = {"alpha": alpha, "beta": beta, "temperature": temperature}
    agree(
        lambda x: decoupled_kl(x, tensor(t), tensor(y), **options),
        lambda x: ref.dkd(x, t, y, **options),
        s,
    )


@quick
@given(seeds, batches, class_counts, temperatures)
def test_decoupled_kl_put_together_is_kl(seed, n, c, temperature):
    """The paper's eq. 6: KD = TCKD + (1 - p_target of the teacher) * NCKD, for each sample."""
    s, t, y = logits(seed, n, c)
    total = 0.0
    for i in range(n):
        rest = 1 - ref.softmax(t[i] / temperature)[y[i]]
        one = [tensor(x[i : i + 1]) for x in (s, t)]
        total += float(
            decoupled_kl(*one, tensor(y[i : i + 1]), alpha=1, beta=float(rest), temperature=temperature)
        )
    np.testing.assert_allclose(total / n, ref.kd(s, t, temperature), rtol=1e-6, atol=1e-12)


@quick
@given(seeds, batches, class_counts, temperatures, shares)
def test_normalized_kd(seed, n, c, temperature, gamma):
    s, t, y = logits(seed, n, c)
    options = {"temperature": temperature, "gamma": gamma}
    agree(
        lambda x: normalized_kd(x, tensor(t), tensor(y), **options), lambda x: ref.nkd(x, t, y, **options), s
    )


@quick
@given(seeds, batches, class_counts, st.floats(0.05, 3))
def test_transformed_teacher_matching(seed, n, c, power):
    s, t, _ = logits(seed, n, c)
    for formula, weighted in ((transformed_teacher_matching, False), (weighted_teacher_matching, True)):
        agree(
            functools.partial(formula, teacher=tensor(t), power=power),
            functools.partial(ref.ttm, t=t, power=power, weighted=weighted),
            s,
        )


def test_transformed_teacher_matching_is_kd_with_a_temperature_of_the_teacher_alone():
    s, t, _ = logits(4, 5, 6)
    ours = transformed_teacher_matching(tensor(s), tensor(t), power=0.25)
    np.testing.assert_allclose(float(ours), ref.kd(4 * s, t, 4.0) / 16, rtol=1e-6)


@quick
@given(seeds, batches, class_counts, shares, shares, temperatures, temperatures)
def test_refined_logits(seed, n, c, alpha, beta, temperature, alpha_temperature):
    s, t, y = logits(seed, n, c)
    options = {"alpha": alpha, "beta": beta, "temperature": temperature}
    options["alpha_temperature"] = alpha_temperature
    agree(
        lambda x: refined_logits(x, tensor(t), tensor(y), **options), lambda x: ref.rld(x, t, y, **options), s
    )


def test_refined_logits_teach_no_error_of_the_teacher():
    """Smallest, and zero, at the teacher's logits where it is right; where it errs, it is not."""
    _, t, _ = logits(3, 6, 5)
    for y, right in ((t.argmax(-1), True), (t.argmin(-1), False)):
        x = paddle.to_tensor(t, stop_gradient=False)
        value = refined_logits(x, tensor(t), tensor(y), temperature=2.0, alpha_temperature=3.0)
        value.backward()
        assert (abs(float(value)) < 1e-9) == right
        assert (np.abs(x.grad.numpy()).max() < 1e-9) == right
        if not right:  # the label becomes more probable
            assert (x.grad.numpy()[np.arange(6), y] < 0).all()


@quick
@given(seeds, batches, class_counts)
def test_hard_distillation(seed, n, c):
    s, t, _ = logits(seed, n, c)
    agree(lambda x: hard_distillation(x, tensor(t)), lambda x: ref.hard(x, t), s)


@quick
@given(seeds, batches, class_counts, st.floats(0.2, 3))
def test_one_for_all(seed, n, c, eps):
    s, t, y = logits(seed, n, c)
    agree(lambda x: one_for_all(x, tensor(t), tensor(y), eps=eps), lambda x: ref.ofa(x, t, y, eps), s)


def test_one_for_all_with_an_exponent_of_one_is_the_cross_entropy_with_the_teacher():
    s, t, y = logits(4, 5, 6)
    ours = one_for_all(tensor(s), tensor(t), tensor(y), eps=1.0)
    np.testing.assert_allclose(float(ours), ref.soft_ce(s, t), rtol=1e-6)


@quick
@given(seeds, batches, class_counts, temperatures, shares, st.floats(0.2, 3))
def test_wasserstein_logits(seed, n, c, temperature, gamma, sharpness):
    s, t, y = logits(seed, n, c)
    distances = np.random.default_rng(seed).uniform(0, 2, (c, c))
    options = {"temperature": temperature, "gamma": gamma, "sharpness": sharpness}
    agree(
        lambda x: wasserstein_logits(x, tensor(t), tensor(y), distances=tensor(distances), **options),
        lambda x: ref.wkd_logits(x, t, y, distances, **options),
        s,
    )


def test_transport_is_cheaper_between_classes_that_are_alike():
    distances = np.array([[0, 0.1, 1], [0.1, 0, 1], [1, 1, 0.0]])
    mass = np.eye(3) * 0.98 + 0.01
    start = np.full((1, 3), 1 / 3)
    costs = [
        transport(tensor(mass[:1]), tensor(mass[[i]]), tensor(start), tensor(distances)).item()
        for i in range(3)
    ]
    assert costs[0] < 0.05
    assert costs == sorted(costs)
    assert costs[1] == pytest.approx(0.1, abs=0.03)  # nearly all mass has to move
    assert costs[2] == pytest.approx(1.0, abs=0.05)


def test_class_distances_are_those_of_directions():
    weight = np.array([[1, 2, 0, -1], [0, 0, 3, 0.0]])
    expected = [[0, 0, 1, 2], [0, 0, 1, 2], [1, 1, 0, 1], [2, 2, 1, 0]]
    np.testing.assert_allclose(class_distances(tensor(weight)).numpy(), expected, atol=1e-7)


@quick
@given(seeds, batches, class_counts)
def test_standardized(seed, n, c):
    s, _, _ = logits(seed, n, c)
    mask = np.random.default_rng(seed).standard_normal((n, c))
    agree(
        lambda x: (standardized(x) * tensor(mask)).sum(),
        lambda x: float((ref.standardized(x) * mask).sum()),
        s,
    )


@quick
@given(seeds, batches, st.integers(3, 9), temperatures, st.sampled_from(["KLDiv", "DKD", "RLD"]))
def test_standardize_comes_before_the_formula(seed, n, c, temperature, loss):
    s, t, y = logits(seed, n, c)
    x, a, b = (z.astype("float32") for z in (s, ref.standardized(s), ref.standardized(t)))
    pairs = {"model_name_pairs": [["S", "T"]], "temperature": temperature}
    name = f"Distillation{loss}Loss"
    by_option = build_loss([{name: {**pairs, "standardize": True}}])
    plain = build_loss([{name: pairs}])
    given_student, before = paddle.to_tensor(x, stop_gradient=False), {"S": tensor(a), "T": tensor(b)}
    value = by_option({"S": given_student, "T": tensor(t.astype("float32"))}, tensor(y))["loss"]
    np.testing.assert_allclose(float(value), float(plain(before, tensor(y))["loss"]), rtol=1e-3, atol=1e-5)
    value.backward()
    # the length of the logits and a constant added to them make no difference
    gradient = given_student.grad.numpy()
    assert np.abs(gradient.sum(-1)).max() < 1e-5
    assert np.abs((gradient * (x - x.mean(-1, keepdims=True))).sum(-1)).max() < 1e-4


@quick
@given(seeds, st.integers(3, 6), st.integers(3, 9), shares, shares, st.floats(0.8, 4))
def test_dist(seed, n, c, beta, gamma, tau):
    s, t, _ = logits(seed, n, c)
    x = paddle.to_tensor(s, stop_gradient=False)
    value = dist(x, tensor(t), beta=beta, gamma=gamma, tau=tau)
    # 1e-8 beside the norms matters where a class is improbable in the whole batch
    np.testing.assert_allclose(float(value), ref.dist(s, t, beta, gamma, tau), rtol=1e-3, atol=1e-4)


def test_dist_gradient():
    s, t, _ = logits(11, 6, 5)
    s, t = s / 4, t / 4
    x = paddle.to_tensor(s, stop_gradient=False)
    dist(x, tensor(t), beta=1.0, gamma=2.0, tau=2.0).backward()
    d, h = np.random.default_rng(0).standard_normal(s.shape), 1e-5
    slope = (ref.dist(s + h * d, t, 1, 2, 2) - ref.dist(s - h * d, t, 1, 2, 2)) / (2 * h)
    np.testing.assert_allclose((x.grad.numpy() * d).sum(), slope, rtol=1e-4)


@quick
@given(seeds, batches, class_counts, temperatures, st.booleans())
def test_weighted_soft_labels(seed, n, c, temperature, softly):
    s, t, y = logits(seed, n, c)
    q = soft(seed, n, c) if softly else ref.one_hot(y, c)
    value, weights = ref.wsl(s, t, q, temperature)
    x = paddle.to_tensor(s, stop_gradient=False)
    ours = weighted_soft_labels(x, tensor(t), tensor(q), temperature=temperature)
    np.testing.assert_allclose(float(ours), value, rtol=1e-4, atol=1e-9)
    ours.backward()
    d, h = np.random.default_rng(0).standard_normal(s.shape), 1e-5
    ends = [ref.wsl(s + sign * h * d, t, q, temperature, frozen=weights)[0] for sign in (1, -1)]
    np.testing.assert_allclose(
        (x.grad.numpy() * d).sum(), (ends[0] - ends[1]) / (2 * h), rtol=1e-3, atol=1e-6
    )


@quick
@given(seeds, batches, st.integers(3, 9), temperatures, st.floats(0.5, 3), st.floats(0, 1), st.booleans())
def test_spherical_kd(seed, n, c, temperature, multiplier, alpha, softly):
    s, t, y = logits(seed, n, c)
    q = soft(seed, n, c) if softly else ref.one_hot(y, c)
    options = {"temperature": temperature, "multiplier": multiplier, "alpha": alpha}
    agree(
        lambda x: spherical_kd(x, tensor(t), tensor(q), **options),
        lambda x: ref.skd(x, t, q, **options),
        s,
    )


def test_spherical_kd_sees_neither_length_nor_shift_of_logits():
    s, t, y = logits(2, 5, 6)
    q = tensor(ref.one_hot(y, 6))
    base = float(spherical_kd(tensor(s), tensor(t), q))
    np.testing.assert_allclose(
        float(spherical_kd(tensor(7 * s + 3), tensor(0.2 * t - 1), q)), base, rtol=1e-6
    )


@quick
@given(seeds, st.integers(2, 6), st.integers(1, 8), st.integers(1, 8), st.sampled_from([0, 1]))
def test_relational(seed, n, mine, theirs, which):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, mine)), rng.standard_normal((n, theirs))
    agree(lambda x: relational(x, tensor(t))[which], lambda x: ref.rkd(x, t)[which], s)


def test_relational_ignores_how_the_batch_is_placed():
    """Distances are relative and angles are angles: moving, turning and scaling changes nothing."""
    rng = np.random.default_rng(0)
    s, t = rng.standard_normal((6, 4)), rng.standard_normal((6, 5))
    turn, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    for a, b in zip(
        relational(tensor(s), tensor(t)), relational(tensor(3 * s @ turn + 1), tensor(t)), strict=True
    ):
        np.testing.assert_allclose(float(a), float(b), rtol=1e-6)


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_partial_l2(seed, n, c, side):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, c, side, side)), rng.standard_normal((n, c, side, side))
    margin = -rng.uniform(0.1, 1, c)
    agree(lambda x: partial_l2(x, tensor(t), tensor(margin)), lambda x: ref.ofd(x, t, margin), s)


sides = st.tuples(st.integers(1, 5), st.integers(1, 5))


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), sides, sides)
def test_attention_transfer(seed, n, mine, theirs, own_sides, their_sides):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, mine, *own_sides)), rng.standard_normal((n, theirs, *their_sides))
    agree(lambda x: attention_transfer(x, tensor(t)), lambda x: ref.at(x, t), s)


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), sides, st.floats(0.1, 5))
def test_gaussian_distance(seed, n, c, side, their_sides, ratio):
    rng = np.random.default_rng(seed)
    height, width = their_sides
    s = rng.standard_normal((n, c, side, side + 1))
    t = 2 * rng.standard_normal((n, c, height + 1, width)) + 1
    agree(lambda x: gaussian_distance(x, tensor(t), ratio), lambda x: ref.wkd_feature(x, t, ratio), s)


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
def test_hierarchical_distance(seed, n, c, side):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, c, side, side)), rng.standard_normal((n, c, side, side))
    agree(lambda x: hierarchical_distance(x, tensor(t)), lambda x: ref.hcl(x, t), s)


@quick
@given(seeds, batches, st.integers(1, 6))
def test_log_power_distance(seed, n, width):
    rng = np.random.default_rng(seed)
    s, t = rng.standard_normal((n, width)), rng.standard_normal((n, width))
    agree(
        lambda x: log_power_distance(x, tensor(t)),
        lambda x: float(np.log((np.abs(x - t) ** 4).sum())),
        s,
    )


@quick
@given(st.floats(0.05, 4), st.floats(-4, 3))
def test_margin_is_the_mean_of_negative_values(scale, relative_shift):
    shift = relative_shift * scale
    np.testing.assert_allclose(
        negative_mean([scale], [shift])[0], ref.mean_below_zero(scale, shift), rtol=1e-5
    )
    assert negative_mean([-scale], [shift]) == negative_mean([scale], [shift])


@pytest.mark.parametrize(("scale", "shift", "margin"), [(0.5, 2.0, -1.5), (0.0, -0.7, -0.7), (0.0, 0.7, 0.0)])
def test_margin_where_negative_values_are_rare_or_certain(scale, shift, margin):
    assert negative_mean([scale], [shift]) == [margin]


@quick
@given(
    seeds, batches, st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 4)
)
def test_attention(seed, n, n_s, sizes, dim):
    rng = np.random.default_rng(seed)
    n_t = len(sizes)
    key, query = rng.standard_normal((n, n_s, n_t, dim)), rng.standard_normal((n, n_t, dim))
    p_s, p_t = rng.standard_normal((n_s, dim)), rng.standard_normal((n_t, dim))
    student, teacher = [rng.random((n, n_s, k)) for k in sizes], [rng.random((n, k)) for k in sizes]

    def ours(x):
        weights = attention(x, tensor(query), tensor(p_s), tensor(p_t))
        np.testing.assert_allclose(weights.sum(-1).numpy(), 1)
        return attended_distance(weights, [tensor(v) for v in student], [tensor(v) for v in teacher])

    agree(ours, lambda x: ref.afd(x, query, p_s, p_t, student, teacher), key)


def test_a_batch_of_classes_without_weight_gives_nothing():
    logits = paddle.to_tensor([[1.0, 2.0, 3.0]], stop_gradient=False)
    loss = cross_entropy(logits, paddle.to_tensor([0]), class_weights=paddle.to_tensor([0.0, 1.0, 2.0]))
    loss.backward()
    assert float(loss) == 0
    assert not logits.grad.numpy().any()
