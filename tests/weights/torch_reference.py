"""Weights that follow from names and shapes alone, so that two frameworks can be given the same ones.

Run as a script, with PyTorch, torchvision and timm installed, it records what their networks answer with such
weights: ``cd tests/weights && python torch_reference.py data/torch_reference_regnet.json.gz 'RegNet*'``. The
patterns choose among our networks; without them all are recorded. The tests convert the same weights, from
the recorded names and shapes, and compare the answers.
"""

from __future__ import annotations

import fnmatch
import gzip
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 8

# our name: (library, constructor, options, side of the images)
# what is quick enough for every run of the tests: the smallest network of each kind of block and stem
QUICK = {
    "ResNet18": [("torchvision", "resnet18", {}, 64)],
    "ResNet50": [("torchvision", "resnet50", {}, 64), ("timm", "resnet50", {}, 64)],
    "ResNet18_vd": [("timm", "resnet18d", {}, 64)],
    "ResNeXt50_32x4d": [("torchvision", "resnext50_32x4d", {}, 64)],
    "MobileNetV2": [("torchvision", "mobilenet_v2", {}, 64), ("timm", "mobilenetv2_100", {}, 64)],
    "DenseNet121": [("torchvision", "densenet121", {}, 64)],
    "EfficientNetB0": [("timm", "tf_efficientnet_b0", {}, 64)],
    "EfficientNetLite0": [("timm", "tf_efficientnet_lite0", {}, 64)],
    "FasterNet_T0": [("timm", "fasternet_t0", {}, 64)],
    "MobileViT_XXS": [("timm", "mobilevit_xxs", {}, 72)],  # with maps of an odd size
    "MobileViTV2_x0_5": [("timm", "mobilevitv2_050", {}, 72)],
    "StarNet_S1": [("timm", "starnet_s1", {}, 64)],
    "DeiT_tiny_patch16_224": [
        ("timm", "deit_tiny_patch16_224", {}, 224),
        # torchvision's transformer in the size of DeiT-tiny
        (
            "torchvision",
            "VisionTransformer",
            {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 3}
            | {"hidden_dim": 192, "mlp_dim": 768},
            224,
        ),
    ],
    "DeiT_tiny_distilled_patch16_224": [("timm", "deit_tiny_distilled_patch16_224", {}, 224)],
    "SwinTransformer_tiny_patch4_window7_224": [
        ("timm", "swin_tiny_patch4_window7_224", {}, 224),
        ("torchvision", "swin_t", {}, 224),
    ],
    "ConvNeXt_tiny": [("timm", "convnext_tiny", {}, 64), ("torchvision", "convnext_tiny", {}, 64)],
    "TinyNet_E": [("timm", "tinynet_e", {}, 64)],
    "RegNetY_200MF": [("timm", "regnety_002", {}, 64)],
    "RegNetY_400MF": [("torchvision", "regnet_y_400mf", {}, 64)],
}
# the other members of these families
OTHERS = {
    "ResNet34": [("torchvision", "resnet34", {}, 64)],
    "ResNet101": [("torchvision", "resnet101", {}, 64)],
    "ResNet152": [("torchvision", "resnet152", {}, 64)],
    "ResNet34_vd": [("timm", "resnet34d", {}, 64)],
    "ResNet50_vd": [("timm", "resnet50d", {}, 64)],
    "ResNet101_vd": [("timm", "resnet101d", {}, 64)],
    "ResNet152_vd": [("timm", "resnet152d", {}, 64)],
    "ResNeXt50_vd_32x4d": [("timm", "resnext50d_32x4d", {}, 64)],
    "ResNeXt101_32x4d": [("timm", "resnext101_32x4d", {}, 64)],
    "ResNeXt101_64x4d": [("torchvision", "resnext101_64x4d", {}, 64)],
    "ResNeXt101_32x8d_wsl": [
        ("torchvision", "resnext101_32x8d", {}, 64),
        ("timm", "resnext101_32x8d", {}, 64),
    ],
    "ResNeXt101_32x16d_wsl": [("timm", "resnext101_32x16d", {}, 64)],
    "MobileNetV2_x2_0": [("torchvision", "mobilenet_v2", {"width_mult": 2.0}, 64)],
    "DenseNet161": [("torchvision", "densenet161", {}, 64)],
    "DenseNet169": [("timm", "densenet169", {}, 64)],
    "DenseNet201": [("torchvision", "densenet201", {}, 64)],
    "EfficientNetB1": [("timm", "tf_efficientnet_b1", {}, 64)],
    "EfficientNetB3": [("timm", "tf_efficientnet_b3", {}, 72)],
    "EfficientNetB4": [("timm", "tf_efficientnet_b4", {}, 64)],
    "EfficientNetB7": [("timm", "tf_efficientnet_b7", {}, 64)],
    "EfficientNetLite1": [("timm", "tf_efficientnet_lite1", {}, 64)],
    "EfficientNetLite2": [("timm", "tf_efficientnet_lite2", {}, 72)],
    "FasterNet_T1": [("timm", "fasternet_t1", {}, 64)],
    "FasterNet_T2": [("timm", "fasternet_t2", {}, 64)],
    "FasterNet_S": [("timm", "fasternet_s", {}, 64)],
    "FasterNet_M": [("timm", "fasternet_m", {}, 64)],
    "FasterNet_L": [("timm", "fasternet_l", {}, 64)],
    "MobileViT_XS": [("timm", "mobilevit_xs", {}, 64)],
    "MobileViT_S": [("timm", "mobilevit_s", {}, 64)],
    "MobileViTV2_x0_75": [("timm", "mobilevitv2_075", {}, 64)],
    "MobileViTV2_x1_0": [("timm", "mobilevitv2_100", {}, 64)],
    "MobileViTV2_x1_25": [("timm", "mobilevitv2_125", {}, 64)],
    "MobileViTV2_x1_5": [("timm", "mobilevitv2_150", {}, 64)],
    "MobileViTV2_x1_75": [("timm", "mobilevitv2_175", {}, 64)],
    "MobileViTV2_x2_0": [("timm", "mobilevitv2_200", {}, 64)],
    "SwinTransformerV2_tiny_patch4_window8_256": [("timm", "swinv2_tiny_window8_256", {}, 256)],
    "SwinTransformerV2_tiny_patch4_window16_256": [("timm", "swinv2_tiny_window16_256", {}, 256)],
    "SwinTransformerV2_small_patch4_window8_256": [("timm", "swinv2_small_window8_256", {}, 256)],
    "SwinTransformerV2_base_patch4_window16_256": [("timm", "swinv2_base_window16_256", {}, 256)],
    "SwinTransformerV2_base_patch4_window24_384": [
        ("timm", "swinv2_base_window12to24_192to384", {}, 384),
    ],
    "StarNet_S2": [("timm", "starnet_s2", {}, 64)],
    "StarNet_S3": [("timm", "starnet_s3", {}, 64)],
    "StarNet_S4": [("timm", "starnet_s4", {}, 64)],
    "DeiT_small_patch16_224": [("timm", "deit_small_patch16_224", {}, 224)],
    "DeiT_small_distilled_patch16_224": [("timm", "deit_small_distilled_patch16_224", {}, 224)],
    "DeiT_base_patch16_224": [("timm", "deit_base_patch16_224", {}, 224)],
    "DeiT_base_distilled_patch16_224": [("timm", "deit_base_distilled_patch16_224", {}, 224)],
    "DeiT_base_patch16_384": [("timm", "deit_base_patch16_384", {}, 384)],
    "DeiT_base_distilled_patch16_384": [("timm", "deit_base_distilled_patch16_384", {}, 384)],
    "ViT_base_patch16_224": [
        ("timm", "vit_base_patch16_224", {}, 224),
        ("torchvision", "vit_b_16", {}, 224),
    ],
    "ViT_base_patch16_384": [("timm", "vit_base_patch16_384", {}, 384)],
    "ViT_base_patch32_384": [("timm", "vit_base_patch32_384", {}, 384)],
    "ViT_large_patch16_224": [("timm", "vit_large_patch16_224", {}, 224)],
    "ViT_large_patch32_384": [("timm", "vit_large_patch32_384", {}, 384)],
    "SwinTransformer_small_patch4_window7_224": [
        ("timm", "swin_small_patch4_window7_224", {}, 224),
        ("torchvision", "swin_s", {}, 224),
    ],
    "SwinTransformer_base_patch4_window7_224": [
        ("timm", "swin_base_patch4_window7_224", {}, 224),
        ("torchvision", "swin_b", {}, 224),
    ],
    "SwinTransformer_base_patch4_window12_384": [("timm", "swin_base_patch4_window12_384", {}, 384)],
    "SwinTransformer_large_patch4_window7_224": [("timm", "swin_large_patch4_window7_224", {}, 224)],
    "ConvNeXt_small": [
        ("timm", "convnext_small", {}, 64),
        ("torchvision", "convnext_small", {}, 64),
    ],
    "ConvNeXt_base_224": [("timm", "convnext_base", {}, 64), ("torchvision", "convnext_base", {}, 64)],
    "ConvNeXt_large_224": [("timm", "convnext_large", {}, 64)],
    "SE_ResNeXt50_vd_32x4d": [
        ("timm", "resnext50d_32x4d", {"stem_width": 64, "block_args": {"attn_layer": "se"}}, 64)
    ],
    "SE_ResNeXt50_32x4d": [("timm", "seresnext50_32x4d", {}, 64)],
    "SE_ResNeXt101_32x4d": [("timm", "seresnext101_32x4d", {}, 64)],
    "ResNeSt50_fast_1s1x64d": [
        (
            "timm",
            "resnest50d",
            {"base_width": 64, "block_args": {"radix": 1, "avd": True, "avd_first": True}},
            64,
        )
    ],
    "ResNeSt50": [("timm", "resnest50d", {}, 64)],
    "ResNeSt101": [("timm", "resnest101e", {}, 64)],
    "ResNeSt200": [("timm", "resnest200e", {}, 64)],
    "ResNeSt269": [("timm", "resnest269e", {}, 64)],
    "TinyNet_A": [("timm", "tinynet_a", {}, 64)],
    "TinyNet_B": [("timm", "tinynet_b", {}, 64)],
    "TinyNet_C": [("timm", "tinynet_c", {}, 64)],
    "TinyNet_D": [("timm", "tinynet_d", {}, 64)],
    "RegNetX_200MF": [("timm", "regnetx_002", {}, 64)],
    "RegNetX_400MF": [("timm", "regnetx_004", {}, 64)],
    "RegNetX_400MF_tv": [("torchvision", "regnet_x_400mf", {}, 64)],
    "RegNetX_600MF": [("timm", "regnetx_006", {}, 64)],
    "RegNetX_800MF": [("timm", "regnetx_008", {}, 64), ("torchvision", "regnet_x_800mf", {}, 64)],
    "RegNetX_1600MF": [("timm", "regnetx_016", {}, 64), ("torchvision", "regnet_x_1_6gf", {}, 64)],
    "RegNetX_3200MF": [("timm", "regnetx_032", {}, 64), ("torchvision", "regnet_x_3_2gf", {}, 64)],
    "RegNetX_4GF": [("timm", "regnetx_040", {}, 64)],
    "RegNetX_6400MF": [("timm", "regnetx_064", {}, 64)],
    "RegNetX_8GF": [("timm", "regnetx_080", {}, 64), ("torchvision", "regnet_x_8gf", {}, 64)],
    "RegNetX_12GF": [("timm", "regnetx_120", {}, 64)],
    "RegNetX_16GF": [("timm", "regnetx_160", {}, 64), ("torchvision", "regnet_x_16gf", {}, 64)],
    "RegNetX_32GF": [("timm", "regnetx_320", {}, 64), ("torchvision", "regnet_x_32gf", {}, 64)],
    "RegNetY_600MF": [("timm", "regnety_006", {}, 64)],
    "RegNetY_800MF": [("timm", "regnety_008", {}, 64)],
    "RegNetY_800MF_tv": [("torchvision", "regnet_y_800mf", {}, 64)],
    "RegNetY_1600MF": [("timm", "regnety_016", {}, 64), ("torchvision", "regnet_y_1_6gf", {}, 64)],
    "RegNetY_3200MF": [("timm", "regnety_032", {}, 64), ("torchvision", "regnet_y_3_2gf", {}, 64)],
    "RegNetY_4GF": [("timm", "regnety_040", {}, 64)],
    "RegNetY_6400MF": [("timm", "regnety_064", {}, 64)],
    "RegNetY_8GF": [("timm", "regnety_080", {}, 64)],
    "RegNetY_8GF_tv": [("torchvision", "regnet_y_8gf", {}, 64)],
    "RegNetY_12GF": [("timm", "regnety_120", {}, 64)],
    "RegNetY_16GF": [("timm", "regnety_160", {}, 64), ("torchvision", "regnet_y_16gf", {}, 64)],
    "RegNetY_32GF": [("timm", "regnety_320", {}, 64), ("torchvision", "regnet_y_32gf", {}, 64)],
}


# The variance of weights times their fan-in, where it is not 1.5. StarNet multiplies two maps with each
# other: they would grow until its ReLU6 is a step, and a rounding decides on which side of it a value is.
GAINS = {"StarNet": 0.3}


def weights_for(shapes: dict[str, list[int]], ours: str = "") -> dict[str, np.ndarray]:
    """Return parameters for names and shapes: positive variances, values that keep their size.

    Args:
        shapes: of PyTorch's tensors by name.
        ours: our name of the network, for `GAINS`.
    """
    gain = GAINS.get(ours.partition("_")[0], 1.5)
    found: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith(("num_batches_tracked", "relative_position_index")):
            continue
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) >= 2 and name.endswith("weight"):
            value = rng.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape)
        else:
            value = rng.normal(0, 0.1, shape)
        found[name] = value.astype(np.float32)
    return found


def images(side: int) -> np.ndarray:
    """Return two images [2, 3, side, side]."""
    return np.random.default_rng(side).normal(0, 1, (2, 3, side, side)).astype(np.float32)


def rows() -> list[dict[str, Any]]:
    """Return what was recorded, in one file or several."""
    files = sorted((Path(__file__).parent / "data").glob("torch_reference*.json.gz"))
    return [row for file in files for row in json.loads(gzip.decompress(file.read_bytes()))]


def record(patterns: list[str]) -> list[dict[str, Any]]:
    """Ask each network of PyTorch whose counterpart here matches a pattern; all of them if there is none."""
    import timm
    import torch
    from torchvision import models

    found = []
    for ours, sources in (QUICK | OTHERS).items():
        if patterns and not any(fnmatch.fnmatchcase(ours, pattern) for pattern in patterns):
            continue
        for library, name, options, side in sources:
            make = getattr(models, name) if library == "torchvision" else None
            net = (
                make(num_classes=CLASSES, **options)
                if make
                else timm.create_model(name, num_classes=CLASSES, **options)
            )
            shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
            values = {key: torch.from_numpy(value) for key, value in weights_for(shapes, ours).items()}
            net.load_state_dict(values, strict=False)
            with torch.no_grad():
                logits = net.eval()(torch.from_numpy(images(side))).numpy()
            found.append(
                {"ours": ours, "theirs": f"{library} {name}", "side": side, "shapes": shapes}
                | {"logits": np.round(logits.astype(float), 6).tolist()}
            )
            print(ours, library, name, logits.std(axis=1), file=sys.stderr)
    return found


if __name__ == "__main__":
    with gzip.GzipFile(sys.argv[1], "wb", mtime=0) as stream:
        stream.write(json.dumps(record(sys.argv[2:])).encode())
