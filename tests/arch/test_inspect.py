"""Layers, sizes and costs found by tracing, against forwards of real tensors and counts by hand."""

from __future__ import annotations

import errno
import os

import paddle
import pytest
from paddle import nn

import ppcls
from ppcls.arch import TheseusLayer, inspect
from ppcls.arch.inspect import inspect_network, trace_network
from ppcls.errors import ConfigError


class Net(TheseusLayer):
    """Each of the things that are counted or shown in a way of their own."""

    stages_pattern = ("down", "up")

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2D(6, 8, 3, stride=2, padding=1, groups=2)
        self.norm = nn.BatchNorm2D(8)
        self.act = nn.ReLU()
        self.up = nn.Conv2DTranspose(8, 4, 2, stride=2)
        self.windows = Windows()
        self.parts = Parts()
        self.unused = nn.LayerList([nn.Linear(3, 3)])
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.norm(self.down(x)))  # [N, 8, 6, 4]
        x = self.act(self.up(x))  # [N, 4, 12, 8]
        self.windows(x)
        first, _ = self.parts(x)
        tokens = first.flatten(2)  # [N, 4, 96]
        weights = paddle.matmul(tokens, tokens, transpose_y=True) @ tokens
        crossed = paddle.matmul(tokens, weights, transpose_x=True)  # [N, 96, 96]
        return self.fc(x.mean([2, 3])) + crossed.mean([1, 2]).unsqueeze(1)


class Windows(nn.Layer):
    def forward(self, x):
        return x.reshape([x.shape[0] * 6, 4, 16])


class Parts(nn.Layer):
    def forward(self, x):
        return x * 1, {"mean": x.mean([2, 3])}


def test_each_kind_of_layer_and_of_product():
    seen = trace_network(Net(), [6, 12, 8])
    rows = {layer.descriptor: (layer.shape, layer.runs, layer.stage) for layer in seen.layers}
    assert rows == {
        "down": ("[8, 6, 4]", 1, 0),
        "norm": ("[8, 6, 4]", 1, None),
        "act": ("[4, 12, 8]", 2, None),
        "up": ("[4, 12, 8]", 1, 1),
        "windows": ("6 x [4, 16]", 1, None),
        "parts": ("[4, 12, 8], mean: [4]", 1, None),
        "unused": ("", 0, None),
        "unused[0]": ("", 0, None),
        "fc": ("[5]", 1, None),
    }
    convolution, transposed = (8 * 6 * 4) * (3 * 3 * 3), (8 * 6 * 4) * (4 * 2 * 2)
    attention = (4 * 4) * 96 + (4 * 96) * 4 + (96 * 96) * 4
    assert seen.multiply_adds == convolution + transposed + attention + 4 * 5
    assert seen.parameters == (8 * 3 * 9 + 8) + 2 * 8 + (8 * 4 * 4 + 4) + (3 * 3 + 3) + (4 * 5 + 5)


@pytest.mark.parametrize(("name", "side"), [("resnet8", 20), ("PPLCNet_x0_25", 32)])
def test_shapes_are_those_of_a_forward(name, side):
    seen = inspect_network({"name": name, "class_num": 7}, [3, side, side])
    running = [layer for layer in seen.layers if layer.shape]
    net = ppcls.create_model(name, class_num=7, return_patterns=[layer.descriptor for layer in running])
    net.eval()
    out = net(paddle.ones([3, 3, side, side]))
    assert {layer.descriptor: layer.shape for layer in running} == {
        key: str(list(value.shape[1:])) for key, value in out.items() if key != "logits"
    }
    assert [layer.descriptor for layer in seen.layers] == net.descriptors()
    stages = sorted((layer.stage, layer.descriptor) for layer in seen.layers if layer.stage is not None)
    assert [name for _, name in stages] == list(net.stages_pattern)


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    # What torchvision publishes, and by how much these networks differ from its: a convolution on the first
    # short cut of ResNet18, and none of the biases of VGG's convolutions.
    [
        ("ResNet18", 11_689_512 + 64 * 64 + 2 * 64, 1_814_073_344 + 64 * 64 * 56 * 56),
        ("ResNet50", 25_557_032, 4_089_184_256),
        ("VGG11", 132_863_336 - 64 - 128 - 2 * 256 - 4 * 512, 7_609_090_048),
    ],
)
def test_sizes_are_the_known_ones(name, parameters, multiply_adds):
    seen = inspect_network({"name": name}, [3, 224, 224])
    assert (seen.parameters, seen.multiply_adds) == (parameters, multiply_adds)


def test_a_lean_network_against_paddle_flops():
    # The model zoo's 18.25 M from paddle.flops has normalisation and pooling in it, and is larger.
    seen = inspect_network({"name": "PPLCNet_x0_25"}, [3, 224, 224])
    assert 0.90 < seen.multiply_adds / 18.25e6 < 1
    assert seen.parameters / 1e6 == pytest.approx(1.52, abs=0.01)


@pytest.mark.parametrize(
    ("node", "shape", "says"),
    [
        ({"name": "resnet8"}, [4, 32, 32], "Arch: resnet8 takes images of 3 channels, not 4"),
        ({"name": "resnet9"}, [3, 32, 32], "Did you mean"),
        ({"name": "resnet8", "pretraind": True}, [3, 32, 32], "has no option 'pretraind'"),
        (
            {"name": "LinearTransformTeacher", "qk_dim": 4, "keys": [], "t_shapes": []},
            [3, 32, 32],
            "no layers that could",
        ),
    ],
)
def test_what_cannot_be_traced(node, shape, says):
    with pytest.raises(ConfigError, match=says):
        inspect_network(node, shape)


def test_images_that_do_not_fit():
    says = r"^here: Net does not run on images of shape \[6, 10, 6\]: Expected capacity == in_size.*[^)]$"
    with pytest.raises(ConfigError, match=says):
        trace_network(Net(), [6, 10, 6], "here")


def test_weights_are_neither_loaded_nor_made():
    big = {"name": "ResNeXt101_32x48d_wsl", "pretrained": "/nowhere/at_all", "use_ssld": True}
    assert inspect_network(big, [3, 64, 64]).parameters > 8e8


def test_code_that_cannot_be_written_ends_in_a_message(monkeypatch):
    def full(*given, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/code.py")

    monkeypatch.setattr(inspect, "to_static", full)
    with pytest.raises(ConfigError, match="Net cannot be traced: No space left on device: /cache/code.py"):
        trace_network(Net(), [6, 12, 8])
