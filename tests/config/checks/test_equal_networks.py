"""Equal networks are built once to be checked, and every recipe is judged as if each were built anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppcls.arch.backbone.cifar_resnet import CifarResNet
from ppcls.config import load_config
from ppcls.config.checks import networks
from ppcls.errors import ConfigError
from ppcls.registry import BACKBONES

Write = Callable[..., Path]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the networks that checks build."""
    names: list[str] = []
    build = networks.network_without_weights

    def noted(title: str, *rest: Any) -> Any:
        names.append(title)
        return build(title, *rest)

    monkeypatch.setattr(networks, "network_without_weights", noted)
    monkeypatch.setattr(networks, "_LOOKED_INSIDE", {})
    return names


def test_equal_networks_are_built_once_and_known_as_well(write_recipe: Write, built: list[str]) -> None:
    path = write_recipe()
    first = load_config(path)
    assert load_config(path) == first
    assert built == ["resnet14", "resnet8"]
    weights = ["Arch.models.0.Teacher.pretrained=other.pdparams", "Arch.models.0.Teacher.frozen_engine=eager"]
    load_config(path, weights)  # neither is looked at
    assert built == ["resnet14", "resnet8"]
    load_config(path, ["Arch.models.0.Teacher.width=0.5"])
    assert built == ["resnet14", "resnet8", "resnet14"]


def test_mistakes_are_found_again(write_recipe: Write, built: list[str]) -> None:
    path = write_recipe()
    load_config(path)
    messages = []
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"Student.return_patterns.0: .*blocks\[99\]") as error:
            load_config(path, ["Arch.models.1.Student.return_patterns=['blocks[99]']"])
        messages.append(str(error.value))
        # What depends on the outputs of a network is judged by those of a network that is known already.
        with pytest.raises(ConfigError, match="stop_after"):
            load_config(path, ["Arch.models.1.Student.stop_after=blocks[2]"])
    assert messages[0] == messages[1]
    assert built == ["resnet14", "resnet8", "resnet8", "resnet8", "resnet8"]


def test_a_network_of_a_plug_in_is_built_every_time(write_recipe: Write, built: list[str]) -> None:
    class NetworkOfMine(CifarResNet):
        def __init__(self, *, class_num: int = 10) -> None:
            super().__init__(depth=8, class_num=class_num)

    BACKBONES.register()(NetworkOfMine)
    path = write_recipe(("set", "Arch.models.1.Student.name", "NetworkOfMine"))
    for _ in range(2):
        load_config(path)
    assert built == ["resnet14", "NetworkOfMine", "NetworkOfMine"]
