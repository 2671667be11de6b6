"""Options in recipes of PaddleClas that this package does not have, and messages about them.

There are three cases, each in a table. An option with a value that changes nothing is accepted; one without
effect is accepted with a notice; options of other tasks (several labels for one image, retrieval, ...) are
refused with the reason, instead of a suggestion of a similar name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ppcls.config.mistakes import Findings, join
from ppcls.config.nodes import Options, RecipeTree
from ppcls.errors import Mistake, nearest
from ppcls.registry import Registry


@dataclass(frozen=True)
class Foreign:
    """An option or a key of PaddleClas that is not built here.

    Attributes:
        harmless: values that mean the same as leaving it out, accepted silently; null is always one of them.
        notice: message about other values, which are accepted without effect; None: other values are refused.
        reason: why other values are refused.
    """

    harmless: tuple[Any, ...] = ()
    notice: str | None = None
    reason: str = ""

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is harmless; False is not 0, and True is not 1."""
        return value in (None, "None") or any(
            value == good and isinstance(value, bool) == isinstance(good, bool) for good in self.harmless
        )


_MULTI_LABEL = "several labels for one image (multi-label) are not supported; here an image has one label"
_RETRIEVAL = "retrieval and metric learning are not supported, only classification"
_SEMI = (
    "semi-supervised training of this kind is not supported; DataLoader.UnLabelTrain distils on images "
    "without labels"
)
_SLIM = "quantisation and pruning are not supported"
_NOT_BUILT = "PaddleClas has it, but it is not built here"
_ACTIVATION = "only the published activation is built"
_SHAPE = "the shape of the network is part of its name"

_FUSED = Foreign(
    harmless=(False,), notice="has no effect: the same is computed, without the fused kernel of Paddle"
)

# Options of components: kind (see ``components.KINDS``), pattern of the component's name, option.


def _tinynet(drop: float) -> Foreign:
    """The options that public recipes give TinyNet; ours is built so without them."""
    given = {"batch_norm_momentum": 0.9, "depth_trunc": "round", "drop_connect_rate": drop}
    return Foreign(  # YAML reads 1e-5 as text
        harmless=tuple({**given, "batch_norm_epsilon": epsilon} for epsilon in (1e-5, "1e-5")),
        reason="only the networks of the official weights are built; drop_connect_rate is an option here",
    )


OPTIONS: Mapping[tuple[str, str, str], Foreign] = {
    ("optimizer", "*", "clip_grad"): Foreign(
        notice="has no effect, as in PaddleClas; clip_norm or clip_value clips gradients"
    ),
    ("schedule", "*", "last_epoch"): Foreign(
        harmless=(-1,), reason="a run is resumed with Global.checkpoints, which restores the schedule too"
    ),
    ("schedule", "*", "verbose"): Foreign(
        notice="has no effect: every log line contains the learning rate anyway"
    ),
    ("dataset", "Cifar*", "download"): Foreign(
        harmless=(False,), notice="has no effect: nothing is downloaded; name the archive in data_file"
    ),
    ("dataset", "Cifar*", "backend"): Foreign(harmless=("cv2", "pil")),
    ("dataset", "Cifar*", "sample_per_label"): Foreign(reason=_SEMI),
    ("dataset", "Cifar*", "expand_labels"): Foreign(harmless=(1,), reason=_SEMI),
    ("transform", "*", "progress_size"): Foreign(
        reason="training in stages of growing images is not supported"
    ),
    ("network", "*", "data_format"): Foreign(
        harmless=("NCHW",), reason="other orders of channels, height and width are not supported"
    ),
    ("loss", "DistillationDMLLoss", "weight_ratio"): Foreign(harmless=(False,), reason=_MULTI_LABEL),
    ("network", "*", "use_ml_decoder"): Foreign(harmless=(False,), reason=_MULTI_LABEL),
    ("network", "*", "use_fused_attn"): _FUSED,
    ("network", "*", "use_fused_linear"): _FUSED,
    ("network", "TinyNet_[AB]", "override_params"): _tinynet(0.1),
    ("network", "TinyNet_[CDE]", "override_params"): _tinynet(0.0),
    ("network", "DistillationModel", "is_rec"): Foreign(harmless=(False,), reason=_RETRIEVAL),
    ("network", "DistillationModel", "infer_output_key"): Foreign(harmless=("logits",), reason=_RETRIEVAL),
    ("network", "DistillationModel", "use_ssld"): Foreign(
        harmless=(False,), notice="has no effect here; write use_ssld in the network that it is about"
    ),
    ("network", "ResNet*", "layer_type"): Foreign(
        harmless=("ConvBNLayer",), reason="the diverse branch block is not built here"
    ),
    ("network", "ResNet*", "use_first_short_conv"): Foreign(
        harmless=(True,),
        reason="official weights have a convolution on the first short cut",
    ),
    ("network", "ResNet*", "stem_act"): Foreign(harmless=("relu",), reason=_ACTIVATION),
    ("network", "MobileNetV4_*", "act"): Foreign(harmless=("relu",), reason=_ACTIVATION),
    ("network", "MobileNetV4_*", "layer_scale_init_value"): Foreign(
        harmless=(0.0,), reason="only the networks with attention have a layer scale"
    ),
    ("network", "PPLCNetV2_*", "act"): Foreign(harmless=("relu",), reason=_ACTIVATION),
    ("network", "PPLCNet*", "act"): Foreign(harmless=("hardswish",), reason=_ACTIVATION),
    ("network", "DenseNet*", "dropout"): Foreign(harmless=(0.0,), reason="is called dropout_prob here"),
    ("network", "DenseNet*", "bn_size"): Foreign(harmless=(4,), reason="only the published width is built"),
    ("network", "EfficientNet*", "padding_type"): Foreign(
        harmless=("SAME",), reason="official weights are padded so, and no other way"
    ),
    ("network", "EfficientNet*", "override_params"): Foreign(reason=_SHAPE),
    ("network", "EfficientNet*", "use_se"): Foreign(
        harmless=(True,), reason="EfficientNetLite0 to 2 have no squeeze and excitation"
    ),
    ("network", "RepVGG_*", "use_se"): Foreign(harmless=(False,), reason=_NOT_BUILT),
    ("network", "SwinTransformer*_*", "ape"): Foreign(harmless=(False,), reason=_NOT_BUILT),
    ("network", "SwinTransformer*_*", "patch_norm"): Foreign(harmless=(True,), reason=_NOT_BUILT),
    ("network", "SwinTransformer*_*", "use_checkpoint"): Foreign(
        harmless=(False,), notice="has no effect: activations are kept, which takes more memory"
    ),
    **{
        ("network", f"{family}_*", option): Foreign(harmless=(good,), reason=_SHAPE)
        for family, ratio in (("SwinTransformer*", 4.0), ("DeiT", 4), ("ViT_base", 4), ("ViT_large", 4))
        for option, good in (("mlp_ratio", ratio), ("qkv_bias", True))
    },
    **{
        ("network", f"{family}_*_{size}", option): Foreign(harmless=(size,), reason=_SHAPE)
        for family, option in (("SwinTransformer", "img_size"), ("DeiT", "img_size"), ("ViT", "img_size"))
        for size in (224, 384)
    },
}

# Sections and keys, by config path.
KEYS: Mapping[str, Foreign] = {
    "Global.image_channel": Foreign(
        harmless=(3,), reason="images have 3 channels; a padded fourth is not supported"
    ),
    "Global.iter_per_epoch": Foreign(
        reason="an epoch is one pass over the training list; its length cannot be set"
    ),
    "Global.infer_imgs": Foreign(reason="the images to classify stand in Infer.infer_imgs"),
    "MLDecoder": Foreign(reason=_MULTI_LABEL),
    "Slim": Foreign(reason=_SLIM),
    **dict.fromkeys(
        ("DataLoader.mean", "DataLoader.std", "SSL", "UnLabelLoss"),
        Foreign(reason=_SEMI),
    ),
    **dict.fromkeys(
        (
            *("Global.warmup_iter", "Global.feature_normalize", "Global.feature_binarize"),
            *("Global.retrieval_feature_from", "Global.re_ranking", "DataLoader.Eval.Query"),
            *("DataLoader.Eval.Gallery", "Loss.Basic", "Loss.MetaTrain", "Loss.MetaTest", "IndexProcess"),
        ),
        Foreign(reason=_RETRIEVAL),
    ),
    # Scripts write these two into the configuration, as tools/train.py and the engine of PaddleClas do.
    "profiler_options": Foreign(notice="has no effect: nothing is profiled"),
    "Global.distributed": Foreign(
        harmless=(False, True), notice="has no effect: the launcher decides how many processes there are"
    ),
}

# Top-level keys that give away a file of another kind.
OTHER_FILES: Mapping[str, str] = {
    "search_dict": "files of searches over hyper-parameters are not supported; see `ppcls sweep`",
    "ARCHITECTURE": "recipes in the format that PaddleClas had before version 2.0 are not supported",
}

# Keys that this package has, for the sake of recipes that carry them, with one value only: why only that.
VALUES: Mapping[str, str] = {
    "Global.use_multilabel": _MULTI_LABEL,
    "Global.train_mode": "other ways of training are not supported",
    "Global.eval_mode": _RETRIEVAL,
    "Global.task": "only classification is supported",
}

# Keys that this package has for the sake of recipes that carry them, without effect: what is said of them.
WITHOUT_EFFECT: Mapping[str, str] = {
    "Global.use_dali": "has no effect: DALI is not used; the transforms are the same, and run in threads",
}

# Names of components that are not built: kind, then patterns of names.
NAMES: Mapping[str, Mapping[str, str]] = {
    "network": {
        "RecModel": _RETRIEVAL,
        **dict.fromkeys(
            (
                *(
                    "AlexNet",
                    "CLIP_*",
                    "CSPDarkNet53",
                    "CSWinTransformer_*",
                    "CvT_*",
                    "DLA*",
                    "DPN*",
                    "DSNet_*",
                ),
                *("DarkNet53", "EfficientNetB3_watermark", "EfficientNetV2_*", "GoogLeNet"),
                *("HarDNet*", "Inception*", "LeViT_*", "MicroNet_*", "MixNet_*", "MobileNeXt_*"),
                *(
                    "MobileNetV4_hybrid_*",
                    "MobileViTV3_*",
                    "NextViT_*",
                    "PPHGNetV2_B5",
                    "PPHGNetV2_B6",
                    "PVT_*",
                ),
                *("PeleeNet", "ReXNet_*", "RedNet*", "RepVGG_D2se", "SENet154_vd"),
                *("SE_ResNeXt152_64x4d", "SqueezeNet*", "TNT_*"),
                *("UniFormer_*", "VAN_*", "WideResNet", "Xception*", "alt_gvt_*", "cae_*", "pcpvt_*"),
            ),
            f"{_NOT_BUILT}; `ppcls models` lists the networks there are",
        ),
    },
    "loss": {
        "*MultiLabel*": _MULTI_LABEL,
        **dict.fromkeys(
            (
                *("SupConLoss", "Triplet*", "CenterLoss", "ContrastiveLoss*", "Pairwise*", "*MetaBIN"),
                *("DCHLoss", "DSHSDLoss", "LCDSHLoss", "EmlLoss", "NpairsLoss", "MSMLoss", "XBM*"),
            ),
            _RETRIEVAL,
        ),
        **dict.fromkeys(("GoogLeNetLoss", "SoftTargetCrossEntropy"), _NOT_BUILT),
    },
    "metric": {
        **dict.fromkeys(("ATTRMetric", "MultiLabel*", "AccuracyScore", "HammingDistance"), _MULTI_LABEL),
        **dict.fromkeys(("Recallk", "Precisionk", "mAP", "mINP"), _RETRIEVAL),
        "GoogLeNetTopkAcc": _NOT_BUILT,
    },
    "dataset": {
        "MultiLabelDataset": _MULTI_LABEL,
        "CustomLabelDataset": _NOT_BUILT,
        **dict.fromkeys(
            (
                *(
                    "VeriWild",
                    "Market1501",
                    "MSMT17",
                    "DukeMTMC",
                    "CompCars",
                    "LogoDataset",
                    "ICartoonDataset",
                ),
                *("AdaFaceDataset", "FiveValidationDataset", "PersonBatchDataset"),
            ),
            _RETRIEVAL,
        ),
    },
    "sampler": dict.fromkeys(("PKSampler", "DistributedRandomIdentitySampler"), _RETRIEVAL),
    "transform": dict.fromkeys(
        (
            *(
                "Padv2",
                "RandAugmentV2",
                "RandAugmentV3",
                "RandAugmentV4",
                "AugMix",
                "PCALighting",
                "BlurImage",
            ),
            *(
                "RandomRot90",
                "CropImageAtRatio",
                "Pad_paddle_vision",
                "RandomResizedCrop",
                "RandomHorizontalFlip",
            ),
            *("RandomCrop", "Resize", "ToTensor", "Normalize"),
        ),
        _NOT_BUILT,
    ),
    "batch_op": {"MixupCutmixHybrid": _NOT_BUILT},
    "postprocess": {
        **dict.fromkeys(
            ("MultiLabel*", "PersonAttribute", "VehicleAttribute", "TableAttribute"), _MULTI_LABEL
        ),
        "ScoreOutput": _NOT_BUILT,
    },
    "optimizer": {"AdamWDL": _NOT_BUILT},
    "schedule": {"CosineFixmatch": _SEMI, "OneCycleLR": _NOT_BUILT},
}


def without_foreign(
    kind: str, name: str, options: Options, known: Mapping[str, Any], path: str, findings: Findings
) -> dict[str, Any]:
    """Return the options of a component without those of PaddleClas that are not built here.

    Args:
        kind: key of ``components.KINDS``.
        name: the component's name.
        options: what the YAML gives.
        known: parameters the component has; an option of its own is never foreign.
        path: config path of the options.
        findings: receives a notice of an option without effect, and a mistake for a value that is refused.
    """
    group = "network" if kind == "sub_network" else kind
    kept = {}
    for option, value in options.items():
        foreign = None if option in known else _find(group, name, option)
        if foreign is None:
            kept[option] = value
        else:
            _judge(foreign, value, join(path, option), findings)
    return kept


def _find(kind: str, name: str, option: str) -> Foreign | None:
    for (group, pattern, key), foreign in OPTIONS.items():
        if group == kind and key == option and fnmatchcase(name, pattern):
            return foreign
    return None


def judge_key(path: str, value: Any, findings: Findings) -> bool:
    """Check an unknown section or key with ``KEYS``; return whether it is in this table."""
    foreign = KEYS.get(path)
    if foreign is not None:
        _judge(foreign, value, path, findings)
    return foreign is not None


def _judge(foreign: Foreign, value: Any, path: str, findings: Findings) -> None:
    if foreign.accepts(value):
        return
    if foreign.notice is not None:
        findings.warn(path, foreign.notice)
        return
    only = " or ".join(map(str, foreign.harmless))
    findings.error(path, f"{foreign.reason}" + (f"; only {only} is accepted" if only else ""))


def notice_key(path: str, value: Any, findings: Findings) -> None:
    """Warn about a key that is set but has no effect here."""
    if value and path in WITHOUT_EFFECT:
        findings.warn(path, WITHOUT_EFFECT[path])


def why_refused(path: str) -> str:
    """Return why the key at `path` has only one value, as an addition to a message, or an empty text."""
    return f": {VALUES[path]}" if path in VALUES else ""


def unknown_name(kind: str, name: str, registry: Registry, path: str = "") -> Mistake:
    """Return the mistake for a component that is not registered.

    Args:
        kind: key of ``components.KINDS``.
        name: the name in the recipe.
        registry: that of the kind, of whose names the nearest are suggested.
        path: config path of the name.
    """
    group = "network" if kind == "sub_network" else kind
    reasons = [why for pattern, why in NAMES.get(group, {}).items() if fnmatchcase(name, pattern)]
    near = () if reasons and reasons[0] != _NOT_BUILT else nearest(name, registry)
    text = f"{registry.unknown(name)}{': ' + reasons[0] if reasons else ''}"
    return Mistake(path, text, value=name, expected=f"the name of {registry.one}", suggestions=near)


def other_file(tree: RecipeTree) -> tuple[str, str] | None:
    """Return the key which shows that `tree` is not a recipe of this format, with a message, or None."""
    return next(((key, text) for key, text in OTHER_FILES.items() if key in tree), None)
