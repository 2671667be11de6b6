"""WKD-L: where the distances of the classes come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from support import distilled

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.errors import ConfigError, DataError
from ppcls.loss import build_loss
from ppcls.loss.wkd_logit import class_distances, wasserstein_logits

PAIRS = {"model_name_pairs": [["S", "T"]]}
LABEL = paddle.to_tensor([[0], [2], [1]])


class Classifier(nn.Layer):
    """A teacher with two linear layers, of which the second gives the logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 4)
        self.fc = nn.Linear(4, classes)


def outputs(classes: int = 3, teacher_classes: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    student = rng.standard_normal((3, classes)).astype("float32")
    teacher = rng.standard_normal((3, teacher_classes)).astype("float32")
    return {"S": paddle.to_tensor(student, stop_gradient=False), "T": paddle.to_tensor(teacher)}


def built(options: dict[str, Any], given: dict[str, Any], teacher: nn.Layer | None = None) -> Any:
    networks = {"S": nn.Linear(1, 1), "T": teacher or Classifier(3)}
    return build_loss([{"DistillationWKDLogitLoss": {**PAIRS, **options}}], outputs=given, networks=networks)


def test_distances_are_those_of_the_teachers_classifier():
    teacher, given = Classifier(3), outputs()
    loss = built({"gamma": 5.0}, given, teacher)
    expected = wasserstein_logits(
        given["S"],
        given["T"],
        LABEL.flatten(),
        gamma=5.0,
        distances=class_distances(teacher.fc.weight),
    )
    parts = loss(given, LABEL)
    assert float(parts["loss_wkd_l_S_T"]) == pytest.approx(float(expected))
    parts["loss"].backward()
    assert np.abs(given["S"].grad.numpy()).max() > 0
    assert teacher.fc.weight.grad is None
    assert loss.state_dict() == {}


def test_distances_of_a_teacher_with_other_classes(tmp_path):
    chosen = [4, 0, 2]
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"{i} {c}\n" for i, c in enumerate(chosen)), encoding="utf-8")
    teacher, given = Classifier(5), outputs(3, 5)
    mapped = {"S": given["S"], "T": given["T"][:, chosen]}
    np.save(tmp_path / "d.npy", class_distances(teacher.fc.weight[:, chosen]).numpy())
    by_map = built({"class_map": str(path)}, given, teacher)(given, LABEL)["loss"]
    by_file = built({"cost": str(tmp_path / "d.npy")}, mapped)(mapped, LABEL)["loss"]
    assert float(by_map) == pytest.approx(float(by_file), rel=1e-5)


def test_gamma_follows_a_schedule():
    given = outputs()
    schedule = {"name": "CosineDecay", "value": 8.0, "start": 1, "epochs": 3}
    loss, teacher = None, Classifier(3)
    for epoch, gamma in ((1, 8.0), (2, 4.0), (3, 0.0)):
        loss = loss or built({"gamma": schedule}, given, teacher)
        loss.set_epoch(epoch)
        expected = built({"gamma": gamma}, given, teacher)(given, LABEL)["loss"]
        assert float(loss(given, LABEL)["loss"]) == pytest.approx(float(expected))


def test_a_teacher_without_a_linear_layer():
    with pytest.raises(ConfigError, match="T has no linear layer.*`cost` to logits, or to a .npy file"):
        built({}, outputs(), nn.Conv2D(3, 3, 1))


def test_a_classifier_of_other_classes():
    with pytest.raises(ConfigError, match="4 classes in the distances, but the student has 3"):
        built({}, outputs(), Classifier(4))


def test_a_classifier_that_has_not_been_read():
    loss = build_loss([{"DistillationWKDLogitLoss": PAIRS}])
    with pytest.raises(ConfigError, match="classifier of T has not been read.*networks"):
        loss(outputs(), LABEL)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (np.zeros((3, 4)), r"shape \[3, 4\], expected the distances"),
        (np.full((3, 3), -1.0), "numbers of at least 0"),
        (np.full((3, 3), np.nan), "numbers of at least 0"),
        (np.array([["a"]]), "expected the distances"),
        (np.zeros((4, 4)), "4 classes in the distances, but the student has 3"),
    ],
)
def test_files_that_hold_something_else(content, text, tmp_path):
    np.save(tmp_path / "cost.npy", content)
    with pytest.raises((ConfigError, DataError), match=text):
        built({"cost": str(tmp_path / "cost.npy")}, outputs())


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "cost.npy").write_bytes(b"no array")
    for name, text in (
        ("cost.npy", "cannot read"),
        ("missing.npy", "missing.npy"),
        ("cost.txt", "a .npy file"),
    ):
        with pytest.raises((ConfigError, DataError), match=text):
            built({"cost": str(tmp_path / name)}, outputs())


def test_the_weights_of_a_teacher_may_be_loaded_after_the_loss_was_prepared():
    teacher, given = Classifier(3), outputs()
    loss = built({"gamma": 5.0}, given, teacher)
    teacher.fc.weight.set_value(paddle.to_tensor(np.eye(4, 3, dtype="float32")))
    later = built({"gamma": 5.0}, given, teacher)
    assert float(loss(given, LABEL)["loss"]) == float(later(given, LABEL)["loss"])


def measured(loss: Any, *batches: np.ndarray) -> Any:
    (wanted,) = loss.measurements()
    for batch in batches:
        wanted.moments.add(wanted.rows(paddle.to_tensor(batch.astype("float32"))))
    wanted.finish(wanted.moments)
    return loss


def test_distances_of_logits_are_one_minus_the_squared_correlation():
    logits = np.random.default_rng(1).standard_normal((40, 3)) @ np.array([[1, 2, 0], [0, 1, 1], [0, 0, 1]])
    expected = 1 - np.corrcoef(logits.T) ** 2
    given = outputs()
    loss = measured(built({"cost": "logits"}, given), logits[:7], logits[7:8], logits[8:])
    np.testing.assert_allclose(loss.state_dict()["layers.0.distances_0"].numpy(), expected, atol=1e-6)
    by_hand = wasserstein_logits(
        given["S"], given["T"], LABEL.flatten(), distances=paddle.to_tensor(expected.astype("float32"))
    )
    assert float(loss(given, LABEL)["loss"]) == pytest.approx(float(by_hand), rel=1e-5)


def test_distances_of_logits_with_other_classes_of_the_teacher(tmp_path):
    (tmp_path / "map.txt").write_text("0 4\n1 0\n2 2\n", encoding="utf-8")
    logits = np.random.default_rng(1).standard_normal((20, 5)).cumsum(1)
    loss = measured(built({"cost": "logits", "class_map": str(tmp_path / "map.txt")}, outputs(3, 5)), logits)
    expected = 1 - np.corrcoef(logits[:, [4, 0, 2]].T) ** 2
    np.testing.assert_allclose(loss.state_dict()["layers.0.distances_0"].numpy(), expected, atol=1e-6)


def test_classes_whose_logits_do_not_vary():
    logits = np.random.default_rng(1).standard_normal((20, 3))
    logits[:, 1] = 100.0
    loss = measured(built({"cost": "logits"}, outputs()), logits)
    found = loss.state_dict()["layers.0.distances_0"].numpy()
    np.testing.assert_array_equal(found[1], [1, 0, 1])
    with pytest.raises(ConfigError, match="the same for all images"):
        measured(built({"cost": "logits"}, outputs()), np.ones((20, 3)))


def test_logits_that_have_not_been_measured():
    given = outputs()
    with pytest.raises(ConfigError, match="logits of T have not been measured"):
        built({"cost": "logits"}, given)(given, LABEL)


def test_a_recipe_trains_with_the_classifier_of_its_teacher(recipe, write_recipe):
    node = {"model_name_pairs": [["Student", "Teacher"]], "weight": 0.1}
    path = write_recipe(distilled(recipe, DistillationWKDLogitLoss=node))
    assert "top1" in Engine(load_config(path, [], "train"), "train").train()
