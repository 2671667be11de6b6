"""Where each layer of other libraries' state dicts goes in our networks, family by family.

The libraries are timm and torchvision; for the networks of 32 x 32 pixels, RepDistiller and mdistiller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

# A pattern for the path of a layer (or of a parameter that is neither weight nor bias), and a function that
# makes our path from the groups of the pattern; groups of digits are passed as numbers.
Rule = tuple[str, Callable[..., str]]

_PARTS = {"conv": "_conv", "norm": "_batch_norm", "bn": "_batch_norm"}


@dataclass(frozen=True)
class Family:
    """How a family of networks is converted.

    Attributes:
        title: name of the family, for messages.
        networks: pattern for our names of the networks.
        rules: makes the rules from the names in a file.
        identity: pattern for our layers that PyTorch's network does not have; they become the identity.
        options: options with which our network computes the same function; it has attributes of these names.
        options_in: more of such options, which depend on the names in the file.
        prepared: makes the tensors that the rules apply to from those of a file; None if they are the same.
        twins: the name of a tensor in files that also fit networks of another function, and how to
            distinguish these.
    """

    title: str
    networks: str
    rules: Callable[[list[str]], list[Rule]]
    identity: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    twins: tuple[str, str] | None = None
    options_in: Callable[[Collection[str]], Mapping[str, Any]] | None = None
    prepared: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def _starts(names: list[str], pattern: str) -> list[int]:
    """Return the number of blocks before each stage; `pattern` has the groups stage and block."""
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


def _cifar_resnet(names: list[str]) -> list[Rule]:
    # RepDistiller and mdistiller call the classifier fc, networks with short cuts of option A often linear.
    return [*(rule for rule in _resnet(names) if rule[0] not in _STEM), *_CIFAR]


_STEM = ("conv1", "bn1", "fc")
_CIFAR: list[Rule] = [
    (r"conv1", lambda: "stem.conv"),
    (r"bn1", lambda: "stem.bn"),
    (r"fc|linear", lambda: "fc"),
]


def _cifar_shortcut(names: Collection[str]) -> Mapping[str, Any]:
    """Tell the two kinds of short cuts apart: option A has no parameters."""
    return {"shortcut": "B" if any(".downsample." in name for name in names) else "A"}


def _wide_resnet(names: list[str]) -> list[Rule]:
    starts = _starts(names, r"block(\d)\.layer\.(\d+)\.")

    def block(stage: int, index: int) -> str:
        return f"blocks.{starts[stage - 1] + index}"

    return [
        (r"conv1", lambda: "stem"),
        (r"bn1", lambda: "bn"),
        (r"fc", lambda: "fc"),
        (r"block(\d)\.layer\.(\d+)\.(conv|bn)([12])", lambda s, i, p, n: f"{block(s, i)}.{p}{n - 1}"),
        (r"block(\d)\.layer\.(\d+)\.convShortcut", lambda s, i: f"{block(s, i)}.short"),
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
        (
            r"layer(\d)\.(\d+)\.se\.fc([12])",
            lambda s, i, n: f"bb_{s - 1}_{i}.scale.{('squeeze', 'excitation')[n - 1]}",
        ),
        (r"fc", lambda: "out"),
    ]


def _resnest(names: list[str]) -> list[Rule]:
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
        (r"layer(\d)\.(\d+)\.(conv|bn)([13])", lambda s, i, p, n: f"{block(s, i)}.conv{n}.{_PARTS[p]}"),
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


def _without_bias_of_fc1(params: Mapping[str, Any]) -> dict[str, Any]:
    """Move the bias of the attention's first convolution, which ours has not, into the BatchNorm after it.

    BatchNorm subtracts a mean; a bias before it is the same as a mean that is smaller by it.
    """
    moved = dict(params)
    for key in params:
        mean = key.removesuffix("fc1.bias") + "bn1.running_mean"
        if key.endswith(".conv2.fc1.bias") and mean in params:
            moved[mean] = params[mean] - moved.pop(key)
    return moved


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


def _regnet(names: list[str]) -> list[Rule]:
    kinds = ("_conv", "_batch_norm")
    letter = {"a": 0, "b": 1, "c": 2}
    gate = ("squeeze", "excitation")
    return [
        # timm
        (r"stem\.(conv|bn)", lambda p: f"conv.{_PARTS[p]}"),
        (r"s(\d)\.b(\d+)\.conv([123])\.(conv|bn)", lambda s, i, n, p: f"s{s}_b{i}.conv{n - 1}.{_PARTS[p]}"),
        (r"s(\d)\.b(\d+)\.downsample\.(conv|bn)", lambda s, i, p: f"s{s}_b{i}.short.{_PARTS[p]}"),
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


def _efficientnet(names: list[str]) -> list[Rule]:
    starts = _starts(names, r"blocks\.(\d+)\.(\d+)\.")
    conv = "_conv._conv._conv"
    norm = "_conv._bn"
    # timm names a block's layers by their order, and its first stage has no expansion
    first = {
        "conv_dw": f"_dcn.{conv}",
        "bn1": f"_dcn.{norm}",
        "conv_pw": f"_pcn.{conv}",
        "bn2": f"_pcn.{norm}",
    }
    other = {
        "conv_pw": f"_ecn.{conv}",
        "bn1": f"_ecn.{norm}",
        "conv_dw": f"_dcn.{conv}",
        "bn2": f"_dcn.{norm}",
    }
    other |= {"conv_pwl": f"_pcn.{conv}", "bn3": f"_pcn.{norm}"}
    gate = {"reduce": "_se._conv1._conv", "expand": "_se._conv2._conv"}

    def block(stage: int, index: int) -> str:
        return f"_ef.{'block' if index else '_blocks'}.{starts[stage] + index}."

    return [
        (r"conv_stem", lambda: f"_ef._conv_stem.{conv}"),
        (r"bn1", lambda: f"_ef._conv_stem.{norm}"),
        (r"conv_head", lambda: "_conv._conv._conv"),
        (r"bn2", lambda: "_conv._bn"),
        (r"classifier", lambda: "_fc"),
        (
            r"blocks\.(\d+)\.(\d+)\.se\.conv_(reduce|expand)",
            lambda s, i, part: f"{block(s, i)}.{gate[part]}",
        ),
        (
            r"blocks\.(\d+)\.(\d+)\.(conv_dw|conv_pwl?|bn[123])",
            lambda s, i, part: f"{block(s, i)}.{(other if s else first)[part]}",
        ),
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
    part = r"norm[12]|attn\.(?:qkv|proj|relative_position_bias_table|q_bias|v_bias|logit_scale|cpb_mlp\.[02])"
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


def _fasternet(names: list[str]) -> list[Rule]:
    # timm counts the halving of the map to the stage after it, the authors count it as a stage of its own.
    step = 2 if any(".downsample." in n for n in names) else 1
    return [
        (r"(patch_embed\.(?:proj|norm)|avgpool_pre_head\.1|head)", str),
        (
            r"stages\.(\d)\.(blocks\.\d+\.(?:mlp\.[013]|spatial_mixing\.partial_conv3))",
            lambda s, part: f"stages.{step * s}.{part}",
        ),
        (r"stages\.(\d)\.downsample\.(reduction|norm)", lambda s, part: f"stages.{2 * s - 1}.{part}"),
        (r"(stages\.[135]\.(?:reduction|norm))", str),
        (r"conv_head", lambda: "avgpool_pre_head.1"),
        (r"classifier", lambda: "head"),
    ]


def _starnet(names: list[str]) -> list[Rule]:
    return [  # the names of the authors and of timm are ours
        (r"(stem\.0\.(?:conv|bn)|norm|head)", str),
        (r"(stages\.\d\.\d+\.(?:(?:dwconv2?|f[12]|g)\.)?(?:conv|bn))", str),
    ]


def _mobilevit(names: list[str]) -> list[Rule]:
    norm = {"conv": "conv", "bn": "norm"}
    residual = {"1_1x1.conv": "0.conv", "1_1x1.bn": "0.norm", "2_kxk.conv": "1.conv", "2_kxk.bn": "1.norm"}
    residual |= {"3_1x1.conv": "2", "3_1x1.bn": "3"}
    outer = {"kxk": "conv1", "proj": "conv3", "fusion": "conv4"}
    inner = {"norm1": "attn_norm", "norm2": "mlp_norm"}

    def inverted(stage: int, index: int) -> str:
        return f"mv2_block_{(1, 2, 5, 6, 7)[stage] + index}"

    return [  # timm
        (r"stem\.(conv|bn)", lambda p: f"conv3x3.{norm[p]}"),
        (
            r"stages\.(\d)\.(\d)\.conv(1_1x1|2_kxk|3_1x1)\.(conv|bn)",
            lambda s, i, c, p: f"{inverted(s, i)}.conv.{residual[f'{c}.{p}']}",
        ),
        (
            r"stages\.(\d)\.1\.conv_(kxk|proj|fusion)\.(conv|bn)",
            lambda s, c, p: f"mvit_block_{s - 1}.{outer[c]}.{norm[p]}",
        ),
        (r"stages\.(\d)\.1\.conv_1x1", lambda s: f"mvit_block_{s - 1}.conv2"),
        (
            r"stages\.(\d)\.1\.transformer\.(\d)\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])",
            lambda s, i, p: f"mvit_block_{s - 1}.transformer.layers.{i}.{inner.get(p, p)}",
        ),
        (r"stages\.(\d)\.1\.norm", lambda s: f"mvit_block_{s - 1}.transformer.norm"),
        (r"final_conv\.(conv|bn)", lambda p: f"conv1x1.{norm[p]}"),
        (r"head\.fc", lambda: "linear"),
    ]


def _mobilevit_v2(names: list[str]) -> list[Rule]:
    norm = {"conv": "conv", "bn": "norm"}
    residual = {"1_1x1": "exp_1x1", "2_kxk": "conv_3x3", "3_1x1": "red_1x1"}
    layer = {"norm1": "pre_norm_attn.0", "attn.qkv_proj": "pre_norm_attn.1.qkv_proj"}
    layer |= {"attn.out_proj": "pre_norm_attn.1.out_proj", "norm2": "pre_norm_ffn.0"}
    layer |= {"mlp.fc1": "pre_norm_ffn.1", "mlp.fc2": "pre_norm_ffn.4"}
    depths = (2, 4, 3)
    return [  # timm
        (r"stem\.(conv|bn)", lambda p: f"conv_1.{norm[p]}"),
        (
            r"stages\.(\d)\.(\d)\.conv(1_1x1|2_kxk|3_1x1)\.(conv|bn)",
            lambda s, i, c, p: f"layer_{s + 1}.{i}.block.{residual[c]}.{norm[p]}",
        ),
        (r"stages\.(\d)\.1\.conv_kxk\.(conv|bn)", lambda s, p: f"layer_{s + 1}.1.local_rep.0.{norm[p]}"),
        (r"stages\.(\d)\.1\.conv_1x1", lambda s: f"layer_{s + 1}.1.local_rep.1.conv"),
        (
            rf"stages\.(\d)\.1\.transformer\.(\d)\.({'|'.join(map(re.escape, layer))})",
            lambda s, i, p: f"layer_{s + 1}.1.global_rep.{i}.{layer[p]}",
        ),
        (r"stages\.([234])\.1\.norm", lambda s: f"layer_{s + 1}.1.global_rep.{depths[s - 2]}"),
        (r"stages\.(\d)\.1\.conv_proj\.(conv|bn)", lambda s, p: f"layer_{s + 1}.1.conv_proj.{norm[p]}"),
        (r"head\.fc", lambda: "classifier.fc"),
    ]


_TF = (
    "conv_stem.weight",
    "timm's networks with tf_ in their names are this function; those without have tensors of the same names "
    "and shapes, but another padding and another epsilon",
)

FAMILIES = (
    Family("ResNet", r"ResNet\d+(_vd)?", _resnet, identity=r"blocks\.0\.short\.(conv|bn)"),
    Family("resnet for CIFAR", r"resnet\d+(x4)?", _cifar_resnet, options_in=_cifar_shortcut),
    Family("wide ResNet for CIFAR", r"wrn_\d+_\d+", _wide_resnet),
    Family("ResNeXt", r"(SE_)?ResNeXt\d+(_vd)?_\d+x\d+d", _resnext),
    Family(
        "ResNeSt",
        r"ResNeSt\d+(_fast_1s1x64d)?",
        _resnest,
        options={"count_padding": True},
        prepared=_without_bias_of_fc1,
    ),
    Family("RegNet", r"RegNet[XY]_.*", _regnet),
    Family("ResNeXt101_wsl", r"ResNeXt101_32x\d+d_wsl", _resnext_wsl),
    Family(
        "MobileNetV2",
        r"MobileNetV2(_x2_0)?",
        _mobilenet_v2,
        identity=r"conv2\._first_block\._expand_conv\.(_conv|_batch_norm)",
    ),
    Family("DenseNet", r"DenseNet\d+", _densenet),
    Family("EfficientNet", r"EfficientNetB\d", _efficientnet, options={"fixed_padding": False}, twins=_TF),
    Family("TinyNet", r"TinyNet_[A-E]", _efficientnet),
    Family("EfficientNetLite", r"EfficientNetLite\d", _efficientnet_lite, twins=_TF),
    Family("FasterNet", r"FasterNet_.*", _fasternet),
    Family("MobileViT", r"MobileViT_.*", _mobilevit),
    Family("MobileViTV2", r"MobileViTV2_.*", _mobilevit_v2),
    Family("StarNet", r"StarNet_.*", _starnet),
    Family("ViT and DeiT", r"(ViT|DeiT)_.*", _vit),
    Family("SwinTransformer", r"SwinTransformer_.*", _swin, options={"shift_single_window": False}),
    Family("SwinTransformerV2", r"SwinTransformerV2_.*", _swin),
    Family("ConvNeXt", r"ConvNeXt_.*", _convnext),
)

OTHER_FUNCTIONS = {
    r"VGG\d+": "its convolutions have no biases, and PyTorch's have",
    r"MobileNetV2_x.*": "its widths are cut to whole numbers, PyTorch's are rounded to multiples of 8",
    r"MobileNetV3_.*": (
        "its squeeze-and-excitation has other widths and another gate, and its last layer has no bias"
    ),
    r"DistillationModel|AttentionModel": (
        "it is several networks; give the file as `pretrained` of the one that it is for"
    ),
}
