"""Files of the networks for CIFAR, compared with the published structure, written with functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import Tensor
from safetensors.numpy import save

from ppcls import create_model
from ppcls.cli import main
from ppcls.errors import WeightsError
from ppcls.weights import convert, load_into, torch_options

CLASSES = 5
IMAGES = np.random.default_rng(7).standard_normal((3, 3, 16, 16)).astype("float32")
Params = dict[str, np.ndarray]


def draw(shapes: dict[str, tuple[int, ...]]) -> Params:
    """Return random values whose activations stay of about the same size through all layers."""
    rng = np.random.default_rng(0)
    values = {}
    for name, shape in shapes.items():
        value = rng.standard_normal(shape)
        if len(shape) > 1:
            value *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = 1 + 0.2 * np.abs(value)
        else:
            value = 0.2 * value + (name.endswith("weight"))
        values[name] = value.astype("float32")
    return values


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (channels,)


def resnet_file(depth: int, channels: tuple[int, ...], option: str, head: str) -> Params:
    """The names of RepDistiller and mdistiller (option B), or of networks with option A."""
    wide, *stages = channels
    shapes = {"conv1.weight": (wide, 3, 3, 3), **dict(norm("bn1", wide))}
    for stage, out in enumerate(stages, 1):
        for index in range((depth - 2) // 6):
            block = f"layer{stage}.{index}"
            shapes |= {f"{block}.conv1.weight": (out, wide, 3, 3), **dict(norm(f"{block}.bn1", out))}
            shapes |= {f"{block}.conv2.weight": (out, out, 3, 3), **dict(norm(f"{block}.bn2", out))}
            if option == "B" and (wide != out or (stage > 1 and not index)):
                shapes |= {f"{block}.downsample.0.weight": (out, wide, 1, 1)}
                shapes |= dict(norm(f"{block}.downsample.1", out))
            wide = out
    return draw({**shapes, f"{head}.weight": (CLASSES, wide), f"{head}.bias": (CLASSES,)})


def wide_resnet_file(depth: int, widen: int) -> Params:
    wide = 16
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (16, 3, 3, 3)}
    for stage in range(1, 4):
        out = 16 * 2 ** (stage - 1) * widen
        for index in range((depth - 4) // 6):
            block = f"block{stage}.layer.{index}"
            shapes |= {**dict(norm(f"{block}.bn1", wide)), f"{block}.conv1.weight": (out, wide, 3, 3)}
            shapes |= {**dict(norm(f"{block}.bn2", out)), f"{block}.conv2.weight": (out, out, 3, 3)}
            if wide != out:
                shapes[f"{block}.convShortcut.weight"] = (out, wide, 1, 1)
            wide = out
    return draw({**shapes, **dict(norm("bn1", wide)), "fc.weight": (CLASSES, wide), "fc.bias": (CLASSES,)})


class Functions:
    """The layers of a file by their names in it, as functions."""

    def __init__(self, params: Params) -> None:
        self.params = {name: paddle.to_tensor(value) for name, value in params.items()}

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.params[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        scale, shift, mean, variance = (
            self.params[f"{name}.{leaf}"].reshape([1, -1, 1, 1])
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / paddle.sqrt(variance + 1e-5) * scale + shift

    def head(self, x: Tensor, name: str) -> np.ndarray:
        found = x.mean([2, 3]) @ self.params[f"{name}.weight"].T + self.params[f"{name}.bias"]
        return found.numpy()

    def blocks(self, pattern: str) -> list[tuple[str, int]]:
        """Return the names of the blocks in order, and their strides."""
        found = (re.match(pattern, name) for name in self.params)
        places = sorted({(int(m[2]), int(m[3]), m[1]) for m in found if m})
        return [(name, 2 if stage > 1 and not index else 1) for stage, index, name in places]


def resnet_logits(params: Params, head: str) -> np.ndarray:
    net = Functions(params)
    x = F.relu(net.norm(net.conv(paddle.to_tensor(IMAGES), "conv1"), "bn1"))
    for block, stride in net.blocks(r"(layer(\d)\.(\d+))"):
        y = F.relu(net.norm(net.conv(x, f"{block}.conv1", stride), f"{block}.bn1"))
        y = net.norm(net.conv(y, f"{block}.conv2"), f"{block}.bn2")
        if f"{block}.downsample.0.weight" in params:
            x = net.norm(net.conv(x, f"{block}.downsample.0", stride), f"{block}.downsample.1")
        elif x.shape != y.shape:
            side = (y.shape[1] - x.shape[1]) // 2
            zeros = paddle.zeros([y.shape[0], side, *y.shape[2:]])
            x = paddle.concat([zeros, x[:, :, ::stride, ::stride], zeros], axis=1)
        x = F.relu(x + y)
    return net.head(x, head)


def wide_resnet_logits(params: Params) -> np.ndarray:
    net = Functions(params)
    x = net.conv(paddle.to_tensor(IMAGES), "conv1")
    for block, stride in net.blocks(r"(block(\d)\.layer\.(\d+))"):
        active = F.relu(net.norm(x, f"{block}.bn1"))
        y = F.relu(net.norm(net.conv(active, f"{block}.conv1", stride), f"{block}.bn2"))
        y = net.conv(y, f"{block}.conv2")
        short = f"{block}.convShortcut"
        x = y + (net.conv(active, short, stride) if f"{short}.weight" in params else x)
    return net.head(F.relu(net.norm(x, "bn1")), "fc")


def ours(name: str, params: Params) -> np.ndarray:
    net = create_model(name, class_num=CLASSES, **torch_options(name, params))
    load_into(net, convert(params, net, name, "file"), "file", allow_missing_head=False)
    net.eval()
    with paddle.no_grad():
        return net(paddle.to_tensor(IMAGES)).numpy()


@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize(
    ("name", "depth", "channels"),
    [
        ("resnet8", 8, (16, 16, 32, 64)),
        ("resnet20", 20, (16, 16, 32, 64)),
        ("resnet8x4", 8, (32, 64, 128, 256)),
    ],
)
@pytest.mark.parametrize("head", ["fc", "linear"])
def test_logits_of_residual_networks_are_those_of_the_file(
    name: str, depth: int, channels: tuple[int, ...], option: str, head: str
) -> None:
    params = resnet_file(depth, channels, option, head)
    wanted = resnet_logits(params, head)
    np.testing.assert_allclose(ours(name, params), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "depth", "widen"), [("wrn_16_1", 16, 1), ("wrn_16_2", 16, 2), ("wrn_40_1", 40, 1)]
)
def test_logits_of_wide_residual_networks_are_those_of_the_file(name: str, depth: int, widen: int) -> None:
    params = wide_resnet_file(depth, widen)
    wanted = wide_resnet_logits(params)
    np.testing.assert_allclose(ours(name, params), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_network_with_other_short_cuts_is_refused_with_the_option() -> None:
    params = resnet_file(8, (16, 16, 32, 64), "A", "linear")
    with pytest.raises(WeightsError, match="is resnet8 with the option shortcut: A"):
        convert(params, create_model("resnet8", class_num=CLASSES), "resnet8", "file")


def test_command_names_the_option_and_the_result_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = resnet_file(8, (16, 16, 32, 64), "A", "linear")
    source, target = tmp_path / "theirs.safetensors", tmp_path / "ours.pdparams"
    source.write_bytes(save(params, metadata={"format": "pt"}))
    command = ["convert-weights", str(source), str(target), "--arch", "resnet8", "--class-num", str(CLASSES)]
    assert main(command) == 0
    assert "use it with shortcut: A" in capsys.readouterr().out
    net = create_model("resnet8", class_num=CLASSES, shortcut="A", pretrained=str(target))
    np.testing.assert_array_equal(net.fc.weight.numpy(), params["linear.weight"].T)
    direct = create_model("resnet8", class_num=CLASSES, shortcut="A", pretrained=str(source))
    np.testing.assert_array_equal(direct.fc.weight.numpy(), params["linear.weight"].T)
