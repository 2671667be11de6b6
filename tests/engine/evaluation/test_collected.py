"""Answers that an evaluation collects are those in the order of the classes of the images."""

import numpy as np
import paddle
import pytest

from ppcls.config import ArchSpec
from ppcls.config.schema import LossSpec
from ppcls.data import Batch
from ppcls.engine.evaluation.collected import AnswerCollector
from ppcls.loss.class_map import class_map_of


@pytest.mark.parametrize("order", [None, [3, 0, 2, 1], [5, 0, 2, 4]])
def test_a_teacher_that_counts_the_classes_in_another_order(order):
    logits = np.random.default_rng(0).normal(size=(6, 6 if order == [5, 0, 2, 4] else 4)).astype(np.float32)
    label = np.array([[0], [1], [2], [3], [0], [1]])
    collector = AnswerCollector(["Teacher"], 4, {"Teacher": order} if order else None)
    collector.begin(averaged=False)
    batch = Batch(np.zeros((6, 3, 2, 2), np.float32), label, np.arange(6))
    collector({"Teacher": paddle.to_tensor(logits)}, batch)
    answer = collector.gathered(averaged=False, epoch=1).networks["Teacher"]
    picked = logits if order is None else logits[:, order]
    powers = np.exp(picked) / np.exp(picked).sum(1, keepdims=True)
    assert answer.predicted.tolist() == picked.argmax(1).tolist()
    np.testing.assert_allclose(answer.score, powers.max(1), rtol=1e-5)
    np.testing.assert_allclose(answer.label_score, powers[np.arange(6), label[:, 0]], rtol=1e-5)


def test_the_map_of_a_teacher_is_that_of_its_loss_or_its_ensemble(tmp_path):
    file = tmp_path / "map.txt"
    file.write_text("0 3\n1 0\n", encoding="utf-8")
    net = {"name": "resnet8"}
    node = {"name": "DistillationModel", "models": [{"A": net}, {"B": net}, {"Student": net}]}
    node["ensembles"] = {"Both": {"networks": ["A", "B"], "class_maps": {"B": str(file)}}}
    arch = ArchSpec.read(node)
    assert class_map_of(LossSpec(), arch, "A") is None
    assert class_map_of(LossSpec(), arch, "B") == [3, 0]
    pair = {"model_name_pairs": [["Student", "A"]], "class_map": str(file)}
    assert class_map_of(LossSpec(Train=[{"DistillationKLDivLoss": pair}]), arch, "A") == [3, 0]
