"""Ensembles of teachers, and the teachers that a step leaves out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import paddle
import pytest

from ppcls.arch import build_model
from ppcls.arch.ensemble import Ensemble, build_ensembles, check_dropping, draw_dropped
from ppcls.errors import ConfigError

NAMES = ["A", "B", "Student"]
RNG = np.random.default_rng(0)
A, B, C = (RNG.standard_normal((3, 4)).astype("float32") for _ in range(3))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def given(**arrays):
    return {name: {"logits": paddle.to_tensor(value)} for name, value in arrays.items()}


def test_the_mean_of_logits_and_of_probabilities():
    outputs = given(A=A, B=B, C=C)
    names = ["A", "B", "C"]
    equal = Ensemble("E", names).combine(outputs).numpy()
    np.testing.assert_allclose(equal, (A + B + C) / 3, rtol=1e-5, atol=1e-6)
    weighted = Ensemble("E", names, [2, 1, 1]).combine(outputs).numpy()
    np.testing.assert_allclose(weighted, A / 2 + B / 4 + C / 4, rtol=1e-5, atol=1e-6)
    mixed = Ensemble("E", names, [2, 1, 1], "probabilities").combine(outputs).numpy()
    expected = softmax(A) / 2 + softmax(B) / 4 + softmax(C) / 4
    np.testing.assert_allclose(softmax(mixed), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(mixed), expected, rtol=1e-5)


def test_the_mean_of_those_that_are_not_dropped():
    outputs = given(A=A, B=B, C=C)
    ensemble = Ensemble("E", ["A", "B", "C"], [2, 1, 3])
    np.testing.assert_allclose(
        ensemble.combine(outputs, {"A"}).numpy(), B / 4 + C * 3 / 4, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(ensemble.combine(outputs, {"A", "C", "X"}).numpy(), B)
    np.testing.assert_array_equal(
        ensemble.combine(outputs, {"A", "B", "C"}).numpy(), ensemble.combine(outputs).numpy()
    )


def test_teachers_with_other_classes(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("0 3\n1 0\n", encoding="utf-8")
    ensemble = Ensemble("E", ["A", "B"], class_maps={"B": str(path)})
    found = ensemble.combine(given(A=A[:, :2], B=B)).numpy()
    np.testing.assert_allclose(found, (A[:, :2] + B[:, [3, 0]]) / 2, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"classes differ \(A has 4, B has 2\); give class_maps"):
        ensemble.combine(given(A=A, B=B))
    with pytest.raises(ConfigError, match="the map of B names class 3, but B has 2 classes"):
        ensemble.combine(given(A=A[:, :2], B=B[:, :2]))
    with pytest.raises(ConfigError, match="none.txt"):
        Ensemble("E", ["A", "B"], class_maps={"B": str(tmp_path / "none.txt")})


def test_half_precision_is_averaged_in_float32():
    found = Ensemble("E", ["A", "B"]).combine(given(A=A.astype("float16"), B=B))
    assert found.dtype == paddle.float32
    assert found.stop_gradient


def model(**options):
    node = {
        "name": "DistillationModel",
        "class_num": 4,
        "freeze_params_list": [True, True, False],
        "models": [{"A": {"name": "resnet8"}}, {"B": {"name": "resnet8"}}, {"Student": {"name": "resnet8"}}],
        **options,
    }
    return build_model(node)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ({"networks": ["A", "C"]}, "ensembles.E.networks.1: there is no network 'C'"),
        ({"networks": ["A", "Student"]}, "networks.1: Student trains; an ensemble has frozen networks"),
        ({"networks": ["A", "A"]}, "networks.1: A is listed twice"),
        ({"networks": ["A"]}, "networks: got .*'A'.*, expected the names of two"),
        ({"networks": ["A", "B"], "weights": [1]}, "ensembles.E.weights: 1 numbers for 2 networks"),
        ({"networks": ["A", "B"], "weights": [1, 0]}, "expected numbers above 0"),
        ({"networks": ["A", "B"], "weights": ["x", 1]}, "weights: .*expected numbers above 0"),
        (
            {"networks": ["A", "B"], "average": "logit"},
            "average: got 'logit', expected logits or prob.*logits",
        ),
        ({"networks": ["A", "B"], "class_maps": {"X": "f"}}, "class_maps: 'X' is not one of networks"),
        ({"networks": ["A", "B"], "weight": [1, 1]}, "ensembles.E: no option 'weight'.*weights"),
        ({"networks": ["A", "B"], "weights": 0.5}, "weights: got 0.5, expected numbers above 0"),
        ({"networks": ["A", "B"], "class_maps": ["f"]}, "class_maps: .*expected a map from names"),
        ({"networks": ["A", "B"], "class_maps": {"A": "no.txt"}}, "class_maps.A: no.txt: no such class_map"),
        ({"networks": "AB"}, "networks: got 'AB', expected the names of two"),
        ({"weights": [1, 1]}, "expected a map such as"),
        (["A", "B"], "expected a map such as"),
    ],
)
def test_ensembles_that_cannot_be(node, text):
    with pytest.raises(ConfigError, match=text):
        build_ensembles({"E": node}, NAMES, {"A", "B"})


def test_names_and_probabilities_that_cannot_be():
    with pytest.raises(ConfigError, match="a network is called 'A' already"):
        build_ensembles({"A": {"networks": ["A", "B"]}}, NAMES, {"A", "B"})
    with pytest.raises(ConfigError, match="'a b' cannot name an ensemble"):
        build_ensembles({"a b": {"networks": ["A", "B"]}}, NAMES, {"A", "B"})
    with pytest.raises(ConfigError, match="ensembles: got .*expected a map"):
        build_ensembles(["A", "B"], NAMES, {"A", "B"})
    for probability in (1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="expected a probability from 0 to below 1"):
            check_dropping(probability, ["A", "B"])
    with pytest.raises(ConfigError, match="1 network is frozen, and one always stays"):
        check_dropping(0.5, ["A"])


def test_an_ensemble_is_an_output_of_the_model():
    net = model(ensembles={"E": {"networks": ["A", "B"], "weights": [3, 1]}}, teacher_dropping=0.5)
    net.train()
    x = paddle.randn([2, 3, 32, 32])
    seen = set()
    for step in range(12):
        dropped = net.drop_teachers(7, step)
        assert dropped == draw_dropped(["A", "B"], 0.5, 7, step)
        seen.add(dropped)
        shares = {"A": 0.75, "B": 0.25}
        if dropped:
            (out,) = dropped
            shares = {name: float(name != out) for name in shares}
        found = net(x)
        expected = found["A"].numpy() * shares["A"] + found["B"].numpy() * shares["B"]
        np.testing.assert_allclose(found["E"].numpy(), expected, rtol=1e-4, atol=1e-6)
    assert seen == {frozenset(), frozenset("A"), frozenset("B")}
    net.eval()
    found = net(x)
    expected = found["A"].numpy() * 0.75 + found["B"].numpy() * 0.25
    for value in (found["E"], net.run("E", x)):
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert net.never_changes("E")
    assert net.logits_never_change("E")


def test_teachers_are_dropped_with_the_probability_and_one_stays():
    names = ["A", "B", "C"]
    drawn = [draw_dropped(names, 0.4, 1, step) for step in range(3000)]
    assert drawn == [draw_dropped(names, 0.4, 1, step) for step in range(3000)]
    assert max(map(len, drawn)) == 2
    counts = Counter(name for out in drawn for name in out)
    # Of 0.4^3 draws of all three, one stays.
    expected = 0.4 - 0.4**3 / 3
    for name in names:
        assert counts[name] / 3000 == pytest.approx(expected, abs=0.04)
    assert all(not draw_dropped(names, 0.0, 1, step) for step in range(20))
