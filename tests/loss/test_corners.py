"""Every registered loss at its corners: equal inputs, certainty, zeros, one sample, half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppcls.errors import ConfigError
from ppcls.loss import build_loss
from ppcls.registry import LOSSES

PAIRS = {"model_name_pairs": [["S", "T"]]}
MAPS = {**PAIRS, "s_key": "map", "t_key": "map"}
DISTANCES = str(Path(__file__).parent / "recorded" / "distances_of_5_classes.npy")
LOGIT_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "CE": ("DistillationCELoss", PAIRS),
    "GTCE": ("DistillationGTCELoss", {"model_names": ["S"], "epsilon": 0.1}),
    "DML": ("DistillationDMLLoss", PAIRS),
    "DML sigmoid": ("DistillationDMLLoss", {**PAIRS, "act": "sigmoid"}),
    "KLDiv": ("DistillationKLDivLoss", PAIRS),
    "DKD": ("DistillationDKDLoss", {**PAIRS, "beta": 8.0}),
    "DKD without labels": ("DistillationDKDLoss", {**PAIRS, "use_target_as_gt": True}),
    "KLDiv standardize": ("DistillationKLDivLoss", {**PAIRS, "standardize": True}),
    "DKD standardize": ("DistillationDKDLoss", {**PAIRS, "standardize": True, "use_target_as_gt": True}),
    "NKD": ("DistillationNKDLoss", {**PAIRS, "temperature": 2.0}),
    "TTM": ("DistillationTTMLoss", PAIRS),
    "WTTM": ("DistillationWTTMLoss", PAIRS),
    "RLD": ("DistillationRLDLoss", {**PAIRS, "beta": 8.0, "temperature": 4.0}),
    "RLD without labels": ("DistillationRLDLoss", {**PAIRS, "use_target_as_gt": True}),
    "OFA": ("DistillationOFALoss", {**PAIRS, "eps": 1.5}),
    "WKD-L": ("DistillationWKDLogitLoss", {**PAIRS, "cost": DISTANCES}),
    "Hard": ("DistillationHardLoss", PAIRS),
    "DIST": ("DistillationDISTLoss", PAIRS),
    "WSL": ("DistillationWSLLoss", PAIRS),
    "SKD": ("DistillationSKDLoss", PAIRS),
    "RKD": ("DistillationRKDLoss", {**PAIRS, "student_keepkeys": ["logits"], "teacher_keepkeys": ["logits"]}),
    "Distance": ("DistillationDistanceLoss", {**PAIRS, "act": "softmax"}),
    "PEFD of logits": ("DistillationPairLoss", {**PAIRS, "base_loss_name": "PEFDLoss"}),
}
MAP_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "Distance l2": ("DistillationDistanceLoss", {**PAIRS, "key": "map"}),
    "Distance smooth_l1": ("DistillationDistanceLoss", {**PAIRS, "key": "map", "mode": "smooth_l1"}),
    "RKD of maps": (
        "DistillationRKDLoss",
        {**PAIRS, "student_keepkeys": ["map"], "teacher_keepkeys": ["map"]},
    ),
    "RKD pooled": (
        "DistillationRKDLoss",
        {**PAIRS, "student_keepkeys": ["map"], "teacher_keepkeys": ["map"], "target_size": 1},
    ),
    "MGD": ("DistillationPairLoss", {**MAPS, "base_loss_name": "MGDLoss"}),
    "PEFD": ("DistillationPairLoss", {**MAPS, "base_loss_name": "PEFDLoss", "mode": "gap"}),
    "AT": ("DistillationPairLoss", {**MAPS, "base_loss_name": "ATLoss"}),
    "OFA of maps": ("DistillationOFALoss", {**PAIRS, "eps": 1.5, "student_keys": ["map", "map"]}),
    "AT of two": (
        "DistillationPairLoss",
        {**PAIRS, "base_loss_name": "ATLoss", "s_key": ["map", "map"], "t_key": ["map", "map"]},
    ),
    "SRD": ("DistillationPairLoss", {**MAPS, "base_loss_name": "SRDLoss"}),
    "SRD of logits": ("DistillationPairLoss", {**PAIRS, "base_loss_name": "SRDLoss"}),
    "WKD-F": ("DistillationPairLoss", {**MAPS, "base_loss_name": "WKDFeatureLoss"}),
    "ReviewKD": (
        "DistillationPairLoss",
        {
            **PAIRS,
            "base_loss_name": "ReviewKDLoss",
            "s_key": ["map", "logits"],
            "t_key": ["map", "logits"],
        },
    ),
    "OFD": (
        "OFDLoss",
        {"model_name_pair": ["S", "T"], "student_keys": ["map"], "teacher_keys": ["map"], "margins": [-0.5]},
    ),
}
AFD = {
    "model_name_pair": ["S", "T"],
    "student_keys": ["bilinear_key", "value"],
    "teacher_keys": ["query", "value"],
}
ALL = {**LOGIT_LOSSES, **MAP_LOSSES, "AFD": ("AFDLoss", AFD)}
C = 5
# They look at labels too, want a certain student, or compare through layers that start at random.
NOT_SMALLEST_AT_THE_TEACHER = (
    *("GTCE", "SKD", "NKD", "TTM", "WTTM", "RLD", "OFA", "OFA of maps", "WKD-L", "Hard"),
    *("MGD", "PEFD", "PEFD of logits", "SRD", "SRD of logits", "WKD-F", "ReviewKD", "OFD", "AFD"),
)
NEEDS_CLASSES = ("DKD", "NKD", "RLD", "OFA", "WKD-L")


def network(
    logits: np.ndarray, maps: np.ndarray, afd: dict[str, np.ndarray], dtype: str, frozen: bool
) -> dict:
    def give(x: np.ndarray) -> Any:
        # a leaf in float32, so that gradients can be read, and what a network under autocast would give
        leaf = paddle.to_tensor(x.astype("float32"), stop_gradient=frozen)
        leaves.append(leaf)
        return leaf.astype(dtype)

    leaves: list[Any] = []
    given = {"logits": give(logits), "map": give(maps)}
    for key, value in afd.items():
        given[key] = [give(value)] if key == "value" else give(value)
    return {"given": given, "leaves": leaves}


def pair(
    student: np.ndarray, teacher: np.ndarray, maps: tuple[np.ndarray, np.ndarray], dtype: str = "float32"
) -> tuple[dict, dict]:
    n = len(student)
    rng = np.random.default_rng(n)
    key, query = rng.standard_normal((n, 2, 1, 4)), rng.standard_normal((n, 1, 4))
    value_s = np.stack([maps[0].mean(1).reshape(n, -1)] * 2, 1)
    value_t = maps[1].mean(1).reshape(n, -1)
    s = network(student, maps[0], {"bilinear_key": key, "value": value_s}, dtype, frozen=False)
    t = network(teacher, maps[1], {"query": query, "value": value_t}, dtype, frozen=True)
    return s, t


def run(name: str, s: dict, t: dict, label: Any = None) -> float:
    """Return the value; value and gradients have to be finite, and the frozen teacher has to stay without."""
    loss_name, options = ALL[name]
    outputs = {"S": s["given"], "T": t["given"]}
    paddle.seed(0)
    loss = build_loss([{loss_name: options}], outputs=outputs)
    n = s["given"]["logits"].shape[0]
    label = paddle.to_tensor(np.arange(n)[:, None] % C) if label is None else label
    total = loss(outputs, label)["loss"]
    assert total.dtype == paddle.float32
    assert np.isfinite(float(total)), name
    total.backward()
    gradients = [x.grad.numpy() for x in s["leaves"] if x.grad is not None]
    assert gradients, f"{name}: no gradient reaches the student"
    assert all(np.isfinite(g).all() for g in gradients), name
    assert all(x.grad is None for x in t["leaves"])
    assert all(np.isfinite(p.grad.numpy()).all() for p in loss.parameters() if p.grad is not None)
    return float(total)


def ordinary(n: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((n, 3, 2, 2)), rng.standard_normal((n, 3, 2, 2))
    return 3 * rng.standard_normal((n, C)), 3 * rng.standard_normal((n, C)), maps


def test_no_registered_loss_is_left_out():
    tested = {name for name, _ in ALL.values()} | {"CELoss", "DistillationOFDLoss"}
    tested |= {options["base_loss_name"] for _, options in ALL.values() if "base_loss_name" in options}
    built_in = {name for name in LOSSES if LOSSES[name].__module__.startswith("ppcls.")}
    assert built_in == tested


@pytest.mark.parametrize("name", ALL)
def test_half_precision_inputs_are_cast_at_the_door(name):
    """The value is that of the same numbers in float32, with no rounding in between."""
    s, t, maps = ordinary()
    for dtype in ("float16", "bfloat16"):

        def rounded(x: np.ndarray, dtype: str = dtype) -> np.ndarray:
            return paddle.to_tensor(x, dtype="float32").astype(dtype).astype("float32").numpy()

        exact = rounded(s), rounded(t), (rounded(maps[0]), rounded(maps[1]))
        np.testing.assert_allclose(
            run(name, *pair(s, t, maps, dtype)),
            run(name, *pair(*exact)),
            rtol=2e-2 if name == "AFD" else 1e-6,
        )


@pytest.mark.parametrize("name", ALL)
def test_batch_of_one(name):
    s, t, maps = ordinary(1)
    run(name, *pair(s, t, maps))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_equal_inputs(name, scale):
    """Also where all is zero: equal logits, empty feature maps, all samples alike."""
    s, _, maps = ordinary()
    run(name, *pair(scale * s, scale * s, (scale * maps[0], scale * maps[0])))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("margin", [60.0, 2000.0])
def test_certain_probabilities(name, margin):
    """Teacher and student are certain, and of different classes."""
    s, t = (margin * np.eye(C)[classes] for classes in ([0, 1, 2, 3], [1, 2, 3, 0]))
    run(name, *pair(s, t, ordinary()[2]))
    run(name, *pair(s, s, ordinary()[2]))


@pytest.mark.parametrize("name", ["RKD", "RKD of maps", "RKD pooled"])
def test_samples_that_occur_twice(name):
    s, t, maps = ordinary()
    for x in (s, t, *maps):
        x[1] = x[0]
        x[3] = x[2] + 1e-4  # close, but not the same
    run(name, *pair(s, t, maps))


@pytest.mark.parametrize(
    "name",
    [n for n in ALL if n not in NOT_SMALLEST_AT_THE_TEACHER],
)
def test_smallest_where_student_equals_teacher(name):
    """No step away from the teacher lowers the loss; the gradient there is zero."""
    s, _, maps = ordinary(seed=3)
    loss_name, options = ALL[name]

    def value(logits: np.ndarray, features: np.ndarray) -> tuple[float, dict]:
        student, teacher = pair(logits, s, (features, maps[0]))
        return run_value(loss_name, options, student, teacher, logits_weight=s)

    best, at_best = value(s, maps[0])
    assert all(np.abs(x.grad.numpy()).max() < 1e-5 for x in at_best["leaves"] if x.grad is not None)
    rng = np.random.default_rng(9)
    for size in (0.03, 0.3, 3):
        away = [x + size * rng.standard_normal(x.shape) for x in (s, maps[0])]
        worse, _ = value(*away)
        if name != "WSL":  # its weights differ from sample to sample and with the student
            assert worse > best


def run_value(name: str, options: dict, s: dict, t: dict, logits_weight: np.ndarray) -> tuple[float, dict]:
    outputs = {"S": s["given"], "T": t["given"]}
    label = paddle.to_tensor(np.arange(len(logits_weight))[:, None] % C)
    total = build_loss([{name: options}])(outputs, label)["loss"]
    total.backward()
    return float(total), s


@pytest.mark.parametrize("name", [name for name in ALL if name != "GTCE"])  # which names one network
def test_gradient_reaches_the_target_network_unless_the_loss_is_one_way(name):
    student, teacher = pair(*ordinary())
    for leaf in teacher["leaves"]:
        leaf.stop_gradient = False
    teacher["given"] = {
        key: list(teacher["leaves"][i : i + 1]) if key == "value" else teacher["leaves"][i]
        for i, key in enumerate(teacher["given"])
    }
    loss_name, options = ALL[name]
    outputs = {"S": student["given"], "T": teacher["given"]}
    build_loss([{loss_name: options}], outputs=outputs)(outputs, paddle.to_tensor([0, 1, 2, 3]))[
        "loss"
    ].backward()
    reached = any(leaf.grad is not None for leaf in teacher["leaves"])
    assert reached == name.startswith(("DML", "Distance", "AFD"))
    assert LOSSES.own_trait(loss_name, "one_way") == (not reached)


def test_autocast_around_a_loss_changes_nothing():
    """On a GPU products would run in float16; the CPU ignores autocast, so this guards the call alone."""
    s, t, maps = ordinary()
    student, teacher = pair(s, t, maps)
    outputs = {"S": student["given"], "T": teacher["given"]}
    loss = build_loss([{"DistillationKLDivLoss": PAIRS}])
    plain = float(loss(outputs)["loss"])
    with paddle.amp.auto_cast(level="O1"):
        assert float(loss(outputs)["loss"]) == plain


# ---------------------------------------------------------------- labels


def soft_labels(n: int = 4) -> Any:
    return paddle.to_tensor(np.random.default_rng(1).dirichlet(np.ones(C), n).astype("float32"))


@pytest.mark.parametrize("name", [n for n in ALL if n not in (*NEEDS_CLASSES, "OFA of maps")])
def test_soft_labels_work_where_the_maths_allows_it(name):
    run(name, *pair(*ordinary()), label=soft_labels())


@pytest.mark.parametrize("name", ["GTCE", "WSL", "SKD"])
def test_one_hot_probabilities_count_as_hard_labels(name):
    hard = np.array([[1], [0], [4], [2]])
    one_hot = paddle.to_tensor(np.eye(C, dtype="float32")[hard[:, 0]])
    by_index = run(name, *pair(*ordinary()), label=paddle.to_tensor(hard))
    assert run(name, *pair(*ordinary()), label=paddle.to_tensor(hard[:, 0])) == by_index
    assert run(name, *pair(*ordinary()), label=one_hot) == by_index


@pytest.mark.parametrize("name", NEEDS_CLASSES)
def test_soft_labels_are_refused_with_the_reason_where_one_class_is_needed(name):
    loss, options = ALL[name]
    with pytest.raises(ConfigError, match=rf"{loss} got soft labels.*: it .* class.*use_target_as_gt"):
        run(name, *pair(*ordinary()), label=soft_labels())
    assert build_loss([{"DistillationKLDivLoss": PAIRS}, {loss: options}]).hard_label_losses == [loss]


@pytest.mark.parametrize("name", ["DKD", "NKD", "RLD"])
def test_a_single_class_is_refused_where_there_must_be_others(name):
    one = paddle.ones([2, 1])
    with pytest.raises(ConfigError, match=f"{ALL[name][0]} needs at least 2 classes, got 1"):
        build_loss([{ALL[name][0]: PAIRS}])({"S": one, "T": one}, paddle.to_tensor([0, 0]))


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (np.zeros((4, 3), "float32"), "one probability per class"),
        (np.zeros((4, 3), "int64"), "as floats"),
        (np.zeros(3, "int64"), "3 labels for logits"),
        (None, "the batch has none"),
    ],
)
def test_labels_of_a_wrong_form(label, text):
    loss = build_loss([{"CELoss": {}}])
    logits = paddle.zeros([4, C])
    with pytest.raises(ConfigError, match=text):
        loss(logits, None if label is None else paddle.to_tensor(label))
