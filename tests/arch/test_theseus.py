"""Layers of a network by name: taps, stages, cutting, freezing, replacing."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import numpy as np
import paddle
import pytest
from paddle import nn
from support import slow_unless

import ppcls
from ppcls.arch import TheseusLayer, list_models
from ppcls.arch.theseus import bracketed, dotted
from ppcls.errors import ConfigError

# The smallest network of each family, with its smallest sensible image.
FAMILIES = {"ResNet18_vd": 32, "ResNet50": 32, "PPLCNet_x0_25": 32, "resnet8": 16, "wrn_16_1": 16}


def make(name="resnet8", **options):
    paddle.seed(0)
    return ppcls.create_model(name, class_num=5, **options)


def images(name="resnet8", count=2, seed=1):
    side = FAMILIES[name]
    values = np.random.default_rng(seed).standard_normal((count, 3, side, side))
    return paddle.to_tensor(values.astype("float32"))


def leaves(net):
    return [(path, layer) for path, layer in net.named_sublayers() if not layer.sublayers()]


def states_empty(net):
    return not net._store.seen and not net._store.running


class Tiny(TheseusLayer):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.act = nn.ReLU()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        # Arithmetic after the last layer: a cut has to end the forward, not only empty the layers.
        return self.last(self.act(self.first(x)).reshape([-1, 4])) * 2 + 1


class Louder(Tiny):
    def forward(self, x):
        return super().forward(x) * 3


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("blocks[3].conv", "blocks.3.conv"),
        ("blocks.3.conv", "blocks.3.conv"),
        ('blocks["3"].conv', "blocks.3.conv"),
        ("a[0][12].b", "a.0.12.b"),
        ("fc", "fc"),
    ],
)
def test_descriptors_have_two_spellings(written, plain):
    assert dotted(written) == plain
    assert dotted(bracketed(plain)) == plain


@pytest.mark.parametrize("name", slow_unless(lambda name: name != "ResNet50", FAMILIES))
def test_features_are_those_of_the_same_forward(name):
    net = make(name)
    net.eval()
    x = images(name)
    alone = net(x)
    descriptors = [bracketed(path) for path, _ in leaves(net)]
    kept = {}
    handles = [
        layer.register_forward_post_hook(lambda _l, _i, out, p=path: kept.__setitem__(bracketed(p), out))
        for path, layer in leaves(net)
    ]
    assert net.update_res(descriptors) == descriptors
    out = net(x)
    assert list(out) == ["logits", *descriptors]
    assert (out["logits"] == alone).all()
    assert all(out[key] is kept[key] for key in descriptors)
    for handle in handles:
        handle.remove()
    assert net.update_res([]) == []
    assert (net(x) == alone).all()
    assert not any(layer._forward_post_hooks for layer in net.sublayers())


def test_output_keys_are_the_descriptors_as_written():
    net = make(return_patterns=["blocks.1.add", "blocks[1]", "avg_pool", "avg_pool"])
    assert list(net(images())) == ["logits", "blocks.1.add", "blocks[1]", "avg_pool"]
    assert list(make(return_patterns="blocks[0]")(images())) == ["logits", "blocks[0]"]


def test_sum_of_a_block_before_its_relu_can_be_tapped():
    out = make(return_patterns=["blocks[0].add", "blocks[0]"])(images())
    before, after = out["blocks[0].add"], out["blocks[0]"]
    assert float(before.min()) < 0
    np.testing.assert_array_equal(after.numpy(), np.maximum(before.numpy(), 0))


def test_gradients_flow_through_features():
    net = make(return_patterns=["blocks[1]"])
    net(images())["blocks[1]"].sum().backward()
    assert net.stem.conv.weight.grad is not None
    assert net.fc.weight.grad is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("blocks[9]", r"resnet8 has no layer 'blocks\[9\]'. It has blocks\[0\] to blocks\[2\]"),
        ("block[0]", "Did you mean: blocks"),
        ("blocks[0].convv1", r"Did you mean: blocks\[0\].conv1"),
        ("fc.linear", "fc has no layers inside"),
        ("", "resnet8 has no layer ''"),
    ],
)
def test_wrong_descriptor_names_close_ones(wrong, says):
    net = make()
    for action in (net.update_res, net.stop_after, net.freeze_befor):
        with pytest.raises(ConfigError, match=says):
            action(wrong)
    with pytest.raises(ConfigError, match=says):
        net.upgrade_sublayer(wrong, lambda layer, _: layer)
    with pytest.raises(ConfigError, match=says):
        make(return_patterns=[wrong])


def test_layer_that_does_not_run_by_itself_is_named():
    class Listed(Tiny):
        def __init__(self):
            super().__init__()
            self.idle = nn.LayerList([nn.ReLU()])

    net = Listed()
    net.update_res("idle")
    with pytest.raises(ConfigError, match="Listed: 'idle' gives no output"):
        net(paddle.ones([1, 4]))
    assert states_empty(net)


@pytest.mark.parametrize("name", slow_unless(lambda name: name != "ResNet50", FAMILIES))
def test_stages(name):
    net = make(name)
    every = list(net.stages_pattern)
    assert net.stage_patterns(True) == every
    assert net.stage_patterns(False) == []
    assert net.stage_patterns(0) == every[:1]
    assert net.stage_patterns([2, 0]) == [every[2], every[0]]
    for wrong in (len(every), -1, [0, 99], [True], ["0"]):
        with pytest.raises(ConfigError, match=rf"{name} has no stage"):
            net.stage_patterns(wrong)
    out = make(name, return_stages=True, return_patterns=["avg_pool"])(images(name))
    assert list(out) == ["logits", "avg_pool", *every]
    sides = [out[key].shape[-1] for key in every]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) >= len(sides) - 1


def test_network_without_stages_says_so():
    with pytest.raises(ConfigError, match="Tiny has no stages"):
        Tiny().stage_patterns(True)


@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("resnet8", 1),
        ("wrn_16_1", 3),
        ("PPLCNet_x0_25", 7),
        pytest.param("ResNet18_vd", 11, marks=pytest.mark.slow),
    ],
)
def test_stop_after_a_layer_gives_that_layers_output(name, every):
    net = make(name)
    net.eval()
    x = images(name)
    wanted = [path for path, _ in net.named_sublayers()]
    net.update_res(wanted)
    features = net(x)
    net.update_res([])
    for path in wanted[::every]:
        cut = copy.deepcopy(net)
        assert cut.stop_after(bracketed(path)) is True
        assert (cut(x) == features[path]).all(), path
        assert states_empty(cut)
    assert (net(x) == features["logits"]).all()  # the copies have left the original alone


def test_stop_after_ends_whatever_code_follows():
    net, x = Tiny(), paddle.ones([2, 4])
    net.stop_after("first")
    np.testing.assert_array_equal(net(x).numpy(), net.first(x).numpy())
    assert sorted(net.state_dict()) == ["first.bias", "first.weight"]


def test_stop_after_drops_parameters_and_keeps_earlier_taps():
    net = make(return_patterns=["blocks[0]", "blocks[1].conv0"], stop_after="blocks[1].conv0")
    out = net(images())
    assert list(out) == ["logits", "blocks[0]", "blocks[1].conv0"]
    assert out["logits"] is out["blocks[1].conv0"]
    assert not any(key.startswith(("fc", "blocks.2", "blocks.1.conv1")) for key in net.state_dict())
    with pytest.raises(ConfigError, match="comes after the layer of stop_after"):
        net.update_res(["blocks[2]"])
    with pytest.raises(ConfigError, match="comes after the layer of stop_after"):
        net.stop_after("fc")
    net.update_res(["blocks[0]"])
    net.stop_after("blocks[0]")
    assert net(images())["logits"].shape == [2, 16, 16, 16]


def test_stop_after_refuses_to_cut_off_a_tapped_layer():
    net = make(return_patterns=["avg_pool"])
    with pytest.raises(ConfigError, match="'avg_pool' comes after"):
        net.stop_after("blocks[1]")
    assert list(net(images())) == ["logits", "avg_pool"]


def trained_after(net, x):
    """Names of the tensors that one step of gradient descent in train mode changes."""
    net.train()
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    free = [parameter for parameter in net.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.SGD(0.5, parameters=free)
    (net(x) ** 2).sum().backward()
    optimizer.step()
    return {key for key, value in net.state_dict().items() if (value.numpy() != before[key]).any()}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("resnet8", "stem"),
        ("resnet8", "blocks[1].conv0"),
        ("resnet8", "blocks[1].conv0.bn"),
        ("wrn_16_1", "blocks[2]"),
        ("PPLCNet_x0_25", "blocks6[0].se.conv1"),
        ("ResNet18_vd", "blocks[2].short"),
    ],
)
def test_freeze_befor_holds_what_runs_up_to_the_layer(name, target):
    net = make(name, freeze_befor=target)
    order = []
    handles = [
        layer.register_forward_post_hook(lambda _l, _i, _o, p=path: order.append(p))
        for path, layer in net.named_sublayers()
    ]
    changed = trained_after(net, images(name, count=4))
    for handle in handles:
        handle.remove()
    early = set(order[: order.index(dotted(target)) + 1])
    owner = {key: key.rsplit(".", 1)[0] for key in net.state_dict()}
    assert changed == {key for key in owner if owner[key] not in early}


def test_frozen_layers_stay_in_eval_mode_under_any_wrapper():
    net = make(freeze_befor="blocks[0]")
    wrapper = nn.Sequential(net)
    for mode in (net.train, wrapper.train):
        mode()
        net(images())
        assert not net.stem.bn.training
        assert not net.blocks[0].training
        assert net.blocks[1].conv0.bn.training
        assert net.training


def test_upgrade_sublayer_replaces_layers():
    net = make(return_patterns=["blocks[1].conv0.act"])
    seen = []

    def smooth(layer, pattern):
        seen.append((type(layer), pattern))
        return nn.Hardswish()

    names = ["blocks[1].conv0.act", "blocks.0.relu"]
    assert net.upgrade_sublayer(names, smooth) == names
    assert seen == [(nn.ReLU, name) for name in names]
    assert isinstance(net.blocks[1].conv0.act, nn.Hardswish)
    assert isinstance(net.blocks[0].relu, nn.Hardswish)
    assert float(net(images())["blocks[1].conv0.act"].min()) < 0  # the tap has moved to the new layer
    assert net.upgrade_sublayer("fc", lambda layer, _: nn.Linear(64, 7)) == ["fc"]
    assert net(images())["logits"].shape == [2, 7]
    with pytest.raises(ConfigError, match="expected a layer, got int"):
        net.upgrade_sublayer("fc", lambda layer, _: 1)


def test_nothing_is_kept_after_a_forward():
    net = make(return_patterns=["blocks[1]", "avg_pool"])
    out = net(images())
    assert states_empty(net)
    kept = [weakref.ref(value) for value in out.values()]
    del out
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


def test_nothing_is_kept_after_a_failure():
    net = make(return_patterns=["stem", "blocks[1]"])
    net.upgrade_sublayer("fc", lambda layer, _: nn.Linear(3, 5))
    with pytest.raises(ValueError, match=r"."):
        net(images())
    assert states_empty(net)
    net.upgrade_sublayer("fc", lambda layer, _: nn.Linear(64, 5))
    assert list(net(images())) == ["logits", "stem", "blocks[1]"]


def test_layers_used_alone_fill_nothing():
    net = make(return_patterns=["stem", "blocks[0]"])
    net.blocks[0](net.stem(images()))
    assert states_empty(net)


def test_one_network_used_twice_and_inside_another():
    class Pair(TheseusLayer):
        def __init__(self):
            super().__init__()
            self.net = make(return_patterns=["blocks[0]"])

        def forward(self, x):
            one, two = self.net(x), self.net(x * 2)
            return one["logits"] + two["logits"] + 0 * (one["blocks[0]"].sum() + two["blocks[0]"].sum())

    pair = Pair()
    pair.eval()
    pair.update_res(["net.blocks[0]"])
    x = images()
    out = pair(x)
    alone = pair.net(x), pair.net(x * 2)
    np.testing.assert_allclose(out["logits"], alone[0]["logits"] + alone[1]["logits"], rtol=1e-6)
    assert (out["net.blocks[0]"] == alone[1]["blocks[0]"]).all()
    assert not (alone[0]["blocks[0]"] == alone[1]["blocks[0]"]).all()


def test_threads_do_not_mix_features():
    net = make(return_patterns=["blocks[1]"])
    net.eval()
    inputs = [images(seed=seed) for seed in range(4)]
    wanted = [net(x)["blocks[1]"].numpy() for x in inputs]
    wrong = []

    def work(index):
        for _ in range(5):
            with paddle.no_grad():
                if (net(inputs[index])["blocks[1]"].numpy() != wanted[index]).any():
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert states_empty(net)


def test_forward_may_call_that_of_the_base_class():
    net, x = Louder(), paddle.ones([2, 4])
    plain = net(x)
    net.update_res(["first"])
    out = net(x)
    np.testing.assert_array_equal(out["logits"].numpy(), plain.numpy())
    assert out["first"].shape == [2, 4]


def test_copy_is_independent():
    net = make(return_patterns=["blocks[0]"])
    twin = copy.deepcopy(net)
    twin.update_res(["avg_pool"])
    assert list(net(images())) == ["logits", "blocks[0]"]
    assert list(twin(images())) == ["logits", "avg_pool"]
    assert states_empty(net)


@pytest.mark.parametrize(
    ("name", "options", "full_graph"),
    [
        ("resnet8", {"return_patterns": ["blocks[1].add", "avg_pool"]}, False),
        pytest.param(
            "resnet8", {"return_patterns": ["blocks[1].add", "avg_pool"]}, True, marks=pytest.mark.slow
        ),
        ("resnet8", {"freeze_befor": "blocks[0]", "return_stages": True}, True),
        pytest.param(
            "PPLCNet_x0_25", {"stop_after": "blocks4", "return_stages": [0, 1]}, False, marks=pytest.mark.slow
        ),
        ("PPLCNet_x0_25", {"stop_after": "blocks4", "return_stages": [0, 1]}, True),
    ],
)
def test_static_graph_gives_the_same(name, options, full_graph):
    eager, static = make(name, **options), make(name, **options)
    static = paddle.jit.to_static(static, full_graph=full_graph)
    for seed in range(3):
        x = images(name, seed=seed)
        a, b = eager(x), static(x)
        assert list(a) == list(b)
        for key in a:
            np.testing.assert_allclose(a[key].numpy(), b[key].numpy(), rtol=1e-5, atol=1e-6)
    eager(x)["logits"].sum().backward()
    static(x)["logits"].sum().backward()
    for one, two in zip(eager.parameters(), static.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            np.testing.assert_allclose(one.grad.numpy(), two.grad.numpy(), rtol=1e-4, atol=1e-5)
    assert states_empty(static)


def test_export_keeps_taps_and_cut(tmp_path):
    net = make(return_patterns=["blocks[0]"], stop_after="blocks[1]")
    net.eval()
    spec = [paddle.static.InputSpec([None, 3, 16, 16], "float32", "x")]
    paddle.jit.save(net, str(tmp_path / "net"), input_spec=spec)
    out = paddle.jit.load(str(tmp_path / "net"))(images())
    wanted = net(images())
    for key, value in zip(sorted(wanted), out, strict=True):  # Paddle sorts the keys of an exported map
        np.testing.assert_allclose(value.numpy(), wanted[key].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_are_defined_in_the_order_they_run(name):
    net = make(name)
    net.eval()
    order = []
    for path, layer in leaves(net):
        layer.register_forward_post_hook(lambda _l, _i, _o, p=path: order.append(p))
    net(images(name))
    assert order == [path for path, _ in leaves(net)]


def test_list_models_matches_shell_patterns():
    assert {"ResNet18", "ResNet18_vd", "PPLCNet_x2_5", "resnet20", "wrn_40_2"} <= set(list_models())
    assert ppcls.list_models("resnet8*") == ["resnet8", "resnet8x4"]
    assert "DistillationModel" not in list_models()
