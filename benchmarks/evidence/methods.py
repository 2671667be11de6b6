"""The methods that are compared, as changes of the recipes in configs/_base_/cifar/methods.

Weights, temperatures and other values are those of these recipes and of the pairs in configs/cifar. What is
given there over 240 epochs is given as the same share of the run here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evidence.settings import CIFAR_EPOCHS, RECIPES, Setting

PUBLISHED_BASELINE = 72.50
PAIR = [["Student", "Teacher"]]
Changes = dict[str, Any]
ChangedLosses = dict[int, Changes]  # by the place of a loss in the recipe


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        recipe: file in configs/_base_/cifar/methods; None: all losses are in `losses`.
        taps: which outputs of the networks it looks at (`Setting.taps`).
        losses: what differs in ``Loss.Train``, by place in the list; or the whole list.
        arch: ``Arch`` with the options of Teacher and Student, where it is not the usual one.
        peer: whether both networks are trained, without a trained teacher.
        unlabelled: whether it learns from images without labels as well.
        page: page of the method in docs/methods.
        published: top-1 of resnet32x4 -> resnet8x4 on CIFAR-100, by the authors or RepDistiller; labels alone
            reach :data:`PUBLISHED_BASELINE`.
        imagenet: published top-1 on ImageNet: labels alone, distilled, and the student; ResNet34 -> ResNet18
            where there is a figure.
    """

    recipe: str | None
    taps: str = "last"
    losses: Callable[[Setting], Any] = lambda setting: {}
    arch: Callable[[Setting, Changes], Changes] | None = None
    peer: bool = False
    unlabelled: bool = False
    page: str = ""
    published: float | None = None
    imagenet: tuple[float, float, str] | None = None


def _warmup(loss: str, setting: Setting, place: int = 1, **options: Any) -> ChangedLosses:
    return {place: {loss: {"weight": {"epochs": _warmup_epochs(setting)}, **options}}}


def _warmup_epochs(setting: Setting) -> int:
    return max(1, round(setting.epochs * 20 / CIFAR_EPOCHS))


def _afd(setting: Setting, networks: Changes) -> Changes:
    """Backbones followed by transforms of their features; the shapes are found."""
    chains = {}
    for name, kind in (("Teacher", "LinearTransformTeacher"), ("Student", "LinearTransformStudent")):
        keys = setting.taps("afd")[name]
        network = {**networks[name], "return_patterns": keys}
        chain = {key: network.pop(key) for key in ("input_size", "frozen_engine") if key in network}
        transform = {"name": kind, "qk_dim": 128, "keys": keys}
        models = [{"net": network}, {"transform": transform}]
        chains[name] = {**chain, "name": "AttentionModel", "models": models}
    chains["Teacher"]["freeze_params_list"] = [True, False]
    return {"freeze_params_list": None, "models": [{name: chain} for name, chain in chains.items()]}


def _udml(setting: Setting) -> list[Changes]:
    both = {"weight": 1.0, "model_names": ["Student", "Teacher"], "key": "logits"}
    pair = {"weight": 1.0, "model_name_pairs": PAIR}
    last = setting.taps("last")["Student"][0]
    return [
        {"DistillationGTCELoss": both},
        {"DistillationDMLLoss": {**pair, "key": "logits"}},
        {"DistillationDistanceLoss": {**pair, "key": last}},
    ]


def _ofd(setting: Setting) -> ChangedLosses:
    adds, bns = setting.taps("adds"), setting.bns
    return {
        1: {"OFDLoss": {"student_keys": adds["Student"], "teacher_keys": adds["Teacher"], "teacher_bns": bns}}
    }


def _keys(kind: str, **options: Any) -> Callable[[Setting], ChangedLosses]:
    """Return a function that names the taps `kind` in a DistillationPairLoss."""

    def losses(setting: Setting) -> ChangedLosses:
        taps = setting.taps(kind)
        found = {"s_key": taps["Student"], "t_key": taps["Teacher"], **options}
        if "weight" in options:
            found["weight"] = {**options["weight"], "epochs": _warmup_epochs(setting)}
        return {1: {"DistillationPairLoss": found}}

    return losses


def _pooled(place: int) -> Callable[[Setting], ChangedLosses]:
    """Return a function that names the outputs before the classifiers in a DistillationPairLoss."""
    return lambda setting: {
        place: {
            "DistillationPairLoss": {"s_key": setting.pooled["Student"], "t_key": setting.pooled["Teacher"]}
        }
    }


def _rkd(setting: Setting) -> ChangedLosses:
    keys = {f"{name.lower()}_keepkeys": [setting.pooled[name]] for name in ("Student", "Teacher")}
    return {1: {"DistillationRKDLoss": keys}}


def _at(setting: Setting) -> ChangedLosses:
    """The mean over the positions of a map makes the loss larger for small maps; the weight undoes this."""
    (loss,) = _keys("stages")(setting)[1].values()
    return {1: {"DistillationPairLoss": {**loss, "weight": setting.at_weight}}}


def _wkd(setting: Setting) -> ChangedLosses:
    start = max(1, setting.epochs * 150 // CIFAR_EPOCHS)  # with a single epoch it never falls
    gamma = {"start": start, "epochs": max(start + 1, setting.epochs)}
    return {1: {"DistillationWKDLogitLoss": {"gamma": gamma}}}


def _both_wkd(setting: Setting) -> list[Changes]:
    import yaml

    losses = [
        yaml.safe_load((RECIPES / f"wkd_{kind}.yaml").read_text(encoding="utf-8"))["Loss"]["Train"]
        for kind in "lf"
    ]
    losses[0][1]["DistillationWKDLogitLoss"]["gamma"].update(
        _wkd(setting)[1]["DistillationWKDLogitLoss"]["gamma"]
    )
    return [*losses[0], losses[1][1]]


def _no_labels(loss: str, **options: Any) -> Callable[[Setting], list[Changes]]:
    return lambda setting: [{loss: {"weight": 1.0, "model_name_pairs": PAIR, **options}}]


_R18 = "ResNet18"
METHODS: dict[str, Method] = {
    "baseline": Method(
        None, losses=lambda setting: [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}]
    ),
    "KD": Method("kd", page="kd", published=73.33),
    "KD standardised": Method("kd_standardize", page="standardize", published=76.62),
    "DKD": Method(
        "dkd",
        losses=lambda setting: _warmup("DistillationDKDLoss", setting, beta=2.0),
        page="dkd",
        published=76.32,
    ),
    "DIST": Method("dist", page="dist", published=76.31),
    "NKD": Method("nkd", page="nkd", imagenet=(69.90, 71.96, _R18)),
    "WTTM": Method("wttm", page="ttm", published=76.06, imagenet=(69.76, 72.19, _R18)),
    "WKD-F": Method("wkd_f", page="wkd", published=76.77),
    "OFA": Method("ofa", taps="heads", page="ofa"),
    "RKD": Method("rkd", losses=_rkd, page="rkd", published=71.90),
    "AT": Method("at", taps="maps", losses=_at, page="at", published=73.44),
    "SRD": Method("srd", losses=_pooled(2), page="srd", imagenet=(69.76, 71.87, _R18)),
    "RLD": Method("rld", losses=lambda setting: _warmup("DistillationRLDLoss", setting), page="rld"),
    "WKD-L": Method("wkd_l", losses=_wkd, page="wkd", published=76.53),
    "ReviewKD": Method(
        "reviewkd",
        taps="maps",
        losses=_keys("review", weight={"value": 5.0}),
        page="reviewkd",
        published=75.63,
    ),
    "WSL": Method("wsl", page="wsl", published=76.05),
    "SKD": Method("skd", page="skd", imagenet=(69.75, 73.0, _R18)),
    "PEFD": Method("pefd", losses=_pooled(1), page="pefd", imagenet=(70.8, 72.23, _R18)),
    "TTM": Method("ttm", page="ttm", published=76.17),
    "Hard": Method("hard", page="hard", imagenet=(72.2, 74.5, "DeiT_tiny")),
    "MGD": Method(
        "mgd",
        taps="mgd",
        losses=lambda setting: {1: {"DistillationPairLoss": {"alpha_mgd": setting.alpha_mgd}}},
        page="mgd",
        imagenet=(69.90, 71.69, _R18),
    ),
    "OverHaul": Method("ofd", taps="maps", losses=_ofd, page="ofd", published=74.01),
    "AFD": Method("afd", taps="afd", arch=_afd, page="afd", imagenet=(69.75, 71.38, _R18)),
    "WKD": Method(None, losses=_both_wkd, page="wkd", published=77.28),
    "SSLD": Method(
        None, losses=_no_labels("DistillationDMLLoss"), page="ssld", imagenet=(71.32, 74.39, "PPLCNet_x1_0")
    ),
    "SSLD, unlabelled": Method(None, losses=_no_labels("DistillationDMLLoss"), unlabelled=True, page="ssld"),
    "KD, unlabelled": Method(
        None, losses=_no_labels("DistillationKLDivLoss", temperature=4), unlabelled=True, page="ssld"
    ),
    "DML": Method("dml", peer=True, page="dml", imagenet=(74.93, 76.68, "PPLCNet_x2_5")),
    "UDML": Method(None, losses=_udml, peer=True, page="udml", imagenet=(74.93, 76.74, "PPLCNet_x2_5")),
}
