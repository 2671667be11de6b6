"""Where each layer of other libraries' state dicts goes in our networks, family by family.

The libraries are timm and torchvision; for the networks of 32 x 32 pixels, RepDistiller and mdistiller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppcls.weights.torch_residual import (
    PARTS,
    Rule,
    cifar_resnet,
    cifar_shortcut,
    regnet,
    resnest,
    resnet,
    resnext,
    resnext_wsl,
    stage_starts,
    wide_resnet,
    without_bias_of_fc1,
)


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


_V2_BLOCKS = [
    f"conv{stage}." + ("_first_block" if index == 1 else f"conv{stage}_{index}")
    for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1), 2)
    for index in range(1, count + 1)
]


def _mobilenet_v2(names: list[str]) -> list[Rule]:
    starts = stage_starts(names, r"blocks\.(\d+)\.(\d+)\.")
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
        (r"features\.(conv|norm)0", lambda p: f"conv1_func.{PARTS[p]}"),
        (
            # torchvision's first files have a dot before the number
            r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)\.?(\d)",
            lambda b, i, p, n: f"db_conv_{b + 1}.conv{b + 1}_{i}.bn_ac_func{n}.{PARTS[p]}",
        ),
        (
            r"features\.transition(\d)\.(norm|conv)",
            lambda i, p: f"tr_conv{i + 1}_blk.conv_ac_func.{PARTS[p]}",
        ),
        (r"features\.norm5", lambda: "batch_norm"),
        (r"classifier", lambda: "out"),
    ]


def _efficientnet(names: list[str]) -> list[Rule]:
    starts = stage_starts(names, r"blocks\.(\d+)\.(\d+)\.")
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
    starts = stage_starts(names, r"blocks\.(\d+)\.(\d+)\.")
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
    Family("ResNet", r"ResNet\d+(_vd)?", resnet, identity=r"blocks\.0\.short\.(conv|bn)"),
    Family("resnet for CIFAR", r"resnet\d+(x4)?", cifar_resnet, options_in=cifar_shortcut),
    Family("wide ResNet for CIFAR", r"wrn_\d+_\d+", wide_resnet),
    Family("ResNeXt", r"(SE_)?ResNeXt\d+(_vd)?_\d+x\d+d", resnext),
    Family(
        "ResNeSt",
        r"ResNeSt\d+(_fast_1s1x64d)?",
        resnest,
        options={"count_padding": True},
        prepared=without_bias_of_fc1,
    ),
    Family("RegNet", r"RegNet[XY]_.*", regnet),
    Family("ResNeXt101_wsl", r"ResNeXt101_32x\d+d_wsl", resnext_wsl),
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
