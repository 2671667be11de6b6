"""The table for users: method, when to take it, its settings, what it gained here and in the papers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from evidence.comparisons import CIFAR, FASHION
from evidence.methods import METHODS, PUBLISHED_BASELINE
from evidence.settings import RECIPES
from evidence.statistics import gains, mean
from evidence.tables import BASE, runs_of

_HEADINGS = {
    "": "| method | when | settings here | gain on CIFAR-10 | gain on Fashion-MNIST | published gain |",
    "_zh": "| 方法 | 何时使用 | 这里的设置 | CIFAR-10 上的提升 | Fashion-MNIST 上的提升 | 公布的提升 |",
}
_ANY = ("any pair, one true class for each image", "任何一对网络,每张图像一个真实类别")
_POOLED = ("features before the classifier; other classes are no obstacle", "分类器之前的特征;类别可以不同")
_NO_LABELS = ("many images without labels", "有很多无标注图像")
_WHEN = {  # English, Chinese
    "KD": ("any pair, soft labels too", "任何一对网络,也可用软标签"),
    "KD standardised": ("logits of very different scale", "两者 logits 的尺度相差很大"),
    "DKD": _ANY,
    "DIST": ("the teacher is much stronger", "教师强得多"),
    "NKD": _ANY,
    "WTTM": ("any pair, soft labels too", "任何一对网络,也可用软标签"),
    "WKD-F": ("you can name the last feature maps", "能给出最后的特征图的层名"),
    "OFA": ("networks of different kinds", "两个网络种类不同"),
    "RKD": ("features of different size, large batches", "特征大小不同,批次大"),
    "AT": ("you can name the stages of both networks", "能给出两个网络各阶段的层名"),
    "SRD": _POOLED,
    "RLD": ("the teacher is often wrong", "教师常常出错"),
    "WKD-L": ("many classes", "类别多"),
    "ReviewKD": ("time does not matter, you can name the stages", "时间不重要,能给出各阶段的层名"),
    "WSL": ("the teacher is often wrong, soft labels too", "教师常常出错,也可用软标签"),
    "SKD": ("logits of very different scale", "两者 logits 的尺度相差很大"),
    "PEFD": _POOLED,
    "TTM": ("many classes", "类别多"),
    "Hard": ("only the teacher's decisions are known", "只知道教师的判断"),
    "MGD": ("long training, maps of the same size", "训练时间长,特征图大小相同"),
    "OverHaul": ("networks with BatchNorm, maps of the same size", "带 BatchNorm 的网络,特征图大小相同"),
    "AFD": ("you do not know which layers belong together", "不知道哪些层相互对应"),
    "WKD": ("many classes, and you can name the last feature maps", "类别多,并能给出最后的特征图的层名"),
    "SSLD": ("no labels at all", "完全没有标签"),
    "SSLD, unlabelled": _NO_LABELS,
    "KD, unlabelled": _NO_LABELS,
    "DML": ("there is no teacher", "没有教师"),
    "UDML": ("there is no teacher, networks of one kind", "没有教师,两个网络种类相同"),
}


def guide(suffix: str) -> str:
    """Return the table for pages in the language of a suffix: English ``""``, Chinese ``_zh``."""
    here = [gains(runs_of(setting), BASE) if BASE in runs_of(setting) else {} for setting in (CIFAR, FASHION)]
    order = sorted(
        (name for name in METHODS if name != BASE),
        key=lambda name: -mean([found[name].mean for found in here if name in found] or [-99.0]),
    )
    lines = [_HEADINGS[suffix], "| --- | --- | --- | ---: | ---: | ---: |"]
    for name in order:
        cells = [
            f"[{name}](methods/{METHODS[name].page}{suffix}.md)",
            _WHEN[name][bool(suffix)],
            "; ".join(_settings(name)),
            *(str(found.get(name, "")) for found in here),
            _literature(name),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _settings(name: str) -> Iterator[str]:
    """Yield the numbers of each loss of a method on CIFAR-10, without that of the labels."""
    method = METHODS[name]
    losses: list[dict[str, Any]] = []
    if method.recipe:
        recipe = yaml.safe_load((RECIPES / f"{method.recipe}.yaml").read_text(encoding="utf-8"))
        losses = recipe["Loss"]["Train"]
    changes = method.losses(CIFAR)
    if isinstance(changes, list):
        losses, changes = changes, {}
    for number, entry in enumerate(losses):
        ((loss, options),) = entry.items()
        ((_, changed),) = changes.get(number, {loss: {}}).items()
        if loss != "DistillationGTCELoss":
            for option, value in changed.items():
                old = options.get(option)
                both = isinstance(old, dict) and isinstance(value, dict)
                options[option] = {**old, **value} if both else value
            numbers = dict(_numbers(options))
            yield ", ".join(f"`{option}` {value:g}" for option, value in numbers.items())


def _numbers(options: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the options that are numbers; of a schedule, its largest value."""
    for option, value in options.items():
        number = value.get("value", 1.0) if isinstance(value, dict) else value
        if isinstance(number, int | float) and not isinstance(number, bool):
            yield option, number


def _literature(name: str) -> str:
    method = METHODS[name]
    if method.published is not None:
        return f"{method.published - PUBLISHED_BASELINE:+.2f} (CIFAR-100)"
    if method.imagenet:
        alone, distilled, student = method.imagenet
        return f"{distilled - alone:+.2f} (ImageNet, {student})"
    return ""
