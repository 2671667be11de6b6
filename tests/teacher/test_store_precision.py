"""How far the loss of a run moves if its store keeps outputs in half precision: the tolerance of the docs."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from support import KL

from ppcls.arch import build_model
from ppcls.errors import DataError
from ppcls.loss import build_loss
from ppcls.teacher import store_frozen
from ppcls.teacher.columns import Columns, Keeping

TOLERANCE = {"float16": 5e-4, "bfloat16": 2e-3}  # docs/teacher_store.md
PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
MAPS = {**PAIRS, "s_key": "blocks[2]", "t_key": "blocks[5]"}
CE = {"DistillationGTCELoss": {"model_names": ["Student"]}}
LOSSES = [
    KL,
    {"DistillationDKDLoss": PAIRS},
    {"DistillationDISTLoss": PAIRS},
    {"DistillationWSLLoss": PAIRS},
    {"DistillationSKDLoss": PAIRS},
    {"DistillationPairLoss": {"base_loss_name": "MGDLoss", **MAPS}},
    {"DistillationPairLoss": {"base_loss_name": "PEFDLoss", **MAPS}},
    {"DistillationRKDLoss": {**PAIRS, "student_keepkeys": ["blocks[2]"], "teacher_keepkeys": ["blocks[5]"]}},
    {
        "OFDLoss": {
            "model_name_pair": ["Student", "Teacher"],
            "student_keys": ["blocks[2]"],
            "teacher_keys": ["blocks[5]"],
            "teacher_bns": ["blocks[5].conv1.bn"],
        }
    },
]


class Rounded:
    """Stands for a store: outputs go through its precision and come back at once."""

    def __init__(self, precision):
        self.keeping = Keeping(precision, precision)

    def answer(self, name, x, live):
        output = live(x)
        columns = Columns.of_outputs({name: output}, self.keeping)
        return columns.decode(columns.encode(name, output, x.shape[0], np.random.default_rng(0)), name)


@pytest.fixture(scope="module")
def networks():
    """A pair whose logits are spread as those of trained networks."""
    paddle.seed(1)
    teacher = {"name": "resnet14", "return_patterns": ["blocks[5]"]}
    student = {"name": "resnet8", "return_patterns": ["blocks[2]"]}
    arch = {"name": "DistillationModel", "class_num": 20, "freeze_params_list": [True, False]}
    model = build_model({**arch, "models": [{"Teacher": teacher}, {"Student": student}]})
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((6, 3, 16, 16), np.float32))
    for name, spread in (("Teacher", 4.0), ("Student", 2.0)):
        head = model.network(name).fc
        head.weight.set_value(head.weight * spread / float(model(x)[name]["logits"].std()))
    return model, x


def test_losses_stay_within_the_tolerance(networks):
    model, x = networks
    label = paddle.to_tensor(np.arange(len(x)).reshape(-1, 1))
    rounded = dict.fromkeys(TOLERANCE, 0)
    for entry in LOSSES:
        paddle.seed(3)
        loss = build_loss([copy.deepcopy(CE), copy.deepcopy(entry)], main="Student")
        loss.prepare(model(x), {name: model.network(name) for name in model.names})

        def value(loss=loss):
            paddle.seed(7)  # MGD masks features at random
            with paddle.no_grad():
                return float(loss(model(x), label)["loss"])

        exact = value()
        for precision, tolerance in TOLERANCE.items():
            store_frozen(model, Rounded(precision), {})
            moved = abs(value() / exact - 1)
            model.answer_with("Teacher", None)
            assert moved <= tolerance, (precision, entry)
            rounded[precision] += moved > 0
    assert min(rounded.values()) > 5


def test_numbers_beyond_float16_are_refused(networks):
    model, x = networks
    columns = Columns.of_outputs({"T": x * 1e5}, Keeping("float16", "float16"))
    with pytest.raises(DataError, match="float16"):
        columns.encode("T", x * 1e5, len(x), np.random.default_rng(0))
