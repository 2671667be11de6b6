"""The convolution that multiplies with a whole batch at once, beside Paddle's own."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.arch import create_model
from ppcls.arch.backbone.layers import conv
from ppcls.arch.conv import Conv2D, one_product_pays, use_kernels_alone

# batch, channels, filters, kernel, stride, padding, height, width: each goes through the product.
SHAPES = {
    "one pixel in, one tap": (8, 160, 160, 3, 1, 1, 1, 1),
    "one pixel in, 1x1": (16, 256, 256, 1, 1, 0, 1, 1),
    "one pixel in, 5x5": (8, 128, 64, 5, 1, 2, 1, 1),
    "one pixel in, one out beside it": (16, 256, 256, 1, 3, 1, 1, 1),
    "one pixel out of four": (8, 160, 160, 3, 2, 1, 2, 2),
    "2x2": (8, 128, 128, 3, 1, 1, 2, 2),
    "2x2, 1x1": (17, 256, 256, 1, 1, 0, 2, 2),
    "4x4 to 2x2, 1x1": (17, 256, 256, 1, 2, 0, 4, 4),
    "no padding": (8, 128, 128, 3, 1, 0, 4, 4),
    "not square": (8, 256, 256, (3, 1), (1, 2), (1, 0), 2, 3),
    "same": (8, 128, 128, 3, 1, "SAME", 2, 2),
    "3x3": (16, 128, 128, 3, 1, 1, 3, 3),
    "4x4": (2, 256, 256, 3, 1, 1, 4, 4),
    "7x7": (2, 512, 256, 3, 1, 1, 7, 7),
}


def _layers(shape: tuple, **options: object) -> tuple[Conv2D, nn.Conv2D, paddle.Tensor]:
    """Return our layer, Paddle's with the same parameters, and a batch."""
    batch, channels, filters, kernel, stride, padding, height, width = shape
    paddle.seed(1)
    layers = [
        kind(channels, filters, kernel, stride=stride, padding=padding, **options)
        for kind in (Conv2D, nn.Conv2D)
    ]
    layers[1].set_state_dict(layers[0].state_dict())
    return layers[0], layers[1], paddle.randn([batch, channels, height, width])


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every call that Paddle's kernel gets from our layer."""
    calls: list[int] = []
    kernel = nn.Conv2D.forward

    def forward(self: nn.Conv2D, x: paddle.Tensor) -> paddle.Tensor:
        calls.append(1)
        return kernel(self, x)

    monkeypatch.setattr(nn.Conv2D, "forward", forward)
    return calls


def _run(layer: nn.Layer, x: paddle.Tensor) -> list[np.ndarray]:
    """Return output and gradients of a loss in which every output value has another weight."""
    x = x.detach()
    x.stop_gradient = False
    y = layer(x)
    weights = paddle.cos(paddle.arange(y.size, dtype="float32")).reshape(y.shape)
    (y * weights).sum().backward()
    return [t.numpy() for t in (y, x.grad, *(p.grad for p in layer.parameters()))]


def _assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-6) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


@pytest.mark.parametrize("bias", [None, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_and_gradients_are_those_of_paddle(shape, bias, monkeypatch):
    ours, theirs, x = _layers(shape, bias_attr=bias)
    expected = _run(theirs, x)
    calls = _counting(monkeypatch)
    found = _run(ours, x)
    assert not calls, "this shape should not reach the kernel"
    _assert_close(found, expected)


DEPTHWISE = {
    "8x8": (4, 5, 5, 5, 1, 2, 8, 8),
    "stride": (8, 3, 3, 3, 2, 1, 9, 8),
    "not square": (8, 4, 4, (3, 5), (1, 2), (1, 0), 4, 9),
    "one pixel": (1, 4, 4, 3, 1, 1, 1, 1),
    "same": (4, 4, 4, 3, 1, "SAME", 2, 3),
}


@pytest.mark.parametrize("gradients", [True, False], ids=["gradients", "no gradients"])
@pytest.mark.parametrize("shape", DEPTHWISE.values(), ids=DEPTHWISE)
def test_depthwise_convolutions_of_small_maps_are_those_of_paddle(shape, gradients, monkeypatch):
    ours, theirs, x = _layers(shape, groups=shape[1], bias_attr=None if gradients else False)
    with paddle.set_grad_enabled(gradients):
        expected = _run(theirs, x) if gradients else [theirs(x).numpy()]
        calls = _counting(monkeypatch)
        found = _run(ours, x) if gradients else [ours(x).numpy()]
    assert not calls, "this shape should not reach the kernel"
    _assert_close(found, expected)


def test_other_groups_and_larger_maps_reach_the_kernel(monkeypatch):
    calls = _counting(monkeypatch)
    layer = Conv2D(4, 4, 3, padding=1, groups=4)
    layer(paddle.randn([8, 4, 16, 16]))
    Conv2D(4, 8, 3, padding=1, groups=4)(paddle.randn([8, 4, 4, 4]))
    Conv2D(4, 4, 3, padding=1, groups=2)(paddle.randn([8, 4, 4, 4]))
    Conv2D(4, 4, 3, padding=2, groups=4, dilation=2)(paddle.randn([8, 4, 4, 4]))
    use_kernels_alone(layer)
    layer(paddle.randn([8, 4, 4, 4]))
    assert len(calls) == 5


@pytest.mark.parametrize("shape", [SHAPES["2x2"], SHAPES["one pixel in, one tap"]], ids=["2x2", "1x1"])
def test_without_gradients_the_output_is_the_same(shape, monkeypatch):
    ours, theirs, x = _layers(shape)
    with paddle.no_grad():
        expected = theirs(x).numpy()
        calls = _counting(monkeypatch)
        _assert_close([ours(x).numpy()], [expected])
    assert not calls


def test_the_rule_asks_for_few_pixels_many_weights_and_more_than_one_image():
    weights = 512 * 512 * 9
    assert one_product_pays(2, 4, weights, gradients=True)
    assert not one_product_pays(1, 4, weights, gradients=True)
    assert not one_product_pays(32, 64, weights, gradients=True)
    assert not one_product_pays(32, 4, 16 * 16 * 9, gradients=True)
    assert one_product_pays(32, 16, weights, gradients=True)
    assert not one_product_pays(32, 16, weights, gradients=False)
    assert not one_product_pays(32, 0, weights, gradients=True)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"dilation": 2},
        {"padding_mode": "reflect"},
        {"data_format": "NHWC"},
        {"padding": [1, 2, 1, 2]},
        {"padding": "SAME", "stride": 2},
    ],
    ids=str,
)
def test_what_it_cannot_do_is_left_to_paddle(options, monkeypatch):
    options = {"padding": 2, **options}
    paddle.seed(1)
    ours = Conv2D(256, 256, 3, **options)
    theirs = nn.Conv2D(256, 256, 3, **options)
    theirs.set_state_dict(ours.state_dict())
    x = paddle.randn([8, 3, 3, 256] if options.get("data_format") == "NHWC" else [8, 256, 3, 3])
    expected = _run(theirs, x)
    calls = _counting(monkeypatch)
    found = _run(ours, x)
    assert calls
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("shape", [[8, 64, 2, 2], [128, 2, 2]], ids=str)
def test_wrong_inputs_get_the_message_of_paddle(shape):
    ours, theirs, _ = _layers(SHAPES["2x2"])
    messages = []
    for layer in (ours, theirs):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the messages are compared
            layer(paddle.zeros(shape))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_large_unfolded_batch_is_left_to_the_kernel(monkeypatch):
    monkeypatch.setattr("ppcls.arch.conv._MOST_VALUES", 1000)
    ours, _, x = _layers(SHAPES["2x2"])
    calls = _counting(monkeypatch)
    ours(x)
    assert calls


def test_it_can_be_switched_off_and_other_layers_are_never_touched(monkeypatch):
    ours, theirs, x = _layers(SHAPES["2x2"])
    expected = theirs(x).numpy()
    network = nn.Sequential(ours, theirs)
    use_kernels_alone(network)
    assert np.array_equal(ours(x).numpy(), expected)
    assert "forward" not in vars(theirs)
    assert nn.Conv2D.forward.__module__.startswith("paddle.")


def test_state_names_hooks_and_copies_are_those_of_a_convolution():
    ours, theirs, x = _layers(SHAPES["2x2"])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.full_name().rpartition("_")[0] == theirs.full_name().rpartition("_")[0]
    seen: list[list[int]] = []
    handle = ours.register_forward_post_hook(lambda layer, inputs, output: seen.append(output.shape))
    ours(x)
    handle.remove()
    assert seen == [theirs(x).shape]
    twin = copy.deepcopy(ours)
    assert np.array_equal(twin(x).numpy(), ours(x).numpy())


@pytest.mark.parametrize("full_graph", [True, False], ids=["AST", "SOT"])
def test_a_static_graph_has_the_convolution_of_paddle(full_graph):
    ours, theirs, x = _layers(SHAPES["2x2"])
    expected = theirs(x).numpy()
    static = paddle.jit.to_static(ours, full_graph=full_graph)
    _assert_close([static(x).numpy()], [expected])
    small = paddle.randn([2, 128, 5, 5])  # other sizes afterwards
    _assert_close([static(small).numpy()], [theirs(small).numpy()])


def test_an_exported_program_has_convolutions_alone(tmp_path):
    ours, _, x = _layers(SHAPES["2x2"])
    ours(x)
    spec = [paddle.static.InputSpec([None, 128, 2, 2])]
    paddle.jit.save(paddle.jit.to_static(ours, input_spec=spec, full_graph=True), str(tmp_path / "net"))
    program = (tmp_path / "net.json").read_text()
    assert "conv2d" in program
    assert "unfold" not in program
    assert "matmul" not in program


def test_a_network_trains_the_same_with_and_without():
    """Twenty steps of KD, every convolution but the first by one product over the batch."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, 16, 3, 16, 16), dtype="float32")
    targets = nn.functional.softmax(paddle.to_tensor(rng.standard_normal((3, 16, 10), dtype="float32")))
    results = []
    for fast in (True, False):
        paddle.seed(5)
        sizes = [(3, 64, 2), (64, 256, 2), (256, 256, 2), (256, 256, 1), (256, 256, 2), (256, 256, 1)]
        layers: list[nn.Layer] = []
        for channels, filters, stride in sizes:
            layers += [conv(channels, filters, 3, stride), nn.BatchNorm2D(filters), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
        if not fast:
            use_kernels_alone(network)
        optimizer = paddle.optimizer.Momentum(0.01, 0.9, network.parameters())
        losses = []
        for step in range(20):
            student = nn.functional.log_softmax(network(paddle.to_tensor(images[step % 3])) / 4)
            loss = 16 * nn.functional.kl_div(student, targets[step % 3], "batchmean")
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(float(loss))
        weights = np.concatenate([p.numpy().ravel() for p in network.parameters()])
        results.append((np.array(losses), weights))
    (losses, weights), (other_losses, other_weights) = results
    assert np.abs(losses - other_losses).max() <= 1e-4 * np.abs(other_losses).max()
    assert np.linalg.norm(weights - other_weights) <= 1e-4 * np.linalg.norm(other_weights)
    assert not np.array_equal(weights, other_weights), "nothing went through the product"


def test_networks_of_ours_use_it(monkeypatch):
    calls = _counting(monkeypatch)
    network = create_model("ResNet18", class_num=10)
    network(paddle.zeros([16, 3, 32, 32]))
    convolutions = [layer for layer in network.sublayers() if isinstance(layer, nn.Conv2D)]
    assert all(type(layer) is Conv2D for layer in convolutions)
    assert len(convolutions) - len(calls) >= 7  # those of the last stage, and more
