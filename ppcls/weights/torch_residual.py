"""Where each layer of other libraries' residual networks goes in ours, see `ppcls.weights.torch_rules`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import accumulate
from typing import Any

# A pattern for the path of a layer (or of a parameter that is neither weight nor bias), and a function that
# makes our path from the groups of the pattern; groups of digits are passed as numbers.
Rule = tuple[str, Callable[..., str]]

PARTS = {"conv": "_conv", "norm": "_batch_norm", "bn": "_batch_norm"}


def stage_starts(names: list[str], pattern: str) -> list[int]:
    """Return the number of blocks before each stage; `pattern` has the groups stage and block."""
    found = {tuple(map(int, match.groups())) for match in (re.match(pattern, n) for n in names) if match}
    stages = sorted({stage for stage, _ in found})
    return [0, *accumulate(sum(s == stage for s, _ in found) for stage in stages)]


def resnet(names: list[str]) -> list[Rule]:
    """Return the rules of ResNet and its variant vd, from the names in a file."""
    starts = stage_starts(names, r"layer(\d)\.(\d+)\.")

    def block(stage: int, index: int) -> str:
        return f"blocks.{starts[stage - 1] + index}"

    stem: list[Rule] = [
        (r"conv1", lambda: "stem.0.conv"),
        (r"bn1", lambda: "stem.0.bn"),
    ]
    if "conv1.0.weight" in names:  # three convolutions, as in timm's resnet50d
        stem = [
            (r"conv1\.([036])", lambda i: f"stem.{i // 3}.conv"),
            (r"conv1\.([14])", lambda i: f"stem.{i // 3}.bn"),
            (r"bn1", lambda: "stem.2.bn"),
        ]
    pooled = any(re.fullmatch(r"layer2\.0\.downsample\.2\.weight", n) for n in names)
    return [
        *stem,
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", lambda s, i, p, n: f"{block(s, i)}.conv{n - 1}.{p}"),
        (
            r"layer(\d)\.(\d+)\.downsample\.(\d)",
            lambda s, i, n: f"{block(s, i)}.short.{'bn' if n == (2 if pooled else 1) else 'conv'}",
        ),
        (r"fc", lambda: "fc"),
    ]


def cifar_resnet(names: list[str]) -> list[Rule]:
    """Return the rules of the networks for CIFAR."""
    # RepDistiller and mdistiller call the classifier fc, networks with short cuts of option A often linear.
    return [*(rule for rule in resnet(names) if rule[0] not in _STEM), *_CIFAR]


_STEM = ("conv1", "bn1", "fc")

_CIFAR: list[Rule] = [
    (r"conv1", lambda: "stem.conv"),
    (r"bn1", lambda: "stem.bn"),
    (r"fc|linear", lambda: "fc"),
]


def cifar_shortcut(names: Collection[str]) -> Mapping[str, Any]:
    """Tell the two kinds of short cuts apart: option A has no parameters."""
    return {"shortcut": "B" if any(".downsample." in name for name in names) else "A"}


def wide_resnet(names: list[str]) -> list[Rule]:
    """Return the rules of wide residual networks for CIFAR."""
    starts = stage_starts(names, r"block(\d)\.layer\.(\d+)\.")

    def block(stage: int, index: int) -> str:
        return f"blocks.{starts[stage - 1] + index}"

    return [
        (r"conv1", lambda: "stem"),
        (r"bn1", lambda: "bn"),
        (r"fc", lambda: "fc"),
        (r"block(\d)\.layer\.(\d+)\.(conv|bn)([12])", lambda s, i, p, n: f"{block(s, i)}.{p}{n - 1}"),
        (r"block(\d)\.layer\.(\d+)\.convShortcut", lambda s, i: f"{block(s, i)}.short"),
    ]


def resnext(names: list[str]) -> list[Rule]:
    """Return the rules of ResNeXt and SE_ResNeXt."""
    old = {"conv": "_conv", "bn": "_batch_norm"}
    deep = "conv1.0.weight" in names  # three convolutions and a pooled short cut, as in timm's resnext50d
    return [
        (r"(conv|bn)1", lambda p: f"{'conv1_3' if deep else 'conv'}.{old[p]}"),
        (r"conv1\.([036])", lambda i: f"conv1_{i // 3 + 1}._conv"),
        (r"conv1\.([14])", lambda i: f"conv1_{i // 3 + 1}._batch_norm"),
        (
            r"layer(\d)\.(\d+)\.(conv|bn)(\d)",
            lambda s, i, p, n: f"bb_{s - 1}_{i}.conv{n - 1}.{old[p]}",
        ),
        (
            r"layer(\d)\.(\d+)\.downsample\.(\d)",
            lambda s, i, n: f"bb_{s - 1}_{i}.short.{('_conv', '_batch_norm')[n - deep]}",
        ),
        (
            r"layer(\d)\.(\d+)\.se\.fc([12])",
            lambda s, i, n: f"bb_{s - 1}_{i}.scale.{('squeeze', 'excitation')[n - 1]}",
        ),
        (r"fc", lambda: "out"),
    ]


def resnest(names: list[str]) -> list[Rule]:
    """Return the rules of ResNeSt."""
    kinds = ("_conv", "_batch_norm")
    attention = {
        "conv": "conv1._conv",
        "bn0": "conv1._batch_norm",
        "fc1": "conv2._conv",
        "bn1": "conv2._batch_norm",
        "fc2": "conv3",
    }

    def block(stage: int, index: int) -> str:
        return f"layer{stage}.layer{stage}_bottleneck_{index}"

    return [
        (r"conv1\.([0136])", lambda n: f"stem.conv{n // 3 + 1}.{kinds[n % 3]}"),
        (r"conv1\.4", lambda: "stem.conv2._batch_norm"),
        (r"bn1", lambda: "stem.conv3._batch_norm"),
        (r"layer(\d)\.(\d+)\.(conv|bn)([13])", lambda s, i, p, n: f"{block(s, i)}.conv{n}.{PARTS[p]}"),
        (
            r"layer(\d)\.(\d+)\.conv2\.(conv|bn0|fc1|bn1|fc2)",
            lambda s, i, p: f"{block(s, i)}.conv2.{attention[p]}",
        ),
        (
            r"layer(\d)\.(\d+)\.downsample\.([12])",
            lambda s, i, n: f"{block(s, i)}.{('conv4', '_batch_norm')[n - 1]}",
        ),
        (r"fc", lambda: "out"),
    ]


def without_bias_of_fc1(params: Mapping[str, Any]) -> dict[str, Any]:
    """Move the bias of the attention's first convolution, which ours has not, into the BatchNorm after it.

    BatchNorm subtracts a mean; a bias before it is the same as a mean that is smaller by it.
    """
    moved = dict(params)
    for key in params:
        mean = key.removesuffix("fc1.bias") + "bn1.running_mean"
        if key.endswith(".conv2.fc1.bias") and mean in params:
            moved[mean] = params[mean] - moved.pop(key)
    return moved


def resnext_wsl(names: list[str]) -> list[Rule]:
    """Return the rules of ResNeXt101_wsl."""
    return [
        (r"(conv|bn)1", lambda p: f"_conv_stem._{p}"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", lambda s, i, p, n: f"_conv{s}_{i}._conv{n - 1}._{p}"),
        (
            r"layer(\d)\.(\d+)\.downsample\.([01])",
            lambda s, i, n: f"_conv{s}_{i}._short._conv.{('_conv', '_bn')[n]}",
        ),
        (r"fc", lambda: "_out"),
    ]


def regnet(names: list[str]) -> list[Rule]:
    """Return the rules of RegNet."""
    kinds = ("_conv", "_batch_norm")
    letter = {"a": 0, "b": 1, "c": 2}
    gate = ("squeeze", "excitation")
    return [
        # timm
        (r"stem\.(conv|bn)", lambda p: f"conv.{PARTS[p]}"),
        (r"s(\d)\.b(\d+)\.conv([123])\.(conv|bn)", lambda s, i, n, p: f"s{s}_b{i}.conv{n - 1}.{PARTS[p]}"),
        (r"s(\d)\.b(\d+)\.downsample\.(conv|bn)", lambda s, i, p: f"s{s}_b{i}.short.{PARTS[p]}"),
        (r"s(\d)\.b(\d+)\.se\.fc([12])", lambda s, i, n: f"s{s}_b{i}.scale.{gate[n - 1]}"),
        (r"head\.fc", lambda: "out"),
        # torchvision
        (r"stem\.([01])", lambda n: f"conv.{kinds[n]}"),
        (
            r"trunk_output\.block(\d)\.block\d-(\d+)\.f\.([abc])\.([01])",
            lambda s, i, part, n: f"s{s}_b{i + 1}.conv{letter[part]}.{kinds[n]}",
        ),
        (
            r"trunk_output\.block(\d)\.block\d-(\d+)\.f\.se\.fc([12])",
            lambda s, i, n: f"s{s}_b{i + 1}.scale.{gate[n - 1]}",
        ),
        (
            r"trunk_output\.block(\d)\.block\d-(\d+)\.proj\.([01])",
            lambda s, i, n: f"s{s}_b{i + 1}.short.{kinds[n]}",
        ),
        (r"fc", lambda: "out"),
    ]
