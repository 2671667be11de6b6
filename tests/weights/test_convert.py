"""PyTorch's networks and ours answer alike with the same weights.

The answers were recorded with `torch_reference.py`, in this folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from safetensors.numpy import save
from support import slow_unless
from torch_reference import CLASSES, QUICK, images, rows, weights_for

from ppcls import create_model
from ppcls.cli import main
from ppcls.errors import WeightsError
from ppcls.weights import convert, has_torch_layout, load_into, read_params, torch_options
from ppcls.weights.torch_residual import without_bias_of_fc1

pytestmark = pytest.mark.usefixtures("quick_weights")

ROWS = rows()
# Names of networks whose logits agree to 1e-5 of the largest one, and of those where it is 1e-3, because the
# gates of SE_ResNeXt101 let roundings grow: PyTorch's float32 is 1e-4 from its own float64, in which both
# libraries agree to 1e-9.
CLOSE = (
    "FasterNet",
    "MobileViT",
    "RegNet",
    "ResNeSt",
    "SE_ResNeXt50",
    "StarNet",
    "SwinTransformerV2",
    "TinyNet",
)
ROUNDED = ("SE_ResNeXt101",)
LARGE = ("ConvNeXt", "DenseNet", "ResNeXt50", "SwinTransformer_")


def row_of(theirs: str) -> dict[str, Any]:
    return next(row for row in ROWS if row["theirs"] == theirs)


@pytest.mark.parametrize(
    "row",
    slow_unless(lambda row: row["ours"] in QUICK and not row["ours"].startswith(LARGE), ROWS),
    ids=lambda row: f"{row['ours']}-{row['theirs'].replace(' ', '-')}",
)
def test_logits_are_those_of_pytorch(row: dict[str, Any]) -> None:
    net = create_model(row["ours"], class_num=CLASSES, **torch_options(row["ours"], row["shapes"]))
    found = convert(weights_for(row["shapes"], row["ours"]), net, row["ours"], "file")
    report = load_into(net, found, "file", allow_missing_head=False)
    assert not report.unexpected
    net.eval()
    with paddle.no_grad():
        logits = net(paddle.to_tensor(images(row["side"]))).numpy()
    wanted = np.array(row["logits"])
    apart = 1e-5 if row["ours"].startswith(CLOSE) else 1e-3 if row["ours"].startswith(ROUNDED) else 1e-4
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=apart * np.abs(wanted).max())


@pytest.fixture(scope="module")
def mobile() -> dict[str, np.ndarray]:
    return weights_for(row_of("torchvision mobilenet_v2")["shapes"])


def _saved(tmp_path: Path, params: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(params, metadata={"format": "pt"}))
    return path


def test_pretrained_takes_the_file(tmp_path: Path, mobile: dict[str, np.ndarray]) -> None:
    path = _saved(tmp_path, mobile)
    net = create_model("MobileNetV2", class_num=CLASSES, pretrained=str(path))
    np.testing.assert_array_equal(net.out.weight.numpy(), mobile["classifier.1.weight"].T)
    np.testing.assert_array_equal(
        net.conv9._batch_norm._variance.numpy(), mobile["features.18.1.running_var"]
    )


def test_another_class_count_keeps_the_new_classifier(
    tmp_path: Path, mobile: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ppcls")
    create_model("MobileNetV2", class_num=3, pretrained=str(_saved(tmp_path, mobile)))
    assert f"file: {CLASSES} classes, network: 3" in caplog.text


def test_a_safetensors_file_is_known_by_its_names(tmp_path: Path, mobile: dict[str, np.ndarray]) -> None:
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(save(mobile))
    net = create_model("MobileNetV2", class_num=CLASSES, pretrained=str(path))
    np.testing.assert_array_equal(net.out.weight.numpy(), mobile["classifier.1.weight"].T)


def test_a_buffer_of_that_name_does_not_make_a_file_that_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    for names, torch in ((["a.running_mean"], False), (["a.running_mean", "a.running_var"], True)):
        path.write_bytes(save({name: np.zeros(2, np.float32) for name in names}))
        assert has_torch_layout(path) == torch


def test_the_file_of_another_network_is_reported_by_its_names() -> None:
    for theirs in ("timm tf_efficientnet_lite1", "timm tf_efficientnet_b1"):
        net = create_model("MobileNetV2", class_num=CLASSES)
        with pytest.raises(WeightsError, match="tensors that do not make up a MobileNetV2"):
            convert(weights_for(row_of(theirs)["shapes"]), net, "MobileNetV2", "file")


def test_a_plain_safetensors_file_is_ours(tmp_path: Path) -> None:
    net = create_model("PPLCNet_x0_25", class_num=3)
    path = tmp_path / "ours.safetensors"
    path.write_bytes(save({k: v.numpy() for k, v in net.state_dict().items()}))
    assert create_model("PPLCNet_x0_25", class_num=3, pretrained=str(path)) is not None


@pytest.mark.parametrize("theirs", ["timm tf_efficientnet_lite0", "timm tf_efficientnet_b0", "timm resnet50"])
def test_files_with_a_twin_of_another_function_are_named(
    theirs: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = row_of(theirs)
    net = create_model(row["ours"], class_num=CLASSES, **torch_options(row["ours"], row["shapes"]))
    convert(weights_for(row["shapes"]), net, row["ours"], "some file")
    assert ("some file: timm's networks with tf_" in caplog.text) == ("tf_" in theirs)


def test_layers_that_pytorch_has_not_hand_on_their_input() -> None:
    row = row_of("torchvision resnet18")
    net = create_model("ResNet18", class_num=CLASSES)
    load_into(net, convert(weights_for(row["shapes"]), net, "ResNet18", "file"), "file")
    net.eval()
    x = paddle.to_tensor(np.random.default_rng(0).normal(0, 3, (1, 64, 5, 5)).astype(np.float32))
    np.testing.assert_allclose(net.blocks[0].short(x).numpy(), x.numpy(), rtol=1e-6)


def test_every_tensor_needs_a_place_and_every_parameter_a_tensor(mobile: dict[str, np.ndarray]) -> None:
    net = create_model("MobileNetV2", class_num=CLASSES)
    fewer = {key: value for key, value in mobile.items() if key != "features.3.conv.1.0.weight"}
    with pytest.raises(WeightsError, match="nothing in the file for: .*_bottleneck_conv._conv.weight"):
        convert(fewer, net, "MobileNetV2", "file")
    more = {**mobile, "features.20.0.weight": np.zeros(3), "aux": np.zeros(3)}
    with pytest.raises(WeightsError, match="no place in the network: features.20.0.weight, aux"):
        convert(more, net, "MobileNetV2", "file")
    with pytest.raises(WeightsError, match="more than one tensor for: out.weight"):
        convert({**mobile, "classifier.weight": np.zeros(3)}, net, "MobileNetV2", "file")
    with pytest.raises(WeightsError, match="do not make up a MobileNetV2"):
        convert(weights_for(row_of("torchvision resnet18")["shapes"]), net, "MobileNetV2", "file")


def test_a_square_matrix_is_transposed_too() -> None:
    row = row_of("timm deit_tiny_patch16_224")
    net = create_model("DeiT_tiny_patch16_224", class_num=CLASSES)
    given = weights_for(row["shapes"])
    found = convert(given, net, "DeiT_tiny_patch16_224", "file")
    np.testing.assert_array_equal(found["blocks.0.attn.proj.weight"], given["blocks.0.attn.proj.weight"].T)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("VGG11", "its convolutions have no biases"),
        ("MobileNetV3_small_x0_35", "squeeze-and-excitation"),
        ("PPLCNet_x0_25", "there are no rules .* there are for the families ResNet, "),
    ],
)
def test_networks_that_are_another_function(name: str, says: str, mobile: dict[str, np.ndarray]) -> None:
    net = create_model("resnet8", class_num=3)  # the network itself is not looked at
    with pytest.raises(WeightsError, match=says):
        convert(mobile, net, name, "file")


def test_the_command(tmp_path: Path, mobile: dict[str, np.ndarray], capsys: pytest.CaptureFixture) -> None:
    source, target = _saved(tmp_path, mobile), tmp_path / "ours.pdparams"
    command = ["convert-weights", str(source), str(target), "--arch", "MobileNetV2"]
    assert main([*command, "--class-num", str(CLASSES)]) == 0
    found = read_params(target)
    np.testing.assert_array_equal(found["out.bias"], mobile["classifier.1.bias"])
    assert main(command) == 2
    assert "set class_num" in capsys.readouterr().err
    assert main([*command[:-1], "MobileNetv2"]) == 2
    assert "unknown network 'MobileNetv2'. Did you mean: MobileNetV2" in capsys.readouterr().err


def test_torch_names_given_as_they_are_are_recognised(mobile: dict[str, np.ndarray]) -> None:
    net = create_model("MobileNetV2", class_num=CLASSES)
    with pytest.raises(WeightsError, match="ppcls convert-weights"):
        load_into(net, mobile, "file")


def test_an_option_that_makes_another_function_is_named() -> None:
    row = row_of("torchvision swin_t")
    net = create_model(row["ours"], class_num=CLASSES)
    with pytest.raises(WeightsError, match="with the option shift_single_window: False"):
        convert(weights_for(row["shapes"]), net, row["ours"], "file")


def test_a_bias_before_batch_norm_moves_into_its_mean() -> None:
    rng = np.random.default_rng(3)
    x, bias, mean = rng.normal(size=(4, 6)), rng.normal(size=6), rng.normal(size=6)
    start = "layer1.0.conv2."
    given = {f"{start}fc1.bias": bias, f"{start}bn1.running_mean": mean, "layer1.0.conv1.bias": bias}
    moved = without_bias_of_fc1(given)
    assert moved.keys() == {f"{start}bn1.running_mean", "layer1.0.conv1.bias"}
    np.testing.assert_allclose(x - moved[f"{start}bn1.running_mean"], x + bias - mean, rtol=1e-12)
    alone = {f"{start}fc1.bias": bias}
    assert without_bias_of_fc1(alone) == alone  # the conversion says that it has no place
