"""ppcls.arch: networks whose numbers come from a file."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.arch import build_empty, build_model, create_model
from ppcls.config import ArchSpec

PAIR = {
    "name": "DistillationModel",
    "class_num": 3,
    "freeze_params_list": [True, False],
    "models": [
        {"Teacher": {"name": "SwinTransformer_tiny_patch4_window7_224"}},
        {"Student": {"name": "resnet8"}},
    ],
}


@pytest.mark.parametrize("only", [None, {"Student"}])
def test_empty_networks_differ_from_others_in_their_numbers_alone(only):
    empty, other = (build(ArchSpec.read(PAIR), only=only) for build in (build_empty, build_model))
    named, expected = empty.state_dict(), other.state_dict()
    assert [(key, value.shape, value.dtype, value.stop_gradient) for key, value in named.items()] == [
        (key, value.shape, value.dtype, value.stop_gradient) for key, value in expected.items()
    ]
    for name, parameter in empty.named_parameters():
        assert not parameter.numpy().any(), name
    names = {name for name, _ in empty.named_parameters()}
    for name in named.keys() - names:  # what is computed when a network is built, such as Swin's places
        assert (named[name].numpy() == expected[name].numpy()).all(), name


def test_the_number_of_classes_may_come_from_numpy():
    assert create_model("resnet8", class_num=np.int64(3)).fc.weight.shape[1] == 3
