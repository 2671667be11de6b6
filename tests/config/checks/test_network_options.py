"""Options of PaddleClas's networks: supported, accepted at values that change nothing, or refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import ppcls
from ppcls.config import load_config
from ppcls.config.binding import parameters_of
from ppcls.config.checks.paddleclas import OPTIONS, without_foreign
from ppcls.config.mistakes import Findings
from ppcls.errors import ConfigError
from ppcls.registry import BACKBONES

Write = Callable[..., Path]

# Options of its own that a network follows, as recipes of PaddleClas give them.
SUPPORTED: list[tuple[str, dict[str, Any]]] = [
    ("ConvNeXt_tiny", {"head_init_scale": 1.0, "drop_path_rate": 0.1, "layer_scale_init_value": 1e-6}),
    ("DeiT_tiny_patch16_224", {"drop_rate": 0.0, "drop_path_rate": 0.1}),
    ("DeiT_tiny_distilled_patch16_224", {"drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.1}),
    ("MobileNetV4_conv_small", {"drop_rate": 0.2, "drop_path_rate": 0.1}),
    ("MobileNetV3_small_x0_35", {"dropout_prob": None}),
    ("PPLCNet_x0_25", {"stride_list": [2, [2, 1], [2, 1], [2, 1], [2, 1]], "lr_mult_list": [0.0] * 5 + [1]}),
    ("ResNet18", {"stride_list": [2, [2, 1], [2, 1], [2, 1], [2, 1]], "lr_mult_list": [0.1] * 5}),
    ("PPHGNet_tiny", {"use_last_conv": False}),
    ("PPHGNetV2_B0", {"class_expand": 512, "lr_mult_list": [0.0, 0.2, 0.4, 0.8, 1.0]}),
    ("VGG11", {"stop_grad_layers": 2}),
]

HARMLESS: list[tuple[str, dict[str, Any]]] = [
    ("SwinTransformer_tiny_patch4_window7_224", {"use_fused_attn": False, "use_fused_linear": False}),
    ("SwinTransformer_tiny_patch4_window7_224", {"ape": False, "img_size": 224, "mlp_ratio": 4}),
    ("ResNet18", {"data_format": "NCHW", "layer_type": "ConvBNLayer", "use_first_short_conv": True}),
    ("MobileNetV4_conv_small", {"use_fused_attn": False, "layer_scale_init_value": 0.0, "act": "relu"}),
    ("PPLCNet_x0_25", {"act": "hardswish", "use_ml_decoder": False}),
    ("PPLCNetV2_small", {"act": "relu"}),
    ("DenseNet121", {"dropout": 0}),
    ("EfficientNetB0", {"padding_type": "SAME", "override_params": None, "use_se": True}),
]

REFUSED: list[tuple[str, str, Any, str]] = [
    ("ResNet18", "layer_type", "DiverseBranchBlock", "only ConvBNLayer is accepted"),
    ("ResNet18", "use_first_short_conv", False, "short cut"),
    ("ResNet18", "data_format", "NHWC", "only NCHW"),
    ("ResNet18", "use_ml_decoder", True, "multi-label"),
    ("DenseNet121", "dropout", 0.2, "is called dropout_prob here"),
    ("PPLCNetV2_small", "act", "hardswish", "activation"),
    ("DeiT_tiny_patch16_224", "img_size", 384, "only 224 is accepted"),
    ("SwinTransformer_tiny_patch4_window7_224", "ape", True, "not built here"),
    ("resnet8", "drop_rate", 0.0, "has no option 'drop_rate'"),
]


def write_arch(folder: Path, node: dict[str, Any]) -> Path:
    file = folder / "recipe.yaml"
    infer = {"transforms": [{"DecodeImage": {"to_rgb": True}}, {"ToCHWImage": None}]}
    file.write_text(json.dumps({"Arch": node, "Infer": infer}), encoding="utf-8")
    return file


def judged(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], Findings]:
    findings = Findings()
    return without_foreign(
        "network", name, options, parameters_of(BACKBONES[name]), "Arch", findings
    ), findings


@pytest.mark.parametrize(("name", "options"), SUPPORTED)
def test_networks_have_the_options_that_change_something(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    node = {"name": name, "class_num": 10, **options}
    config = load_config(write_arch(tmp_path, node), mode="export")
    assert {key: config["Arch"][key] for key in options} == options
    assert options.keys() <= parameters_of(BACKBONES[name]).keys()


@pytest.mark.parametrize(("name", "options"), HARMLESS)
def test_values_that_change_nothing_are_accepted_without_a_word(name: str, options: dict[str, Any]) -> None:
    kept, findings = judged(name, options)
    assert kept == {}
    assert not findings.mistakes
    assert not findings.warnings


@pytest.mark.parametrize(("name", "option", "value", "words"), REFUSED)
def test_other_values_are_refused_by_the_check_and_by_the_builder(
    name: str, option: str, value: Any, words: str, tmp_path: Path
) -> None:
    node = {"name": name, "class_num": 10, option: value}
    with pytest.raises(ConfigError) as caught:
        load_config(write_arch(tmp_path, node), mode="export")
    assert words in str(caught.value)
    assert str(caught.value).startswith("1 mistake")
    with pytest.raises(ConfigError) as caught:
        ppcls.create_model(name, **{option: value})
    assert words in str(caught.value)
    assert option in str(caught.value)


def test_fused_kernels_are_left_out_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ppcls"):
        ppcls.create_model("DeiT_tiny_patch16_224", class_num=2, use_fused_attn=True, use_fused_linear=False)
    assert caplog.text.count("has no effect: the same is computed") == 1
    assert "DeiT_tiny_patch16_224.use_fused_attn" in caplog.text


def test_weights_asked_for_of_a_whole_distillation_model_are_named(
    write_recipe: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ppcls"):
        config = load_config(write_recipe(("set", "Arch.use_ssld", True), ("set", "Arch.is_rec", False)))
    assert "Arch.use_ssld: has no effect here; write use_ssld in the network" in caplog.text
    assert not {"use_ssld", "is_rec"} & config["Arch"].keys()
    with pytest.raises(ConfigError, match="has no option 'pretrained'"):
        load_config(write_recipe(("set", "Arch.pretrained", True)))
    with pytest.raises(ConfigError, match=r"Arch\.is_rec: retrieval"):
        load_config(write_recipe(("set", "Arch.is_rec", True)))


def test_softmax_of_the_export_may_be_asked_for_in_arch(write_recipe: Write) -> None:
    config = load_config(write_recipe(("set", "Arch.infer_add_softmax", False)))
    assert config["Global"]["infer_add_softmax"] is False
    assert "infer_add_softmax" not in config["Arch"]
    assert load_config(write_recipe())["Global"]["infer_add_softmax"] is True


@pytest.mark.parametrize(
    ("used", "value", "unused", "other"),
    [
        ("Arch.infer_add_softmax", False, "Global.infer_add_softmax", True),
        ("Arch.use_sync_bn", False, "Global.use_sync_bn", True),
        ("Global.infer_model_name", "Student", "Arch.infer_model_name", "Teacher"),
    ],
)
def test_of_one_setting_in_two_places_the_value_without_effect_is_named(
    used: str, value: Any, unused: str, other: Any, write_recipe: Write, caplog: pytest.LogCaptureFixture
) -> None:
    key = used.partition(".")[2]
    with caplog.at_level(logging.WARNING, "ppcls"):
        load_config(write_recipe(("set", used, value), ("set", unused, value)))
        assert unused not in caplog.text
        config = load_config(write_recipe(("set", used, value)), [f"{unused}={other}"])
    assert caplog.text.count(f"{unused}: ") == 1
    assert f"has no effect, because {used} is" in caplog.text
    place = "Arch" if key == "infer_model_name" else "Global"
    assert config[place][key] == value


@pytest.mark.parametrize("strides", [[2, "two", 2, 2, 2], [2, [2, 1.5], 2, 2, 2], 2])
def test_strides_of_another_type_are_named_where_they_stand(strides: Any, tmp_path: Path) -> None:
    node = {"name": "PPLCNet_x0_25", "class_num": 10, "stride_list": strides}
    with pytest.raises(ConfigError, match=r"Arch\.stride_list") as caught:
        load_config(write_arch(tmp_path, node), mode="export")
    assert "a list of whole numbers or a list of whole numbers" not in str(caught.value)


def test_an_option_in_the_table_is_not_one_that_the_network_has() -> None:
    for (kind, pattern, option), foreign in OPTIONS.items():
        if kind == "network":
            names = [name for name in BACKBONES if fnmatchcase(name, pattern)]
            assert names, pattern
            assert [name for name in names if option not in parameters_of(BACKBONES[name])], (pattern, option)
            assert foreign.reason or foreign.notice or foreign.harmless
