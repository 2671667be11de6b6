"""Networks: published sizes, options, blocks, initial values."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from arch_networks import fill, filled
from hypothesis import given, settings
from hypothesis import strategies as st

import ppcls
from ppcls.arch import TheseusLayer, register_network
from ppcls.arch import backbone as families
from ppcls.arch.backbone.layers import interleave, make_divisible, scaled
from ppcls.arch.backbone.wide_resnet import PreActBlock
from ppcls.errors import ConfigError
from ppcls.registry import BACKBONES

SMALL = [name for name in ppcls.list_models() if name.startswith(("resnet", "wrn"))]


def trained_values(net):
    """The number of values that training changes."""
    return sum(int(np.prod(p.shape)) for p in net.parameters() if not p.stop_gradient)


@pytest.mark.parametrize(
    ("name", "count"),
    # resnet110 from the same rule; the others as published to two decimals (millions), 100 classes.
    [
        ("resnet20", 0.28),
        ("resnet56", 0.86),
        ("resnet110", 1.74),
        ("resnet8x4", 1.23),
        ("resnet32x4", 7.43),
        ("wrn_16_1", 0.18),
        ("wrn_16_2", 0.70),
        ("wrn_40_1", 0.57),
        ("wrn_40_2", 2.26),
    ],
)
def test_small_image_networks_have_their_published_sizes(name, count):
    assert abs(trained_values(ppcls.create_model(name, class_num=100)) / 1e6 - count) < 0.006


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50_vd", "PPLCNet_x0_25", "resnet8", "wrn_16_1"])
def test_channels_classes_and_a_training_step(name):
    net = ppcls.create_model(name, class_num=7, input_image_channel=1)
    logits = net(paddle.randn([3, 1, 32, 32]))
    assert logits.shape == [3, 7]
    logits.square().sum().backward()
    silent = [key for key, p in net.named_parameters() if not p.stop_gradient and p.grad is None]
    assert silent == []


@pytest.mark.parametrize("name", SMALL)
def test_width_scales_small_networks(name):
    def lazy(**options):
        with paddle.LazyGuard():
            return trained_values(ppcls.create_model(name, class_num=10, **options))

    half, whole = lazy(width=0.5), lazy()
    assert 3 * half < whole < 5 * half


@pytest.mark.parametrize(("wide", "out", "stride"), [(4, 4, 1), (4, 6, 1), (4, 6, 2)])
def test_pre_activation_block_shares_the_activation_where_the_shape_changes(wide, out, stride):
    block = PreActBlock(wide, out, stride)
    block.eval()
    for key, value in block.state_dict().items():
        value.set_value(fill(key, tuple(value.shape)))
    x = paddle.to_tensor(np.random.default_rng(3).standard_normal((2, wide, 8, 8)).astype("float32"))

    def active(bn, x):
        return F.relu(F.batch_norm(x, bn._mean, bn._variance, bn.weight, bn.bias))

    first = active(block.bn0, x)
    second = active(block.bn1, F.conv2d(first, block.conv0.weight, stride=stride, padding=1))
    short = x if wide == out else F.conv2d(first, block.short.weight, stride=stride)
    expected = F.conv2d(second, block.conv1.weight, padding=1) + short
    np.testing.assert_allclose(block(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_depthwise_convolutions_of_several_sizes_become_one():
    net = filled("PPLCNetV2_small", class_num=7)
    x = paddle.to_tensor(np.random.default_rng(3).standard_normal((2, 3, 64, 64)).astype("float32"))
    before = net(x).numpy()
    blocks = [layer for layer in net.sublayers() if hasattr(layer, "dw_conv_list")]
    assert len(blocks) == 6
    for block in blocks:
        assert all(p.stop_gradient for p in block.dw_conv.parameters())
        for _ in range(2):
            block.reparameterize()
        block.dw_conv_list = None  # only the one convolution may serve now
    np.testing.assert_allclose(net(x).numpy(), before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_interleave_is_a_channel_shuffle():
    x, y = np.arange(6.0).reshape(1, 3, 1, 2), -np.arange(6.0).reshape(1, 3, 1, 2)
    wanted = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1], x[:, 2], y[:, 2]], axis=1)
    np.testing.assert_array_equal(interleave(paddle.to_tensor(x), paddle.to_tensor(y)).numpy(), wanted)


def test_stages_halve_the_image_and_pad_odd_sizes():
    net = ppcls.create_model("resnet8", class_num=2, return_stages=True)
    assert [net(paddle.ones([1, 3, 29, 33]))[k].shape[2:] for k in net.stages_pattern] == [
        [29, 33],
        [15, 17],
        [8, 9],
    ]
    net = ppcls.create_model("ResNet18_vd", class_num=2, return_stages=True)
    assert net(paddle.ones([1, 3, 97, 70]))["blocks[7]"].shape[2:] == [4, 3]


def test_stem_options():
    x = paddle.ones([1, 3, 32, 32])
    net = ppcls.create_model("ResNet18", class_num=2, max_pool=False, return_patterns="blocks[0]")
    assert net(x)["blocks[0]"].shape[2:] == [16, 16]
    net = ppcls.create_model(
        "PPLCNet_x0_25", class_num=2, stride_list=[1, 2, 1, 2, 1], return_stages=True, class_expand=64
    )
    assert [net(x)[k].shape[-1] for k in net.stages_pattern] == [32, 16, 16, 8, 8]
    assert net.fc.weight.shape == [64, 2]
    assert ppcls.create_model("PPLCNet_x0_25", class_num=2, use_last_conv=False).fc.weight.shape == [128, 2]
    assert ppcls.create_model("PPLCNet", class_num=2, scale=0.1).fc.weight.shape == [1280, 2]
    with pytest.raises(ConfigError, match="stride_list needs 5"):
        ppcls.create_model("PPLCNet_x0_25", stride_list=[2, 2])


def test_batch_norm_of_pplcnet_has_no_weight_decay():
    net = ppcls.create_model("PPLCNet_x0_25", class_num=2)
    for layer in net.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            for parameter in (layer.weight, layer.bias):
                assert parameter.regularizer is not None
                assert parameter.regularizer._coeff == 0.0


def test_initial_values_spread_as_documented():
    paddle.seed(5)
    net = ppcls.create_model("ResNet18", class_num=1000)
    weight = net.blocks[6].conv1.conv.weight.numpy()
    assert abs(weight.std() * np.sqrt(512 * 9 / 2) - 1) < 0.01
    assert abs(np.abs(net.fc.weight.numpy()).max() * np.sqrt(512) - 1) < 0.01
    wide = ppcls.create_model("resnet32x4").blocks[5].conv0.conv.weight.numpy()  # 64 -> 128 channels
    assert abs(wide.std() * np.sqrt(128 * 9 / 2) - 1) < 0.02


@given(st.floats(1, 4000))
def test_make_divisible(channels):
    rounded = make_divisible(channels)
    assert rounded % 8 == 0
    assert rounded == 8 or 0.9 * channels <= rounded <= channels + 8


@settings(max_examples=20)
@given(st.integers(1, 512), st.floats(0.001, 4))
def test_scaled_is_never_empty(channels, width):
    assert scaled(channels, width) == max(1, round(channels * width))


def test_every_network_can_be_imported_from_the_families():
    for name in ppcls.list_models():
        assert getattr(families, name) is BACKBONES[name]
    net = families.resnet8(class_num=10, return_patterns=["blocks[2]"])
    assert list(net(paddle.ones([1, 3, 8, 8]))) == ["logits", "blocks[2]"]
    with pytest.raises(ImportError, match="ResNet81"):
        from ppcls.arch.backbone import ResNet81  # noqa: F401


@pytest.mark.parametrize("name", ppcls.list_models())
def test_signature_is_complete(name):
    parameters = inspect.signature(BACKBONES[name]).parameters
    common = {"class_num", "pretrained", "use_ssld", "return_patterns", "return_stages", "stop_after"}
    assert common | {"freeze_befor", "input_image_channel"} <= set(parameters)
    for parameter in parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert not isinstance(parameter.annotation, str)
        assert parameter.annotation is not parameter.empty
    assert not {"depth", "vd", "channels", "widen"} & set(parameters)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "ResNet81"}, "unknown network 'ResNet81'. Did you mean"),
        ({"name": "resnet8", "clas_num": 3}, "resnet8 has no option 'clas_num'. Did you mean: class_num"),
        ({"name": "resnet8", "depth": 14}, "resnet8 has no option 'depth'"),
        ({"name": "resnet8", "width": 0.0}, "resnet8: width must be a finite number above 0, got 0.0"),
        ({"name": "PPLCNet", "scale": float("inf")}, "scale must be a finite number above 0, got inf"),
        ({"name": "PPLCNet", "class_expand": -1}, "class_expand must be a finite number above 0, got -1"),
        (
            {"name": "resnet8", "input_image_channel": 0},
            "input_image_channel must be a finite number above 0",
        ),
        ({"name": "PPLCNet", "lr_mult_list": [0, 0, 0, 0, 0, float("nan")]}, "6 finite numbers of 0 or more"),
        ({"name": "resnet8", "class_num": 0}, "class_num must be a whole number above 0, got 0"),
        ({"name": "resnet8", "class_num": "ten"}, "class_num: expected a whole number, got 'ten'"),
    ],
)
def test_mistakes_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        ppcls.create_model(**options)


def test_own_networks_get_the_common_options():
    @register_network
    def _ProbeNetwork(class_num: int = 4, hidden: int = 8) -> TheseusLayer:
        class Net(TheseusLayer):
            stages_pattern = ("one",)

            def __init__(self):
                super().__init__()
                self.one = paddle.nn.Linear(3, hidden)
                self.two = paddle.nn.Linear(hidden, class_num)

            def forward(self, x):
                return self.two(self.one(x))

        return Net()

    out = ppcls.create_model("_ProbeNetwork", class_num=6, hidden=5, return_stages=0)(paddle.ones([2, 3]))
    assert {key: value.shape for key, value in out.items()} == {"logits": [2, 6], "one": [2, 5]}
    with pytest.raises(ValueError, match="registered twice"):
        register_network(_ProbeNetwork, "_ProbeNetwork")


def test_importing_the_package_is_cheap():
    code = (
        "import sys, ppcls; assert 'paddle' not in sys.modules; ppcls.create_model; "
        "assert 'paddle' in sys.modules; print(ppcls.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ppcls.__version__
    with pytest.raises(AttributeError, match="nothing"):
        _ = ppcls.nothing


def test_fasternet_says_how_large_images_must_be():
    net = ppcls.create_model("FasterNet_T0", class_num=2)
    with pytest.raises(ConfigError, match="images of 31 x 64 pixels: FasterNet needs at least 32 x 32"):
        net(paddle.ones([1, 3, 31, 64]))
    assert net(paddle.ones([2, 3, 32, 33])).shape == [2, 2]
