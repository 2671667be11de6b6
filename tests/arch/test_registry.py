"""What every registered network can do: official names and logits, features, training, cutting, export."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from arch_networks import KEYS, LOGITS, SMALLEST, filled, images, side, size
from paddle.nn.functional import cross_entropy
from quick_weights import use_stored_numbers
from support import slow_unless

import ppcls
from ppcls.arch.theseus import dotted
from ppcls.engine.export import export_network

pytestmark = pytest.mark.usefixtures("quick_weights")

CLASSES = 5


@pytest.mark.parametrize("name", slow_unless(lambda n: n in SMALLEST, KEYS))
def test_parameters_have_the_names_and_shapes_of_the_official_weights(name):
    with paddle.LazyGuard():
        net = ppcls.create_model(name)
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == KEYS[name]


@pytest.mark.parametrize("name", slow_unless(lambda n: size(n) < 3e6, LOGITS.files))
def test_logits_agree_with_the_recorded_ones(name):
    x = np.random.default_rng(7).standard_normal((2, 3, 224, 224)).astype("float32")
    with paddle.no_grad():
        y = filled(name)(paddle.to_tensor(x))
    y = paddle.stack(y) if isinstance(y, (list, tuple)) else y
    assert np.abs(y.numpy()[..., :64] - LOGITS[name]).max() < 1e-3 * np.abs(LOGITS[name]).max()


# Larger networks than these take minutes and many GB; their smaller siblings are of the same code.
NETWORKS = [name for name in ppcls.list_models() if name in SMALLEST or size(name) < 60e6]


@pytest.fixture(scope="module", params=slow_unless(lambda n: n in SMALLEST and size(n) < 12e6, NETWORKS))
def network(request):
    """Name and network, in eval mode, its stages tapped; whoever changes it takes a copy or comes last."""
    paddle.seed(0)
    with pytest.MonkeyPatch.context() as patch:
        use_stored_numbers(patch)
        net = ppcls.create_model(request.param, class_num=CLASSES, return_stages=True)
    net.eval()
    return request.param, net


def heads(logits):
    """A network with several heads returns their logits as a list while it trains."""
    return list(logits) if isinstance(logits, (list, tuple)) else [logits]


def leaves(net):
    return [(path, layer) for path, layer in net.named_sublayers() if not layer.sublayers()]


def test_stages_are_features_of_the_same_forward(network):
    name, net = network
    assert len(net.stages_pattern) >= 3
    x = images(name)
    order = []
    handles = [
        layer.register_forward_post_hook(lambda _l, _i, _o, p=path: order.append(p))
        for path, layer in leaves(net)
    ]
    with paddle.no_grad():
        out = net(x)
    for handle in handles:
        handle.remove()
    assert list(out) == ["logits", *net.stages_pattern]
    assert out["logits"].shape == [2, CLASSES]
    for key in net.stages_pattern:
        assert out[key].shape[0] == 2
        assert out[key].ndim in (3, 4)  # maps or tokens
        assert np.isfinite(out[key].numpy()).all()
    # Cutting and freezing go by the order of definition, so it has to be the order of running.
    assert order == [path for path, _ in leaves(net) if path in order]
    twin = copy.deepcopy(net)
    twin.update_res([])
    with paddle.no_grad():
        assert (twin(x) == out["logits"]).all()
        first, second = net.stages_pattern[:2]
        twin.update_res([first])
        twin.stop_after(second)
        cut = twin(x)
    assert (cut["logits"] == out[second]).all()
    assert (cut[first] == out[first]).all()
    assert len(twin.state_dict()) < len(net.state_dict())


def test_freeze_befor_a_stage(network):
    name, net = network
    net = copy.deepcopy(net)
    target = net.stages_pattern[1]
    net.freeze_befor(target)
    order = []
    for path, layer in leaves(net):
        layer.register_forward_post_hook(lambda _l, _i, _o, p=path: order.append(p))
    inside = dotted(target)
    with paddle.no_grad():
        net(images(name, count=1))
    last = max(i for i, path in enumerate(order) if path == inside or path.startswith(f"{inside}."))
    early = set(order[: last + 1])
    layers = dict(leaves(net))
    for path in early:
        assert all(p.stop_gradient for p in layers[path].parameters())
    trained = {path for path in order if any(not p.stop_gradient for p in layers[path].parameters())}
    assert trained == {path for path in order if layers[path].parameters()} - early


def test_training_reaches_every_parameter(network):
    name, net = network  # not a copy, which takes longer than training: this is the last test of a network
    net.train()
    for layer in net.sublayers():
        if isinstance(layer, paddle.nn.Dropout):  # it may drop a branch for both images
            layer.eval()
    free = {key: p for key, p in net.named_parameters() if not p.stop_gradient}
    count = 4 if side(name) <= 64 else 2
    out = net(images(name, count=count))
    label = paddle.arange(count)
    loss = sum(cross_entropy(y, label) for y in heads(out["logits"]))
    assert np.isfinite(float(loss))
    loss.backward()
    silent = [key for key, p in free.items() if p.grad is None or not p.grad.abs().max() > 0]
    assert len(silent) <= 0.02 * len(free), silent  # a ReLU may be silent on a few images
    assert [key for key in silent if free[key].grad is None] == []
    key, last = list(free.items())[-1]
    before = last.numpy().copy()
    paddle.optimizer.SGD(0.1, parameters=list(free.values())).step()
    assert not (last.numpy() == before).all(), key


def tame(net, x):
    """Divide the classifier so that the logits are of size 1: large ones are all alike after softmax."""
    net.eval()
    with paddle.no_grad():
        most = net(x)["logits"].abs().max()
        for layer in net.sublayers():
            if isinstance(layer, paddle.nn.Linear) and layer.weight.shape[1] == CLASSES:
                for value in layer.parameters():
                    value.set_value(value / most)
        assert 0.5 < float(net(x)["logits"].abs().max()) < 2


@pytest.mark.slow
@pytest.mark.timeout(900)  # HRNet has thousands of operators
@pytest.mark.parametrize("name", NETWORKS)
def test_exports_in_both_formats(name, tmp_path):
    paddle.seed(0)
    net = ppcls.create_model(name, class_num=CLASSES, return_stages=0)
    # Faint: with statistics of mean 0 and variance 1 the maps of an untrained network with squeeze-and-
    # excitation grow until its gates are steps, and a rounding of its input moves the logits by 0.04.
    x = images(name) * 0.01
    tame(net, x)
    report = export_network(net, tmp_path, (3, side(name), side(name)), formats="both", sample=x.numpy())
    assert {"inference.json", "inference.pdmodel", "inference.pdiparams"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert report
