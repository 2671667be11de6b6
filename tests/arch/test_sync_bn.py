"""Networks whose BatchNorm is synchronised; the kernel itself needs GPUs, the exchange of layers does not."""

import numpy as np
import paddle
import pytest
from paddle import nn
from support import distilled

import ppcls
from ppcls.arch import build_model
from ppcls.arch.sync_bn import synchronise_batch_norm
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import build
from ppcls.errors import ConfigError


def norms(network, kind):
    return [layer for layer in network.sublayers() if isinstance(layer, kind)]


def test_what_trains_is_replaced_and_keeps_names_values_and_taps(recipe, monkeypatch):
    def forward(self, x):  # Paddle's own has no CPU kernel
        state = (self._mean, self._variance, self.weight, self.bias, self.training)
        return nn.functional.batch_norm(x, *state, self._momentum, self._epsilon)

    monkeypatch.setattr(nn.SyncBatchNorm, "forward", forward)
    arch = distilled(recipe, DistillationKLDivLoss={})["Arch"]
    model = build_model(arch)
    student, teacher = model.network("Student"), model.network("Teacher")
    tapped = next(name for name, layer in student.named_sublayers() if isinstance(layer, nn.BatchNorm2D))
    student.update_res([tapped])
    x = paddle.randn([2, 3, 32, 32])
    model.eval()
    names, before = list(model.state_dict()), student(x)
    held = {name: id(p) for name, p in model.state_dict().items()}
    count = len(norms(student, nn.BatchNorm2D))
    assert synchronise_batch_norm(model) == count > 3
    assert not norms(student, nn.BatchNorm2D)
    assert not norms(teacher, nn.SyncBatchNorm)
    assert norms(teacher, nn.BatchNorm2D)
    assert list(model.state_dict()) == names
    assert {
        name: id(p) for name, p in model.state_dict().items()
    } == held  # the optimizer's and EMA's tensors
    assert not any(layer.training for layer in student.sublayers())
    after = student(x)
    assert list(after) == list(before) == ["logits", tapped]
    for key, value in before.items():
        np.testing.assert_array_equal(after[key].numpy(), value.numpy())
    assert synchronise_batch_norm(model) == 0


def test_a_part_that_is_frozen_stays():
    network = ppcls.create_model("ResNet18", class_num=4, freeze_befor="blocks[1]")
    frozen = [layer for layer in norms(network, nn.BatchNorm2D) if layer.weight.stop_gradient]
    assert frozen
    synchronise_batch_norm(network)
    assert norms(network, nn.BatchNorm2D) == frozen
    assert norms(network, nn.SyncBatchNorm)


@pytest.mark.parametrize("section", ["Arch", "Global"])
def test_the_setting_of_paddleclas(recipe, write_recipe, section, capsys):
    recipe[section]["use_sync_bn"] = True
    recipe["Global"] |= {"epochs": 1, "eval_during_train": False}
    path = write_recipe(recipe)
    config = load_config(path)
    assert config["Global"]["use_sync_bn"] is True
    assert "use_sync_bn" not in config["Arch"]
    assert main(["train", "-c", str(path)]) == 0  # one process: nothing to synchronise, and it says so
    assert "use_sync_bn: one process" in capsys.readouterr().out


def test_several_processes_on_the_cpu_are_told_before_training(monkeypatch):
    monkeypatch.setattr(build, "world_size", lambda: 2)
    layer = nn.BatchNorm2D(3)
    with pytest.raises(ConfigError, match=r"use_sync_bn.*no CPU kernel.*Arch.use_sync_bn=false"):
        build.synchronise([layer], True)
    build.synchronise([layer], False)


@pytest.mark.gpu
def test_a_synchronised_network_trains_on_a_gpu():
    """One process is enough for the kernel: its statistics are those of BatchNorm."""
    paddle.seed(0)
    one = ppcls.create_model("resnet8", class_num=4)
    other = ppcls.create_model("resnet8", class_num=4)
    other.set_state_dict(one.state_dict())
    synchronise_batch_norm(other)
    x = paddle.randn([4, 3, 32, 32])
    for network in (one, other):
        network.train()
        network(x).sum().backward()
    np.testing.assert_allclose(one(x).numpy(), other(x).numpy(), atol=1e-4)
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-4, err_msg=name)
