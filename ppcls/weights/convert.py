"""From PyTorch's names and layouts to ours, for the networks that are the same function in both.

A family's rules say where each layer of timm's and torchvision's state dicts goes. They are strict: every
tensor of the file must have a place, and every parameter of the network must be filled exactly once. Shapes
are compared when the result is loaded (`ppcls.weights.load_into`).
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.errors import WeightsError

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger("ppcls.weights")

# A pattern for a layer's path (or for a parameter that has another name than weight and bias) and what makes
# our path of its groups; groups of digits come as numbers.
Rule = tuple[str, Callable[..., str]]

_LEAVES = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}
# Counters and constants that follow from the network's structure.
_LEFT_OUT = re.compile(r"(.*\.)?(num_batches_tracked|relative_position_index|attn_mask)")
_PARTS = {"conv": "_conv", "norm": "_batch_norm"}


@dataclass(frozen=True)
class Family:
    """How a family of networks is converted.

    Attributes:
        title: name of the family, for messages.
        networks: pattern for our names of the networks.
        rules: makes the rules from the names in a file.
        identity: pattern for our layers that PyTorch's network has not; they become the identity.
        options: options with which our network is the same function; it has attributes of these names.
    """

    title: str
    networks: str
    rules: Callable[[list[str]], list[Rule]]
    identity: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def convert(params: Mapping[str, np.ndarray], net: nn.Layer, name: str, where: str) -> dict[str, np.ndarray]:
    """Rename and transpose a PyTorch state dict for one of our networks.

    Args:
        params: tensors by their names in PyTorch, as `ppcls.weights.read_params` gives them.
        net: the network.
        name: its registered name; it says which rules hold.
        where: what the tensors come from, for messages.

    Returns:
        tensors by our names, one for each name in ``net.state_dict()``. A classifier of another class count
        comes as it is.

    Raises:
        WeightsError: if there are no rules for the network, if it was built with other options than
            `torch_options`, or if a tensor has no place in it or a parameter of it would get none or two.
    """
    family = _family(name)
    for option, value in family.options.items():
        if getattr(net, option) != value:
            raise WeightsError(f"{where}: PyTorch's network is {name} with the option {option}: {value}")
    given = {key: value for key, value in params.items() if not _LEFT_OUT.fullmatch(key)}
    rules = family.rules(list(given))
    places = {key: _place(key, rules) for key in given}
    layers = {path: layer for path, layer in net.named_sublayers()}
    own = {key: tensor for key, tensor in net.state_dict().items() if not _LEFT_OUT.fullmatch(key)}
    made = {
        key: _identity(layers[path], leaf)
        for key in own
        for path, _, leaf in [key.rpartition(".")]
        if family.identity and re.fullmatch(family.identity, path) and key not in places.values()
    }
    counts = Counter(places.values())
    report = {
        "no place in the network": [key for key, place in places.items() if place not in own],
        "nothing in the file for": [key for key in own if key not in counts and key not in made],
        "more than one tensor for": [key for key in own if counts[key] > 1],
    }
    if any(report.values()):
        raise WeightsError(_explain(report, name, where, params))
    found = {
        place: _laid_out(given[key], layers.get(place.rpartition(".")[0]))
        for key, place in places.items()
        if place is not None
    }
    kept = {
        key: tensor.numpy()
        for key, tensor in net.state_dict().items()
        if _LEFT_OUT.fullmatch(key) and "num_batches_tracked" not in key
    }
    if made:
        layers_made = sorted({key.rpartition(".")[0] for key in made})
        logger.info(
            "%s has no %s: made the identity, exact while the network is in eval mode",
            where,
            ", ".join(layers_made),
        )
    return {**found, **made, **kept}


def torch_options(name: str) -> dict[str, Any]:
    """Return the options with which network `name` is the same function as PyTorch's.

    Raises:
        WeightsError: if there are no rules for it.
    """
    return dict(_family(name).options)


def _family(name: str) -> Family:
    for family in _FAMILIES:
        if re.fullmatch(family.networks, name):
            return family
    for pattern, reason in _OTHER_FUNCTIONS.items():
        if re.fullmatch(pattern, name):
            raise WeightsError(f"PyTorch weights do not fit {name}: {reason}")
    known = [family.title for family in _FAMILIES]
    raise WeightsError(
        f"there are no rules that turn PyTorch weights into those of {name}; there are for the families "
        f"{', '.join(known)}"
    )


def _place(key: str, rules: list[Rule]) -> str | None:
    """Return our name for a tensor, None if no rule knows it."""
    path, _, leaf = key.rpartition(".")
    if leaf not in _LEAVES or not path:
        path, leaf = key, ""
    for pattern, target in rules:
        match = re.fullmatch(pattern, path)
        if match:
            groups = [int(g) if g and g.isdigit() else g for g in match.groups()]
            return target(*groups) + (f".{_LEAVES[leaf]}" if leaf else "")
    return None


def _laid_out(value: np.ndarray, layer: nn.Layer | None) -> np.ndarray:
    """Bring a tensor into Paddle's layout: a Linear's weight is [inputs, outputs] there."""
    from paddle import nn

    if isinstance(layer, nn.Linear) and value.ndim in (2, 4):
        return np.ascontiguousarray(value.reshape(value.shape[:2]).T)
    if isinstance(layer, nn.Conv2D) and value.ndim == 2:
        return value[:, :, None, None]
    if value.ndim == 3 and value.shape[1:] == (1, 1):  # scales of channels
        return value.reshape(-1)
    return value


def _identity(layer: Any, leaf: str) -> np.ndarray:
    """Return the parameter that makes a 1x1 convolution, or a BatchNorm at rest, hand on its input."""
    parameter = getattr(layer, leaf)
    if len(parameter.shape) == 4:
        return np.eye(parameter.shape[0], dtype=np.float32)[:, :, None, None]
    scale = math.sqrt(1.0 + layer._epsilon)
    value = {"weight": scale, "bias": 0.0, "_mean": 0.0, "_variance": 1.0}[leaf]
    return np.full(parameter.shape, value, np.float32)


def _explain(report: Mapping[str, list[str]], name: str, where: str, params: Mapping[str, np.ndarray]) -> str:
    lines = [f"{where}: {len(params)} tensors that do not make up a {name}"]
    for text, names in report.items():
        if names:
            more = f", ... ({len(names)} in all)" if len(names) > 6 else ""
            lines.append(f"  {text}: {', '.join(names[:6])}{more}")
    return "\n".join(lines)


def _starts(names: list[str], pattern: str) -> list[int]:
    """Return how many blocks come before each stage; `pattern` has the groups stage and block."""
    found = {tuple(map(int, match.groups())) for match in (re.match(pattern, n) for n in names) if match}
    stages = sorted({stage for stage, _ in found})
    return [0, *accumulate(sum(s == stage for s, _ in found) for stage in stages)]


def _resnet(names: list[str]) -> list[Rule]:
    starts = _starts(names, r"layer(\d)\.(\d+)\.")

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


def _resnext(names: list[str]) -> list[Rule]:
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
        (r"fc", lambda: "out"),
    ]


def _resnext_wsl(names: list[str]) -> list[Rule]:
    return [
        (r"(conv|bn)1", lambda p: f"_conv_stem._{p}"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", lambda s, i, p, n: f"_conv{s}_{i}._conv{n - 1}._{p}"),
        (
            r"layer(\d)\.(\d+)\.downsample\.([01])",
            lambda s, i, n: f"_conv{s}_{i}._short._conv.{('_conv', '_bn')[n]}",
        ),
        (r"fc", lambda: "_out"),
    ]


_V2_BLOCKS = [
    f"conv{stage}." + ("_first_block" if index == 1 else f"conv{stage}_{index}")
    for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1), 2)
    for index in range(1, count + 1)
]


def _mobilenet_v2(names: list[str]) -> list[Rule]:
    starts = _starts(names, r"blocks\.(\d+)\.(\d+)\.")
    kinds = ("_conv", "_batch_norm")

    def part(stage: int, index: int, layer: str) -> str:
        # timm's first block has no expansion, so its layers are counted from the depthwise one.
        first = {"conv_dw": 1, "bn1": 1, "conv_pw": 2, "bn2": 2}
        other = {"conv_pw": 0, "bn1": 0, "conv_dw": 1, "bn2": 1, "conv_pwl": 2, "bn3": 2}
        flat = starts[stage] + index
        where = ("_expand_conv", "_bottleneck_conv", "_linear_conv")[(other if flat else first)[layer]]
        return f"{_V2_BLOCKS[flat]}.{where}.{kinds[layer.startswith('bn')]}"

    return [
        # torchvision
        (r"features\.0\.([01])", lambda k: f"conv1.{kinds[k]}"),
        (r"features\.18\.([01])", lambda k: f"conv9.{kinds[k]}"),
        (r"features\.1\.conv\.0\.([01])", lambda k: f"{_V2_BLOCKS[0]}._bottleneck_conv.{kinds[k]}"),
        (r"features\.1\.conv\.([12])", lambda k: f"{_V2_BLOCKS[0]}._linear_conv.{kinds[k - 1]}"),
        (r"features\.(\d+)\.conv\.0\.([01])", lambda i, k: f"{_V2_BLOCKS[i - 1]}._expand_conv.{kinds[k]}"),
        (
            r"features\.(\d+)\.conv\.1\.([01])",
            lambda i, k: f"{_V2_BLOCKS[i - 1]}._bottleneck_conv.{kinds[k]}",
        ),
        (
            r"features\.(\d+)\.conv\.([23])",
            lambda i, k: f"{_V2_BLOCKS[i - 1]}._linear_conv.{kinds[k - 2]}",
        ),
        (r"classifier(?:\.1)?", lambda: "out"),
        # timm
        (r"conv_stem", lambda: "conv1._conv"),
        (r"bn1", lambda: "conv1._batch_norm"),
        (r"conv_head", lambda: "conv9._conv"),
        (r"bn2", lambda: "conv9._batch_norm"),
        (r"blocks\.(\d+)\.(\d+)\.(conv_dw|conv_pwl?|bn[123])", part),
    ]


def _densenet(names: list[str]) -> list[Rule]:
    return [
        (r"features\.(conv|norm)0", lambda p: f"conv1_func.{_PARTS[p]}"),
        (
            # torchvision's first files have a dot before the number
            r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)\.?(\d)",
            lambda b, i, p, n: f"db_conv_{b + 1}.conv{b + 1}_{i}.bn_ac_func{n}.{_PARTS[p]}",
        ),
        (
            r"features\.transition(\d)\.(norm|conv)",
            lambda i, p: f"tr_conv{i + 1}_blk.conv_ac_func.{_PARTS[p]}",
        ),
        (r"features\.norm5", lambda: "batch_norm"),
        (r"classifier", lambda: "out"),
    ]


def _efficientnet_lite(names: list[str]) -> list[Rule]:
    starts = _starts(names, r"blocks\.(\d+)\.(\d+)\.")
    # timm names a block's layers by their order, and its first block has no expansion
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    other = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    other |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    return [
        # efficientnet_lite_pytorch: the names are ours
        (r"(_conv_stem|_conv_head|_bn[01]|_fc)", str),
        (r"(_blocks\.\d+\.(?:_expand_conv|_depthwise_conv|_project_conv|_bn[012]))", str),
        # timm's tf_efficientnet_lite
        (r"(conv_stem|conv_head)", lambda part: f"_{part}"),
        (r"bn([12])", lambda n: f"_bn{n - 1}"),
        (r"classifier", lambda: "_fc"),
        (
            r"blocks\.(\d+)\.(\d+)\.(conv_dw|conv_pwl?|bn[123])",
            lambda s, i, part: f"_blocks.{starts[s] + i}.{(other if s else first)[part]}",
        ),
    ]


def _vit(names: list[str]) -> list[Rule]:
    linear = {"0": "fc1", "3": "fc2", "linear_1": "fc1", "linear_2": "fc2"}
    layer = r"encoder\.layers\.encoder_layer_(\d+)\."
    return [
        # timm and DeiT
        (r"(cls_token|dist_token|pos_embed|norm|head|head_dist|patch_embed\.proj)", str),
        (r"blocks\.(\d+)\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])", lambda i, p: f"blocks.{i}.{p}"),
        # torchvision
        (r"class_token", lambda: "cls_token"),
        (r"encoder\.pos_embedding", lambda: "pos_embed"),
        (r"conv_proj", lambda: "patch_embed.proj"),
        (layer + r"ln_([12])", lambda i, n: f"blocks.{i}.norm{n}"),
        (
            layer + r"self_attention\.in_proj_(weight|bias)",
            lambda i, leaf: f"blocks.{i}.attn.qkv.{leaf}",
        ),
        (layer + r"self_attention\.out_proj", lambda i: f"blocks.{i}.attn.proj"),
        (layer + r"mlp\.(0|3|linear_[12])", lambda i, n: f"blocks.{i}.mlp.{linear[str(n)]}"),
        (r"encoder\.ln", lambda: "norm"),
        (r"heads\.head", lambda: "head"),
    ]


def _swin(names: list[str]) -> list[Rule]:
    # timm counts the merging of patches to the stage after it, Microsoft's files to the one before.
    late = 0 if any(n.startswith("layers.0.downsample.") for n in names) else 1
    part = r"norm[12]|attn\.(?:qkv|proj|relative_position_bias_table)"
    linear = {0: "fc1", 3: "fc2"}
    return [
        (r"(patch_embed\.(?:proj|norm)|norm|head)", str),
        (rf"(layers\.\d+\.blocks\.\d+\.(?:{part}|mlp\.fc[12]))", str),
        (r"layers\.(\d+)\.downsample\.(norm|reduction)", lambda s, p: f"layers.{s - late}.downsample.{p}"),
        (r"head\.fc", lambda: "head"),
        # torchvision
        (r"features\.0\.([02])", lambda n: "patch_embed.norm" if n else "patch_embed.proj"),
        (rf"features\.([1357])\.(\d+)\.({part})", lambda s, i, p: f"layers.{s // 2}.blocks.{i}.{p}"),
        (
            r"features\.([1357])\.(\d+)\.mlp\.([03])",
            lambda s, i, n: f"layers.{s // 2}.blocks.{i}.mlp.{linear[n]}",
        ),
        (
            r"features\.([246])\.(norm|reduction)",
            lambda s, p: f"layers.{s // 2 - 1}.downsample.{p}",
        ),
    ]


def _convnext(names: list[str]) -> list[Rule]:
    timm = {"conv_dw": "dwconv", "norm": "norm", "mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2", "gamma": "gamma"}
    torchvision = {0: "dwconv", 2: "norm", 3: "pwconv1", 5: "pwconv2"}
    return [
        # the authors' names are ours
        (r"(downsample_layers\.\d\.\d|norm|head)", str),
        (r"(stages\.\d\.\d+\.(?:dwconv|norm|pwconv[12]|gamma))", str),
        # timm
        (r"stem\.([01])", lambda n: f"downsample_layers.0.{n}"),
        (r"stages\.(\d)\.downsample\.([01])", lambda s, n: f"downsample_layers.{s}.{n}"),
        (
            r"stages\.(\d)\.blocks\.(\d+)\.(conv_dw|norm|mlp\.fc[12]|gamma)",
            lambda s, i, p: f"stages.{s}.{i}.{timm[p]}",
        ),
        (r"head\.(norm|fc)", lambda p: "norm" if p == "norm" else "head"),
        # torchvision
        (r"features\.([0246])\.([01])", lambda s, n: f"downsample_layers.{s // 2}.{n}"),
        (
            r"features\.([1357])\.(\d+)\.block\.([0235])",
            lambda s, i, n: f"stages.{s // 2}.{i}.{torchvision[n]}",
        ),
        (r"features\.([1357])\.(\d+)\.layer_scale", lambda s, i: f"stages.{s // 2}.{i}.gamma"),
        (r"classifier\.([02])", lambda n: "head" if n else "norm"),
    ]


_FAMILIES = (
    Family("ResNet", r"ResNet\d+(_vd)?", _resnet, identity=r"blocks\.0\.short\.(conv|bn)"),
    Family("ResNeXt", r"ResNeXt\d+(_vd)?_\d+x\d+d", _resnext),
    Family("ResNeXt101_wsl", r"ResNeXt101_32x\d+d_wsl", _resnext_wsl),
    Family(
        "MobileNetV2",
        r"MobileNetV2(_x2_0)?",
        _mobilenet_v2,
        identity=r"conv2\._first_block\._expand_conv\.(_conv|_batch_norm)",
    ),
    Family("DenseNet", r"DenseNet\d+", _densenet),
    Family("EfficientNetLite", r"EfficientNetLite\d", _efficientnet_lite),
    Family("ViT and DeiT", r"(ViT|DeiT)_.*", _vit),
    Family("SwinTransformer", r"SwinTransformer_.*", _swin, options={"shift_single_window": False}),
    Family("ConvNeXt", r"ConvNeXt_.*", _convnext),
)

_OTHER_FUNCTIONS = {
    r"VGG\d+": "its convolutions have no biases, and PyTorch's have",
    r"MobileNetV2_x.*": "its widths are cut to whole numbers, PyTorch's are rounded to multiples of 8",
    r"MobileNetV3_.*": (
        "its squeeze-and-excitation has other widths and another gate, and its last layer has no bias"
    ),
    r"DistillationModel|AttentionModel": (
        "it is several networks; give the file as `pretrained` of the one that it is for"
    ),
}
