"""The weighted sum: names, weights, schedules, which network a loss looks at, and mistakes in the config."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from omegaconf import OmegaConf
from paddle import nn

from ppcls.errors import ConfigError, DataError
from ppcls.loss import build_loss
from ppcls.loss.weight_schedule import epoch_value
from ppcls.registry import LOSSES

PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
KL = {"DistillationKLDivLoss": PAIRS}


def outputs(classes: int = 4, teacher_classes: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    student = rng.standard_normal((3, classes)).astype("float32")
    teacher = rng.standard_normal((3, teacher_classes or classes)).astype("float32")
    return {
        "Student": {
            "logits": paddle.to_tensor(student, stop_gradient=False),
            "feat": paddle.to_tensor(student),
        },
        "Teacher": {"logits": paddle.to_tensor(teacher), "feat": paddle.to_tensor(teacher)},
    }


LABEL = paddle.to_tensor([[0], [1], [2]])


def values(config: list, given: Any = None, **options: Any) -> dict[str, float]:
    loss = build_loss(config, **options)
    return {k: float(v) for k, v in loss(outputs() if given is None else given, LABEL).items()}


def test_every_part_is_multiplied_by_its_weight_and_logged_so():
    alone = values([KL])["loss_kldiv_Student_Teacher"]
    parts = values([{"DistillationKLDivLoss": {**PAIRS, "weight": 2.5}}])
    assert parts == pytest.approx({"loss_kldiv_Student_Teacher": 2.5 * alone, "loss": 2.5 * alone})
    both = values(
        [
            {"DistillationKLDivLoss": {**PAIRS, "weight": 2.5}},
            {"DistillationGTCELoss": {"model_names": ["Student", "Teacher"], "weight": 0.5}},
        ]
    )
    assert list(both) == ["loss_kldiv_Student_Teacher", "CELoss_Student", "CELoss_Teacher", "loss"]
    assert both["loss"] == pytest.approx(sum(v for k, v in both.items() if k != "loss"))


def test_losses_of_one_name_are_both_kept():
    hot = {"DistillationKLDivLoss": {**PAIRS, "temperature": 8.0}}
    parts = values([KL, hot, KL])
    names = [f"loss_kldiv_Student_Teacher{end}" for end in ("", "_2", "_3")]
    assert list(parts) == [*names, "loss"]
    assert parts[names[0]] == parts[names[2]] != parts[names[1]]
    assert parts["loss"] == pytest.approx(sum(parts[n] for n in names))


@pytest.mark.usefixtures("third_party")
def test_a_part_called_loss_does_not_hide_the_sum():
    pefd = {"base_loss_name": "PEFDLoss", "student_channel": 4, "teacher_channel": 4}
    loss = build_loss([{"DistillationPairLoss": {**PAIRS, **pefd, "name": "loss"}}, KL])
    parts = loss(outputs(), LABEL)
    assert list(parts) == ["loss_0_Student_Teacher", "loss_kldiv_Student_Teacher", "loss"]
    plugin = build_loss([{"_TestPlain": {}}])(paddle.ones([2, 2]), None)
    assert {k: float(v) for k, v in plugin.items()} == {"loss_2": 4.0, "_TestPlain": 2.0, "loss": 6.0}


class _Plain(nn.Layer):
    """A third-party loss: two parts, one of an unlucky name."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, output: Any, label: Any) -> dict[str, Any]:
        return {"loss": output.sum() * self.scale, "_TestPlain": output.shape[0] * paddle.ones([])}


class _PairBase(nn.Layer):
    """A third-party loss of two tensors, without anything to prepare."""

    is_pair_loss = True

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        self.power = power

    def forward(self, student: Any, teacher: Any) -> Any:
        return ((student - teacher) ** self.power).sum()


@pytest.fixture
def third_party(monkeypatch):
    """Two losses as a plugin would register them."""
    for name, loss in (("_TestPlain", _Plain), ("_TestPair", _PairBase)):
        monkeypatch.setitem(LOSSES._items, name, loss)


@pytest.mark.usefixtures("third_party")
def test_any_registered_loss_of_two_tensors_is_a_base_loss():
    node = {**PAIRS, "base_loss_name": "_TestPair", "power": 4, "name": "mine"}
    given = outputs()
    difference = (given["Student"]["logits"] - given["Teacher"]["logits"]).numpy().astype("float64")
    parts = values([{"DistillationPairLoss": node}], given)
    assert parts["mine_0_Student_Teacher"] == pytest.approx((difference**4).sum(), rel=1e-5)
    signature = LOSSES["DistillationPairLoss"].signature_for(node)
    assert signature.parameters["power"].annotation is int
    assert "options" not in signature.parameters


def test_pairs_have_weights_of_their_own():
    given = outputs()
    given["Second"] = given["Student"]["logits"] * 0.5
    pairs = [["Student", "Teacher"], ["Student", "Second"]]
    plain = values([{"DistillationKLDivLoss": {"model_name_pairs": pairs}}], given)
    parts = values([{"DistillationKLDivLoss": {"model_name_pairs": pairs, "pair_weights": [0.25, 3]}}], given)
    for name, weight in (("Teacher", 0.25), ("Second", 3)):
        part = f"loss_kldiv_Student_{name}"
        assert parts[part] == pytest.approx(weight * plain[part])


def test_several_students_and_teachers():
    given = {f"N{i}": paddle.to_tensor(np.eye(3, 4, i, dtype="float32")) for i in range(4)}
    pairs = [["N0", "N2"], ["N0", "N3"], ["N1", "N2"]]
    loss = build_loss([{"DistillationKLDivLoss": {"model_name_pairs": pairs}}])
    assert loss.networks == {"N0", "N1", "N2", "N3"}
    assert list(loss(given, LABEL))[:-1] == [f"loss_kldiv_{s}_{t}" for s, t in pairs]


def test_options_may_be_omegaconf_nodes():
    node = OmegaConf.create([{"DistillationKLDivLoss": {**PAIRS, "weight": 2}}])
    OmegaConf.set_readonly(node, True)
    assert values(node) == values([{"DistillationKLDivLoss": {**PAIRS, "weight": 2}}])


# ---------------------------------------------------------------- networks


def test_plain_losses_look_at_the_main_network():
    given = outputs()
    loss = build_loss([{"CELoss": {}}], main="Student")
    assert loss.networks == {"Student"}
    expected = float(loss(given["Student"]["logits"], LABEL)["CELoss"])
    assert float(loss(given, LABEL)["CELoss"]) == expected
    assert float(loss(given["Student"], LABEL)["CELoss"]) == expected
    assert build_loss([{"CELoss": {}}]).networks == frozenset()
    assert build_loss([{"CELoss": {}}, KL], main="X").networks == {"X", "Student", "Teacher"}


@pytest.mark.parametrize(
    ("config", "given", "text"),
    [
        ([{"CELoss": {}}], outputs(), "returns no 'logits', only Student, Teacher"),
        ([KL], paddle.zeros([3, 4]), "outputs of several networks"),
        ([KL], {"Studen": paddle.zeros([3, 4])}, "no sub-network 'Student'.*Did you mean: Studen"),
        (
            [{"DistillationKLDivLoss": {**PAIRS, "key": "fea"}}],
            outputs(),
            "returns no 'fea'.*Did you mean: feat",
        ),
        (
            [{"DistillationKLDivLoss": {**PAIRS, "key": "feat"}}],
            {"Student": paddle.zeros([3, 4]), "Teacher": paddle.zeros([3, 4])},
            "returns only logits.*return_patterns",
        ),
        ([KL], outputs(4, 6), "4 classes and the teacher 6.*class_map"),
        ([KL], {"Student": paddle.zeros([3, 4]), "Teacher": paddle.zeros([1, 4])}, r"\[3, 4\] and \[1, 4\]"),
        ([{"DistillationDistanceLoss": PAIRS}], outputs(4, 6), "equal shapes"),
        ([{"CELoss": {"class_weights": [1.0, 2.0]}}], paddle.zeros([3, 4]), "2 numbers for 4 classes"),
    ],
)
def test_outputs_that_do_not_fit(config, given, text):
    loss = build_loss(config)
    with pytest.raises(ConfigError, match=text):
        loss(given, LABEL)


@pytest.mark.parametrize("config", [[KL], [{"DistillationGTCELoss": {"model_names": ["Studnt"]}}]])
def test_outputs_are_checked_before_training(config):
    with pytest.raises(ConfigError, match="no sub-network"):
        build_loss(config, outputs={"Teacher": paddle.zeros([3, 4])})


# ---------------------------------------------------------------- other classes


def class_map(tmp_path: Path, text: str) -> str:
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_class_map_brings_the_teacher_into_the_order_of_the_student(tmp_path):
    given = outputs(3, 6)
    chosen = [5, 0, 2]
    path = class_map(tmp_path, "# student teacher\n1 0\n0 5\n\n2 2\n")
    mapped = {"Student": given["Student"]["logits"], "Teacher": given["Teacher"]["logits"][:, chosen]}
    for name in [
        "KLDiv",
        "CE",
        "DML",
        "DKD",
        "DIST",
        "WSL",
        "SKD",
        "NKD",
        "TTM",
        "WTTM",
        "RLD",
        "OFA",
        "Hard",
    ]:
        node = {f"Distillation{name}Loss": {**PAIRS, "class_map": path}}
        expected = values([{f"Distillation{name}Loss": PAIRS}], mapped)
        assert values([node], given) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n1 x\n", "classes.txt:2: got '1 x'"),
        ("0 1\n0 2\n", "classes.txt:2: student class 0 is listed twice"),
        ("0 1\n2 2\n", "no line for student class 1"),
        ("", "no line for student class 0"),
    ],
)
def test_mistakes_in_a_class_map(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        build_loss([{"DistillationKLDivLoss": {**PAIRS, "class_map": class_map(tmp_path, text)}}])


def test_a_class_map_that_is_no_plain_text(tmp_path):
    path = class_map(tmp_path, "")
    for content, message in (
        ("# 狗\n0 1\n".encode("gbk"), "classes.txt:1: not UTF-8 .as GBK .* save the class_map as UTF-8"),
        (b"0 1\n1 " + b"9" * 5000, "classes.txt:2: got"),
    ):
        Path(path).write_bytes(content)
        with pytest.raises(DataError, match=message):
            build_loss([{"DistillationKLDivLoss": {**PAIRS, "class_map": path}}])


@pytest.mark.parametrize("text", ["0 0\n1 1\n", "0 0\n1 1\n2 6\n"])
def test_a_class_map_for_other_networks(tmp_path, text):
    loss = build_loss([{"DistillationKLDivLoss": {**PAIRS, "class_map": class_map(tmp_path, text)}}])
    with pytest.raises(ConfigError, match="student has 3 classes and the teacher 6"):
        loss.prepare(outputs(3, 6))


def test_a_missing_class_map():
    with pytest.raises(DataError, match="nowhere.txt"):
        build_loss([{"DistillationKLDivLoss": {**PAIRS, "class_map": "nowhere.txt"}}])


# ---------------------------------------------------------------- schedules


def test_schedules_over_epochs():
    warmup = epoch_value({"name": "LinearWarmup", "value": 8.0, "epochs": 4}, "w")
    assert [warmup(e) for e in (1, 2, 4, 5, 100)] == [2.0, 4.0, 8.0, 8.0, 8.0]
    steps = epoch_value({"name": "Steps", "values": [0.9, 0.5, 0.1], "epochs": [60, 80]}, "w")
    assert [steps(e) for e in (1, 60, 61, 80, 81)] == [0.9, 0.9, 0.5, 0.5, 0.1]
    decay = epoch_value({"name": "CosineDecay", "value": 6.0, "start": 2, "epochs": 8}, "w")
    assert [decay(e) for e in (1, 2, 4, 5, 8, 9)] == pytest.approx([6.0, 6.0, 4.5, 3.0, 0.0, 0.0])
    assert epoch_value({"name": "Constant", "value": 3}, "w")(7) == epoch_value(3, "w")(7) == 3.0


def test_a_weight_follows_its_schedule():
    weight = {"name": "Steps", "values": [1, 0.5], "epochs": [2]}
    loss = build_loss(
        [{"DistillationKLDivLoss": {**PAIRS, "weight": weight}}, {"CELoss": {}}], main="Student"
    )
    given, seen = outputs(), []
    for epoch in (1, 2, 3):
        loss.set_epoch(epoch)
        parts = loss(given, LABEL)
        seen.append(float(parts["loss_kldiv_Student_Teacher"]))
        assert float(parts["loss"]) == pytest.approx(seen[-1] + float(parts["CELoss"]))
    assert seen == [seen[0], seen[0], pytest.approx(seen[0] / 2)]


def test_alpha_of_skd_follows_a_schedule():
    schedule = {"name": "Steps", "values": [0.9, 0.1], "epochs": [1]}
    loss = build_loss([{"DistillationSKDLoss": {**PAIRS, "alpha": schedule}}])
    for epoch, alpha in ((1, 0.9), (2, 0.1)):
        loss.set_epoch(epoch)
        expected = values([{"DistillationSKDLoss": {**PAIRS, "alpha": alpha}}])["loss"]
        assert float(loss(outputs(), LABEL)["loss"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        ("1.0", "expected a finite number"),
        (True, "expected a finite number"),
        (float("nan"), "expected a finite number"),
        ({"name": "LinearWarmp", "value": 1.0, "epochs": 3}, "Did you mean: LinearWarmup"),
        ({"name": "LinearWarmup", "value": 1.0}, "needs the option 'epochs'"),
        ({"name": "LinearWarmup", "value": 1.0, "epochs": 3, "epoch": 1}, "no option 'epoch'"),
        ({"name": "LinearWarmup", "value": 1.0, "epochs": 0}, "whole number of epochs"),
        ({"name": "Steps", "values": [1, 2], "epochs": [3, 4]}, "one entry more"),
        ({"name": "CosineDecay", "value": 1.0, "start": 9, "epochs": 9}, "expected more than `start`, 9"),
        ({"name": "CosineDecay", "value": 1.0, "start": 0, "epochs": 9}, "whole number of epochs"),
        ({"name": "Steps", "values": [1, 2, 3], "epochs": [4, 3]}, "rising"),
        ({"value": 1.0}, "unknown schedule"),
    ],
)
def test_mistakes_in_a_weight(weight, text):
    with pytest.raises(ConfigError, match=text) as caught:
        build_loss([{"CELoss": {"weight": weight}}])
    assert str(caught.value).startswith("Loss.0.CELoss.weight")


# ---------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ([], "expected a list"),
        ({"CELoss": {}}, "expected a list"),
        ([{"CELos": {}}], "Did you mean: CELoss"),
        ([{"CELoss": {"epsilo": 0.1}}], "no option 'epsilo'.*Did you mean: epsilon"),
        ([{"CELoss": {"wieght": 0.1}}], "Did you mean: weight"),
        ([{"DistillationKLDivLoss": {}}], "needs the option 'model_name_pairs'"),
        ([{"DistillationKLDivLoss": {"model_name_pairs": []}}], "model_name_pairs: got"),
        (
            [{"DistillationKLDivLoss": {"model_name_pairs": ["Student", "Teacher"]}}],
            "model_name_pairs.0: expected a list of strings",
        ),
        ([{"DistillationKLDivLoss": {"model_name_pairs": [["A", "B"], ["A", "B"]]}}], "twice"),
        ([{"DistillationKLDivLoss": {**PAIRS, "pair_weights": [1.0, 2.0]}}], "2 numbers for 1"),
        ([{"DistillationKLDivLoss": {**PAIRS, "pair_weights": [math.nan]}}], "pair_weights.0: got nan"),
        ([{"DistillationKLDivLoss": {**PAIRS, "temperature": 0}}], "temperature: got 0"),
        ([{"DistillationDMLLoss": {**PAIRS, "act": "relu"}}], "act: expected 'softmax' or 'sigmoid'"),
        (
            [{"DistillationDistanceLoss": {**PAIRS, "mode": "l3"}}],
            "mode: expected 'l1' or 'l2' or 'smooth_l1', got 'l3'",
        ),
        ([{"DistillationGTCELoss": {"model_names": "Student"}}], "model_names: expected a list of strings"),
        ([{"CELoss": {"epsilon": 1.0}}], "epsilon: got 1.0"),
        ([{"CELoss": {"reduction": "none"}}], "reduction: expected 'mean' or 'sum'"),
        ([{"CELoss": {"class_weights": [0.0, 0.0]}}], "class_weights"),
        ([{"MGDLoss": {}}], "use DistillationPairLoss"),
        ([{"DistillationPairLoss": PAIRS}], "base_loss_name"),
        ([{"DistillationPairLoss": {**PAIRS, "base_loss_name": "MGDLos"}}], "Did you mean: MGDLoss"),
        (
            [{"DistillationPairLoss": {**PAIRS, "base_loss_name": "MGDLoss", "lambda": 0.1}}],
            "no option 'lambda'.*lambda_mgd",
        ),
        (
            [{"DistillationRKDLoss": {**PAIRS, "student_keepkeys": ["a"], "teacher_keepkeys": []}}],
            "1 student",
        ),
    ],
)
def test_mistakes_in_the_config(config, text):
    with pytest.raises(ConfigError, match=text):
        build_loss(config)
