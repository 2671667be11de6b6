"""The log line that says how many parameters a run trains."""

from __future__ import annotations

import logging

import pytest

import ppcls
from ppcls.arch import build_model
from ppcls.engine.build import announce, count_parameters

# resnet8 for 10 classes, by hand: 3x3 convolutions without biases; two numbers a channel in BatchNorm.
STEM = 9 * 3 * 16 + 2 * 16
STAGES = (
    2 * (9 * 16 * 16 + 2 * 16),
    (9 * 16 * 32 + 2 * 32) + (9 * 32 * 32 + 2 * 32) + (16 * 32 + 2 * 32),
    (9 * 32 * 64 + 2 * 64) + (9 * 64 * 64 + 2 * 64) + (32 * 64 + 2 * 64),
)
CLASSIFIER = 64 * 10 + 10
ALL = STEM + sum(STAGES) + CLASSIFIER


@pytest.mark.parametrize(
    ("options", "everything", "trained"),
    [
        ({}, ALL, ALL),
        ({"freeze_befor": "stem"}, ALL, ALL - STEM),
        ({"freeze_befor": "blocks[1]"}, ALL, STAGES[2] + CLASSIFIER),
        ({"freeze_befor": "avg_pool"}, ALL, CLASSIFIER),
        ({"stop_after": "blocks[1]"}, ALL - STAGES[2] - CLASSIFIER, ALL - STAGES[2] - CLASSIFIER),
        ({"freeze_befor": "stem", "stop_after": "blocks[0]"}, STEM + STAGES[0], STAGES[0]),
    ],
)
def test_counts(options, everything, trained):
    assert count_parameters(ppcls.create_model("resnet8", class_num=10, **options)) == (everything, trained)


def test_parts_that_learn_at_rate_zero_do_not_train():
    net = ppcls.create_model("PPLCNet_x0_25", class_num=10, lr_mult_list=[0.0, 0.0, 0.5, 1.0, 1.0, 1.0])
    everything, trained = count_parameters(net)
    still = [p.size for part in (net.conv1, net.blocks2) for p in part.parameters() if not p.stop_gradient]
    assert everything - trained == sum(still) > 0


def test_frozen_networks_of_a_distillation_are_counted_but_do_not_train(caplog):
    node = {"name": "resnet8", "class_num": 10}
    arch = {
        "name": "DistillationModel",
        "freeze_params_list": [True, False],
        "models": [{"Teacher": node}, {"Student": {**node, "freeze_befor": "blocks[1]"}}],
    }
    model = build_model(arch)
    assert count_parameters(model) == (2 * ALL, STAGES[2] + CLASSIFIER)
    with caplog.at_level(logging.INFO, "ppcls"):
        announce(model, "DistillationModel", 7)
    assert (
        f"DistillationModel: {2 * ALL:,} parameters, {STAGES[2] + CLASSIFIER:,} of them train" in caplog.text
    )
